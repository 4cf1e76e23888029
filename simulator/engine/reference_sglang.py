"""SGLang's order of service in the step-by-step reference: lists walked at every step."""

from __future__ import annotations

from simulator.engine import prefill_first as rules
from simulator.engine.hooks import Hooks
from simulator.engine.reference_rank import ReferenceRank, Sequence
from simulator.records import StrideLog
from simulator.request import Request, State
from simulator.scenario.deployment import FirstToken, PoolPlan


class PrefillFirstRank(ReferenceRank):
    """A rank that prefills whoever waits before it goes on decoding."""

    def __init__(
        self, index: int, plan: PoolPlan, hooks: Hooks, log: StrideLog, first_token: FirstToken
    ) -> None:
        super().__init__(index, plan, hooks, log, first_token)
        self.ratio_start = min(1.0, rules.INITIAL_RATIO * plan.conservativeness)
        self.ratio_initial = self.ratio_start
        self.decode_steps = 0
        self.full = False
        self.full_before = False

    def restore(self) -> None:
        """Take back the admissions of the boundary that has just been decided."""
        super().restore()
        self.full = self.full_before

    def left(self) -> None:
        """A request has left the batch for good."""
        super().left()
        self.full = False

    def end(self, t: float) -> None:
        """The step has ended."""
        if self.batch and not any(s.chunk for s in self.batch):
            self.decode_steps += 1
        super().end(t)

    def begin(self, t: float) -> None:
        """Decide who takes part in the step that starts at ``t``."""
        self.fresh = []
        for s in self.batch:
            s.chunk = 0
            s.paused = False
        if self.free() < 0:
            self._retract(t)
            self.admit = not self.batch
        if not self.batch:
            self.full = False
        self.full_before = self.full
        decoding = sum(s.decoding for s in self.batch)
        budget = self.plan.max_num_batched_tokens - decoding * self.plan.mixed
        budget = self._continue(t, budget)
        self.before = self._snapshot()
        if self.admit and not self.full:
            budget = self._admit_by_estimate(t, budget)
        prefilling = any(s.chunk for s in self.batch)
        if prefilling and not self.plan.mixed:
            for s in self.batch:
                s.paused = s.decoding
        elif self.admit:
            self._admit_landed(t, budget if prefilling else self.plan.max_num_seqs)
        if not self.batch:
            self.admit = True
            if not self.waiting:
                self.ratio_start = self.ratio_initial
                self.decode_steps = 0

    # admission

    def _expected(self, tokens: int) -> int:
        """Of the output tokens to come, those that are expected."""
        least = self.ratio_initial * rules.LEAST_RATIO_FACTOR
        decay = (self.ratio_initial - least) / rules.DECAY_STEPS
        ratio = max(least, self.ratio_start - decay * self.decode_steps)
        return int(ratio * min(tokens, rules.LONGEST_OUTPUT))

    def _admit_by_estimate(self, t: float, budget: int) -> int:
        admitted: list[Sequence] = []
        while (queue := self.evicted or self.waiting) and budget > 0:
            r = queue[0]
            future = 0  # units beyond what is held now
            for s in self.batch:
                left = s.request.output_tokens - s.request.emitted
                if s in admitted:
                    ahead = s.target + min(left, rules.LONGEST_OUTPUT)
                    future += self.units(ahead) - s.units
                elif s.decoding:
                    future += self.units(s.context + self._expected(left)) - self.units(s.context)
            target = r.prompt_tokens + r.emitted
            ahead = target + min(r.output_tokens - r.emitted, rules.LONGEST_OUTPUT)
            slots = self.plan.max_num_seqs - len(self.batch)
            if slots <= 0 or self.units(ahead) > self.free() - future:
                self.full = True
                break
            chunk = min(target, budget)
            self._start(t, queue, chunk, self.units(target))
            admitted.append(self.batch[-1])
            budget -= chunk
        return budget

    # retraction

    def _retract(self, t: float) -> None:
        """Fewest output tokens first, then the longest prompt, then the latest admitted."""
        while self.free() < 0:
            order = [
                (s.request.emitted, -s.request.prompt_tokens, -i)
                for i, s in enumerate(self.batch)
                if s.decoding
            ]
            s = self.batch.pop(-min(order)[2])
            self._requeue(s.request, t)
        left = [s.request for s in self.batch if s.decoding]
        output = sum(r.output_tokens for r in left)
        emitted = sum(r.emitted for r in left) + rules.RETRACT_STEPS * len(left)
        self.ratio_start = min(1.0, emitted / output) if output else 1.0
        self.decode_steps = 0
        self.full = False

    def _requeue(self, r: Request, t: float) -> None:
        r.preemptions += 1
        (self.waiting if self.plan.role == "colocated" else self.evicted).append(r)
        if self.hooks.observed:
            self.hooks.moved(t, r, State.PREEMPTED, self.index)
