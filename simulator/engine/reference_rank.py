"""The scheduler of the step-by-step reference: one rank's lists, walked at every step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.engine.groups import GroupTotals
from simulator.engine.hooks import Hooks
from simulator.perf.table import AttentionGroupPlan
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
    units: int = 0
    chunk: int = 0
    paused: bool = False
    stalled: bool = False

    @property
    def target(self) -> int:
        """Tokens to compute before it decodes."""
        return self.request.prompt_tokens + self.request.emitted

    @property
    def ends(self) -> bool:
        """Whether the current chunk is its last."""
        return self.chunk > 0 and self.computed + self.chunk == self.target


Snapshot = tuple[list[Sequence], list[Request], list[Request], list[Request]]


class ReferenceRank:
    """Lists of one rank, and what its scheduler does with them."""

    def __init__(
        self, index: int, plan: PoolPlan, hooks: Hooks, log: StrideLog, first_token: FirstToken
    ) -> None:
        self.index = index
        self.plan = plan
        self.hooks = hooks
        self.log = log
        self.first_token = first_token
        self.batch: list[Sequence] = []  # in order of admission
        self.landed: list[Request] = []
        self.waiting: list[Request] = []
        self.staged: list[tuple[float, str, Request]] = []  # instant, queue they are to join
        self.evicted: list[Request] = []
        self.promised: list[tuple[int, int]] = []  # (units, tokens) of transfers not yet landed
        self.admit = True
        self.released = False
        self.held = False
        self.fresh: list[Request] = []  # landed requests that joined at this boundary
        self.before: Snapshot = ([], [], [], [])
        trtllm = plan.scheduler == "trtllm"
        self.whole = trtllm and not plan.chunked
        self.reserves = trtllm and plan.reserve_output
        self.sums = GroupTotals(plan.table.groups)

    # reading

    def tokens(self) -> int:
        """KV tokens resident, promised or to be computed."""
        tokens = sum(tokens for _, tokens in self.promised)
        tokens += sum(s.context for s in self.batch if s.decoding)
        partial = [s.request for s in self.batch if not s.decoding]
        staged = [r for _, _, r in self.staged]
        for r in (*partial, *self.landed, *self.waiting, *self.evicted, *staged):
            tokens += r.prompt_tokens + r.emitted
        return tokens

    def requests(self) -> int:
        """Requests that run or wait here."""
        return len(self.batch) + len(self.waiting) + len(self.evicted) + len(self.staged)

    def has_room(self, request: Request, tokens: int) -> bool:
        """Whether blocks for a transfer of ``tokens`` can be promised."""
        return not self.evicted and self.transfer_units(request, tokens) <= self.free()

    def transfer_units(self, request: Request, tokens: int) -> int:
        """What is promised to a transfer of ``tokens``."""
        if self.reserves:
            tokens = request.prompt_tokens + request.output_tokens
        return self.units(tokens)

    def units(self, tokens: int) -> int:
        """KV units of a sequence of ``tokens`` tokens, block by block."""
        block = self.plan.block_tokens
        units = 0
        for group in self.plan.table.groups:
            kept = tokens
            for limit in (group.window, group.local_chunk):
                if limit is not None and kept > limit:
                    kept = limit
            units += group.units * ((kept + block - 1) // block)
        return units

    def free(self) -> int:
        """Units neither used nor promised."""
        used = sum(units for units, _ in self.promised)
        used += sum(r.reserved for r in self.landed)
        used += sum(r.reserved for _, queue, r in self.staged if queue == "landed")
        for s in self.batch:
            if self.reserves:
                used += self.units(s.request.prompt_tokens + s.request.output_tokens)
            else:
                used += self.units(s.context) if s.decoding else s.units
        return self.plan.capacity_blocks - used

    # the step

    def _reads(self) -> list[int]:
        contexts = self._contexts()
        return [sum(_read(group, x) for x in contexts) for group in self.plan.table.groups]

    def _contexts(self) -> list[int]:
        return [s.context for s in self.batch if s.decoding and not s.paused]

    def chunks(self) -> list[tuple[int, int]]:
        """(cached, new) tokens of the step's chunks."""
        return [(s.computed, s.chunk) for s in self.batch if s.chunk]

    def new_tokens(self) -> int:
        """Tokens this rank computes in the step."""
        return len(self._contexts()) + sum(s.chunk for s in self.batch)

    def step_s(self) -> float:
        """Time [s] this rank needs for the step; it has something to do."""
        table = self.plan.table
        decoding = len(self._contexts())
        if self.chunks():
            rows = decoding + sum(s.ends for s in self.batch)
            return table.rank_mixed_s(decoding, self._reads(), self.chunks(), rows)
        return table.rank_decode_s(decoding, self._reads())

    def row(self) -> tuple[float, ...]:
        """What the step did, for the log."""
        contexts = self._contexts()
        chunks = self.chunks()
        ends = sum(s.ends for s in self.batch)
        for g, (group, read) in enumerate(zip(self.plan.table.groups, self._reads(), strict=True)):
            self.sums.pairs[g] += read + sum(group.pairs(p, c) for p, c in chunks)
            self.sums.kv_token_steps[g] += read + sum(group.read_back(p, c) for p, c in chunks)
        return (
            len(contexts),
            sum(contexts),
            sum(c for _, c in chunks),
            sum(c * (p + 0.5 * c) for p, c in chunks),
            sum(p + c for p, c in chunks),
            len(contexts) + ends,
            (0 if self.first_token == "handoff" else len(self.fresh))
            + sum(s.stalled and not s.paused for s in self.batch),
            self.plan.capacity_blocks - self.free(),
            len(chunks),
        )

    def end(self, t: float) -> None:
        """The step has ended: tokens appear, chunks are done, requests end."""
        for s in list(self.batch):
            if s.paused:
                s.stalled = True
            elif s.decoding:
                s.context += 1
                self._emit(s, t)
            elif s.chunk:
                ends = s.ends
                s.computed += s.chunk
                s.chunk = 0
                if ends:
                    s.decoding = True
                    s.context = s.computed + 1
                    self._emit(s, t, prefilled=True)
        self.admit = True

    def _emit(self, s: Sequence, t: float, prefilled: bool = False) -> None:
        r = s.request
        r.emitted += 1
        if r.first_token_s < 0.0:
            r.first_token_s = t
            if prefilled:
                r.prefill_end_s = t
        elif prefilled or s.stalled or (r in self.fresh and self.first_token == "prefill"):
            self.log.gaps.append(t - r.prev_token_s)
        r.prev_token_s = t
        s.stalled = False
        if r.emitted == r.output_tokens:
            self.batch.remove(s)
            r.last_token_s = t
            self.hooks.finished(r, t)
            self.left()
        elif prefilled:
            self._decodes(r, t)

    def left(self) -> None:
        """A request has left the batch for good."""
        self.released = True

    def _decodes(self, r: Request, t: float) -> None:
        if r.decode_start_s < 0.0:
            r.decode_start_s = t
        if self.hooks.observed:
            self.hooks.moved(t, r, State.DECODING, self.index)

    # the scheduler

    def unstage(self, until_s: float) -> None:
        """Who was there by then joins its queue."""
        for arrived_s, queue, request in list(self.staged):
            if arrived_s <= until_s + tie_s(until_s):
                getattr(self, queue).append(request)
                self.staged.remove((arrived_s, queue, request))

    def restore(self) -> None:
        """Take back the admissions of the boundary that has just been decided."""
        self.batch, self.landed, self.evicted, self.waiting = self.before

    def _snapshot(self) -> Snapshot:
        batch = [replace(s) for s in self.batch]
        return batch, list(self.landed), list(self.evicted), list(self.waiting)

    def begin(self, t: float) -> None:
        """Decide who takes part in the step that starts at ``t``."""
        self.fresh = []
        for s in self.batch:
            s.chunk = 0
        if self.free() < 0:
            while self.free() < 0:
                self._evict(t)
            self.admit = not self.batch
        budget = self.plan.max_num_batched_tokens - sum(s.decoding for s in self.batch)
        budget = self._continue(t, budget)
        self.before = self._snapshot()
        if self.admit:
            budget = self._admit_chunks(t, self.evicted, budget)
            budget = self._admit_landed(t, budget)
            if not self.evicted and not self.held:
                self._admit_chunks(t, self.waiting, budget)
        if not self.batch:
            self.admit = True

    def has_prompt(self) -> bool:
        """Whether a prompt would be computed in a step that begins now, were none held."""
        decoding = [s for s in self.batch if s.decoding]
        if len(decoding) < len(self.batch):
            return True
        budget = self.plan.max_num_batched_tokens - len(decoding)
        for r in self.waiting[:1]:
            fits = self.units(r.prompt_tokens + r.output_tokens) <= self.free()
            whole = r.prompt_tokens <= budget or (budget > 0 and not self.whole)
            return fits and whole and len(decoding) < self.plan.max_num_seqs
        return False

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
            chunk = min(s.target - s.computed, budget)
            extra = 0 if self.reserves else max(0, self.units(s.computed + chunk) - s.units)
            while s in self.batch and extra > self.free():
                self._evict(t)
                self.admit = not self.batch
            if s in self.batch:
                s.units += extra
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
            if self.whole and chunk < target <= self.plan.max_num_batched_tokens:
                break
            needed = self.units(target if queue is self.evicted else chunk)
            if self.reserves:
                needed = self.units(r.prompt_tokens + r.output_tokens)
            if needed > self.free():
                break
            self._start(t, queue, chunk, self.units(chunk))
            budget -= chunk
        return budget

    def _start(self, t: float, queue: list[Request], chunk: int, units: int) -> None:
        r = queue.pop(0)
        if queue is self.evicted and not queue:
            self.released = True
        self.batch.append(Sequence(r, False, units=units, chunk=chunk))
        if r.prefill_start_s < 0.0:
            r.prefill_start_s = t
        if self.hooks.observed:
            self.hooks.moved(t, r, State.PREFILLING, self.index)


def _read(group: AttentionGroupPlan, context: int) -> int:
    """Tokens the last of ``context`` tokens looks at, itself included."""
    first = 0
    if group.window is not None:
        first = max(0, context - group.window)
    if group.local_chunk is not None:
        first = (context - 1) // group.local_chunk * group.local_chunk
    return context - first
