"""The step-by-step reference of ``BatchInstance``: one event per step, everything recomputed.

It keeps plain lists, walks them at every step, and adds up boundaries one step at a time. It shares
no arithmetic with the stride path beyond the step-time table, and stays for ever: tests hold both
to the same requests and to instants within 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.engine.hooks import Hooks
from simulator.records import StrideLog
from simulator.request import Request, State
from simulator.scenario.deployment import FirstToken, PoolPlan
from simulator.units import tie_s


@dataclass(eq=False)
class Sequence:
    """A request in the batch: decoding at ``context``, or prefilling with ``computed`` tokens."""

    request: Request
    decoding: bool
    context: int = 0
    computed: int = 0
    blocks: int = 0
    chunk: int = 0


Snapshot = tuple[list[Sequence], list[Request], list[Request], list[Request]]


class ReferenceInstance:
    """Same interface and semantics as ``BatchInstance``, one step at a time."""

    def __init__(
        self,
        index: int,
        plan: PoolPlan,
        clock: Clock,
        hooks: Hooks,
        log: StrideLog,
        first_token: FirstToken,
    ) -> None:
        self.index = index
        self.plan = plan
        self.clock = clock
        self.hooks = hooks
        self.log = log
        self.first_token = first_token
        self.version = 0
        self.batch: list[Sequence] = []  # in order of admission
        self.landed: list[Request] = []
        self.waiting: list[Request] = []
        self.evicted: list[Request] = []
        self.promised: list[tuple[int, int]] = []  # (blocks, tokens) of transfers not yet landed
        self.stepping = False
        self.waking = False
        self.t0 = 0.0
        self.t_end = 0.0
        self.admit = True
        self.released = False
        self.fresh: list[Request] = []  # landed requests that joined at this boundary
        self.before: Snapshot = ([], [], [], [])

    # newcomers

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request arrives to be prefilled and decoded here."""
        restart = self._restarts(t_s)
        self.waiting.append(request)
        self._newcomer(t_s, restart)

    def land(self, request: Request, t_s: float) -> None:
        """A request's KV has arrived."""
        self.promised.remove((request.reserved, request.prompt_tokens + request.emitted))
        restart = self._restarts(t_s)
        self.landed.append(request)
        self._newcomer(t_s, restart)

    def _restarts(self, t: float) -> bool:
        """If the current step began at this very instant, take its admissions back."""
        tie = tie_s(t)
        if self.stepping and self.t_end > t + tie and t <= self.t0 + tie:
            self.batch, self.landed, self.evicted, self.waiting = self.before
            return True
        return False

    def _newcomer(self, t: float, restart: bool) -> None:
        if restart:
            self._begin(self.t0)
        elif not self.stepping and not self.waking:
            self.waking = True
            self.t0 = t
            self._schedule(t)

    def _schedule(self, t: float) -> None:
        self.version += 1
        self.clock.at(t, (self._on_timer,), self.version, None, BOUNDARY + self.index)

    # reading

    def sync(self, t_s: float) -> None:
        """If a boundary is due at ``t_s``, take it before anything is read."""
        if self.stepping and self.t_end <= t_s + tie_s(t_s):
            self._end()

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """KV tokens resident, promised or to be computed, as of the last boundary."""
        self.sync(t_s)
        tokens = sum(tokens for _, tokens in self.promised)
        tokens += sum(s.context for s in self.batch if s.decoding)
        partial = [s.request for s in self.batch if not s.decoding]
        for r in (*partial, *self.landed, *self.waiting, *self.evicted):
            tokens += r.prompt_tokens + r.emitted
        return tokens

    def has_room(self, blocks: int, t_s: float) -> bool:
        """Whether ``blocks`` can be promised as of the last boundary."""
        self.sync(t_s)
        return not self.evicted and blocks <= self._free()

    def reserve(self, blocks: int, tokens: int) -> None:
        """Promise ``blocks`` for a transfer of ``tokens`` tokens."""
        self.promised.append((blocks, tokens))

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.plan.block_tokens)

    def _free(self) -> int:
        used = sum(blocks for blocks, _ in self.promised)
        used += sum(r.reserved for r in self.landed)
        for s in self.batch:
            used += self._blocks(s.context) if s.decoding else s.blocks
        return self.plan.capacity_blocks - used

    # boundaries

    def _on_timer(self, timer: Timer) -> None:
        if timer.version == self.version:
            if self.stepping:
                self._end()
            else:
                self.waking = False
                self._begin(self.t0)

    def _end(self) -> None:
        t = self.t_end
        self.stepping = False
        self.version += 1
        self._record()
        for s in list(self.batch):
            if s.decoding:
                s.context += 1
                self._emit(s, t)
            elif s.chunk:
                s.computed += s.chunk
                s.chunk = 0
                if s.computed == s.request.prompt_tokens + s.request.emitted:
                    s.decoding = True
                    s.context = s.computed + 1
                    self._emit(s, t, prefilled=True)
        self.admit = True
        self._begin(t)

    def _record(self) -> None:
        decoding = [s for s in self.batch if s.decoding]
        chunks = [s for s in self.batch if s.chunk]
        ends = [
            s for s in chunks if s.computed + s.chunk == s.request.prompt_tokens + s.request.emitted
        ]
        fresh = 0 if self.first_token == "handoff" else len(self.fresh)
        self.log.buffer.extend(
            (
                self.index,
                self.t0,
                self.t_end,
                1,
                len(decoding),
                sum(s.context for s in decoding),
                sum(s.chunk for s in chunks),
                sum(s.chunk * (s.computed + 0.5 * s.chunk) for s in chunks),
                sum(s.computed + s.chunk for s in chunks),
                len(decoding) + len(ends),
                fresh,
                self.plan.capacity_blocks - self._free(),
                len(chunks),
                self.t_end - self.t0,
            )
        )
        if len(self.log.buffer) >= self.log.limit:
            self.log.flush()

    def _emit(self, s: Sequence, t: float, prefilled: bool = False) -> None:
        r = s.request
        r.emitted += 1
        if r.first_token_s < 0.0:
            r.first_token_s = t
            if prefilled:
                r.prefill_end_s = t
        elif prefilled or (r in self.fresh and self.first_token == "prefill"):
            self.log.gaps.append(t - r.prev_token_s)
        r.prev_token_s = t
        if r.emitted == r.output_tokens:
            self.batch.remove(s)
            r.last_token_s = t
            self.hooks.finished(r, t)
            self.released = True
        elif prefilled:
            self._decodes(r, t)

    def _decodes(self, r: Request, t: float) -> None:
        if r.decode_start_s < 0.0:
            r.decode_start_s = t
        if self.hooks.observed:
            self.hooks.moved(t, r, State.DECODING, self.index)

    def _begin(self, t: float) -> None:
        self.t0 = t
        self.fresh = []
        for s in self.batch:
            s.chunk = 0
        if self._free() < 0:
            while self._free() < 0:
                self._evict(t)
            self.admit = not self.batch
        budget = self.plan.max_num_batched_tokens - sum(s.decoding for s in self.batch)
        budget = self._continue(t, budget)
        self.before = (
            [replace(s) for s in self.batch],
            list(self.landed),
            list(self.evicted),
            list(self.waiting),
        )
        if self.admit:
            budget = self._admit_chunks(t, self.evicted, budget)
            budget = self._admit_landed(t, budget)
            if not self.evicted:
                self._admit_chunks(t, self.waiting, budget)
        if self.batch:
            self._step(t)
        else:
            self.admit = True
        if self.released:
            self.released = False
            self.hooks.freed(t)

    def _step(self, t: float) -> None:
        decoding = [s.context for s in self.batch if s.decoding]
        chunks = [(s.computed, s.chunk) for s in self.batch if s.chunk]
        ends = sum(
            1
            for s in self.batch
            if s.chunk and s.computed + s.chunk == s.request.prompt_tokens + s.request.emitted
        )
        table = self.plan.table
        if chunks:
            step_s = table.mixed_s(len(decoding), sum(decoding), chunks, len(decoding) + ends)
        else:
            step_s = table.decode_s(len(decoding), sum(decoding))
        self.stepping = True
        self.t_end = t + step_s
        self._schedule(self.t_end)

    # the scheduler

    def _evict(self, t: float) -> None:
        s = self.batch.pop()
        s.request.preemptions += 1
        self.evicted.insert(0, s.request)
        if self.hooks.observed:
            self.hooks.moved(t, s.request, State.PREEMPTED, self.index)

    def _continue(self, t: float, budget: int) -> int:
        for s in [s for s in self.batch if not s.decoding]:
            if budget <= 0 or s not in self.batch:
                break
            chunk = min(s.request.prompt_tokens + s.request.emitted - s.computed, budget)
            extra = self._blocks(s.computed + chunk) - s.blocks
            while s in self.batch and extra > self._free():
                self._evict(t)
                self.admit = not self.batch
            if s in self.batch:
                s.blocks += extra
                s.chunk = chunk
                budget -= chunk
        return budget

    def _admit_landed(self, t: float, budget: int) -> int:
        while self.landed and budget > 0 and len(self.batch) < self.plan.max_num_seqs:
            r = self.landed.pop(0)
            if self.first_token == "handoff" and r.first_token_s < 0.0:
                r.first_token_s = r.prev_token_s = t
                if r.output_tokens == 1:
                    r.decode_start_s = r.last_token_s = t
                    self.hooks.finished(r, t)
                    self.released = True
                    continue
            self.batch.append(Sequence(r, True, context=r.prompt_tokens + r.emitted))
            self.fresh.append(r)
            self._decodes(r, t)
            budget -= 1
        return budget

    def _admit_chunks(self, t: float, queue: list[Request], budget: int) -> int:
        while queue and budget > 0 and len(self.batch) < self.plan.max_num_seqs:
            r = queue[0]
            target = r.prompt_tokens + r.emitted
            chunk = min(target, budget)
            needed = self._blocks(target if queue is self.evicted else chunk)
            if needed > self._free():
                break
            queue.pop(0)
            if queue is self.evicted and not queue:
                self.released = True
            self.batch.append(Sequence(r, False, blocks=self._blocks(chunk), chunk=chunk))
            budget -= chunk
            if r.prefill_start_s < 0.0:
                r.prefill_start_s = t
            if self.hooks.observed:
                self.hooks.moved(t, r, State.PREFILLING, self.index)
        return budget
