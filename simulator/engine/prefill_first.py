"""SGLang's order of service: waiting prompts are prefilled before decoding goes on.

While anybody can be admitted, steps prefill, by chunks of at most the token budget, and the running
sequences pause (or decode in the same steps, ``mixed``). Who is admitted is decided by an estimate: the
newcomer's whole output, and of every running sequence's remaining output a share, the *new-token
ratio*, must fit beside what is held. The ratio falls with every decode step and is set anew when the
estimate proves wrong: then sequences are retracted, those with the fewest output tokens first, and
queue again behind everybody. Once somebody could not be admitted nobody asks again until a request
ends or is retracted. docs/schedulers.md names the sources.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from simulator.engine import admission
from simulator.request import Request
from simulator.scenario.deployment import PoolPlan

if TYPE_CHECKING:
    from simulator.engine.core import Batch

INITIAL_RATIO = 0.7
"""Share of the remaining output that is expected, to begin with (SGLANG_INIT_NEW_TOKEN_RATIO)."""

LEAST_RATIO_FACTOR = 0.14
"""The share it falls to, of the initial one (SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR)."""

DECAY_STEPS = 600
"""Decode steps in which it falls from the one to the other (SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS)."""

RETRACT_STEPS = 20
"""Decode steps ahead for which retraction sets it (SGLANG_RETRACT_DECODE_STEPS)."""

LONGEST_OUTPUT = 4096
"""Output tokens beyond which no estimate looks (SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION)."""


class NewTokenRatio:
    """The share of the running requests' remaining output that admission expects.

    Args:
        conservativeness: factor on the initial ratio (``--schedule-conservativeness``).
    """

    __slots__ = ("decay", "initial", "least", "start", "steps")

    def __init__(self, conservativeness: float) -> None:
        self.initial = min(1.0, INITIAL_RATIO * conservativeness)
        self.least = self.initial * LEAST_RATIO_FACTOR
        self.decay = (self.initial - self.least) / DECAY_STEPS
        self.reset()

    def reset(self) -> None:
        """The instance is idle."""
        self.start = self.initial
        self.steps = 0

    def retracted(self, emitted: int, sequences: int, output: int) -> None:
        """Sequences were retracted.

        Args:
            emitted: output tokens of those that are left.
            sequences: how many they are.
            output: their output tokens in the end.
        """
        self.start = min(1.0, (emitted + RETRACT_STEPS * sequences) / output) if output else 1.0
        self.steps = 0

    def expected(self, tokens: int) -> int:
        """Of ``tokens`` output tokens to come, those that are expected."""
        ratio = max(self.least, self.start - self.decay * self.steps)
        return int(ratio * min(tokens, LONGEST_OUTPUT))


class PrefillFirst:
    """What one batch remembers between boundaries under this order of service.

    Attributes:
        ratio: of new tokens.
        full: somebody could not be admitted, and nobody has left since.
        stalled: sequences that pause, by the instant of their latest token.
    """

    __slots__ = ("full", "full_before", "mixed", "queue_again", "ratio", "stalled")

    def __init__(self, plan: PoolPlan) -> None:
        self.mixed = plan.mixed
        self.queue_again = plan.role == "colocated"  # else they come before what lands
        self.ratio = NewTokenRatio(plan.conservativeness)
        self.full = False
        self.full_before = False
        self.stalled: dict[float, int] = {}

    def take_back(self) -> None:
        """The boundary is going to be decided again."""
        self.full = self.full_before

    def schedule(self, batch: Batch, t: float) -> None:
        """Decide who takes part in the step that starts at ``t``."""
        ledger = batch.ledger
        if ledger.growing + ledger.held > ledger.capacity:
            self._retract(batch, t)
            batch.admit = not batch.running
        if not batch.running:
            self.full = False
        self.full_before = self.full
        budget = batch.budget - (batch.batch if self.mixed else 0)
        budget = admission.continue_chunks(batch, t, budget)
        if batch.admit and not self.full and (batch.evicted or batch.waiting):
            budget = self._start(batch, t, budget)
        batch.paused = bool(batch.chunks) and not self.mixed
        if batch.landed and batch.admit and not batch.paused:
            admission.admit_landed(batch, t, budget if batch.chunks else batch.max_seqs)

    # ------------------------------------------------------------------ admission

    def _start(self, batch: Batch, t: float, budget: int) -> int:
        """Admit who waits, while slots, token budget and the estimate allow."""
        ledger = batch.ledger
        committed = ledger.held  # one loop over the batch for each attempt, not for each step
        for r in batch.running.values():
            if r.finish_n >= 0:
                left = r.finish_n - batch.n
                committed += ledger.units_for(r.offset + batch.n + self.ratio.expected(left))
        for queue in (batch.evicted, batch.waiting):
            while queue and budget > 0:
                r = queue[0]
                target = r.prompt_tokens + r.emitted
                ahead = min(r.output_tokens - r.emitted, LONGEST_OUTPUT)
                needed = ledger.units_for(target + ahead)
                if len(batch.running) >= batch.max_seqs or committed + needed > ledger.capacity:
                    self.full = True
                    return budget
                committed += needed
                c = min(target, budget)
                admission.start(batch, t, queue, c, ledger.units_for(target))
                budget -= c
        return budget

    # ------------------------------------------------------------------ retraction

    def _retract(self, batch: Batch, t: float) -> None:
        """Retract until everybody's next token fits: fewest output tokens first, long prompts first."""
        ledger = batch.ledger
        n = batch.n

        def order(r: Request) -> tuple[int, int, int]:
            return r.output_tokens - (r.finish_n - n), -r.prompt_tokens, -r.admission

        victims = deque(sorted((r for r in batch.running.values() if r.finish_n >= 0), key=order))
        while ledger.growing + ledger.held > ledger.capacity:
            r = victims.popleft()
            last_s = self._last_token_s(r, t)
            del batch.running[r.id]
            admission.preempt(batch, r, t)
            r.prev_token_s = last_s
            (batch.waiting if self.queue_again else batch.evicted).append(r)
        output = sum(r.output_tokens for r in victims)
        left = sum(r.finish_n - n for r in victims)
        self.ratio.retracted(output - left, len(victims), output)
        self.full = False

    # ------------------------------------------------------------------ pauses

    def pause(self, batch: Batch, t0: float) -> None:
        """The decoding sequences did not take part in the step that began at ``t0``."""
        new = batch.batch - sum(self.stalled.values())
        if new:
            self.stalled[t0] = new

    def resume(self, batch: Batch, first_s: float) -> int:
        """They did, in steps of which the first ended at ``first_s``; how many had paused."""
        count = 0
        for last_s, sequences in self.stalled.items():
            batch.log.pauses += (first_s - last_s, sequences)
            count += sequences
        self.stalled.clear()
        return count

    def _last_token_s(self, r: Request, t: float) -> float:
        """When a decoding sequence had its latest token; it leaves those that pause."""
        for last_s in self.stalled:  # in order of time
            if last_s >= r.prev_token_s:
                self.stalled[last_s] -= 1
                return last_s
        return t
