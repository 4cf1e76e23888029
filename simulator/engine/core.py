"""The batch of one rank: who waits, who runs, what they hold. The scheduling core, without a clock.

An instance owns one ``Batch``, or one for each of the ranks it runs in lock-step, and takes it from
boundary to boundary: ``advance`` past the steps that ended, ``schedule`` what comes next. Between boundaries a batch is described by its step counter ``n``, ``batch`` decoding sequences
and the KV tokens ``kv`` they hold; nothing loops over sequences.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from simulator.engine import admission
from simulator.engine.groups import GroupSums
from simulator.engine.hooks import Hooks
from simulator.engine.prefill_first import PrefillFirst
from simulator.kvcache import ledger
from simulator.perf.table import StepPiece, StepTable
from simulator.records import StrideLog
from simulator.request import Request, State
from simulator.scenario.deployment import FirstToken, PoolPlan

Line = tuple[float, float]
"""Time of the first step, and its growth from step to step [s]."""

Row = tuple[int, int, int, float, int, int, int, int, int]
"""Of a stride: sequences, KV tokens, new tokens, pairs, tokens read back, tokens sampled per step,
fresh sequences, units used in the last step, chunks."""


NO_CHUNKS = (0, 0.0, 0, 0)
"""New tokens, pairs, tokens read back, and prefills that end, of a step's chunks."""


class Batch:
    """Queues, KV ledger and running requests of one rank.

    Args:
        index: of the instance, among all instances of the run.
        plan: the pool it belongs to.
        hooks: the cluster.
        log: where token gaps are written.
        first_token: who emits token 1 (landed requests only).

    Attributes:
        n: steps completed since the run began.
        batch: sequences decoding.
        kv: KV tokens of their contexts in the next step.
        sums: sums by attention group.
        groups: the same; None where all there is to know is ``batch`` and ``kv``.
        heap: (finish_n, admission, request) of decoding requests, some of them stale.
        running: requests by id in order of admission; chunks under way included.
        partial: requests that prefill by chunks, in order of admission.
        landed: requests whose KV is here, to be admitted.
        waiting: requests to be prefilled here.
        evicted: requests to be recomputed here.
        pending_tokens: KV tokens promised, landed, waiting or being computed.
        chunks: (request, new tokens) of the step under way.
        spans: (cached, new) tokens of the same.
        admit: whether this boundary may admit.
        joined: landed requests admitted at this boundary.
        started: (request, queue it came from) of the chunks begun at this boundary.
        released: blocks became free for promises since the cluster was last told.
        whole: prompts are not cut into chunks.
        reserves: a request holds room for prompt and output from admission to its end.
        policy: the state of another order of service than vLLM's; None for that.
        paused: the decoding sequences do not take part in the step under way.
        t0: when that step began [s].
        plain: a transfer is promised the blocks of its tokens, one unit each.
        held: no prompt may start at this boundary.
    """

    __slots__ = (  # noqa: RUF023 -- as grouped in the constructor
        "index", "hooks", "log", "first_token", "max_seqs", "budget", "ledger",
        "n", "batch", "kv", "sums", "groups", "heap", "running", "partial", "admissions",
        "landed", "waiting", "evicted", "pending_tokens",
        "chunks", "spans", "chunked", "admit", "joined", "started", "released",
        "whole", "reserves", "policy", "paused", "t0", "plain", "held",
    )  # fmt: skip

    def __init__(
        self, index: int, plan: PoolPlan, hooks: Hooks, log: StrideLog, first_token: FirstToken
    ) -> None:
        self.index = index
        self.hooks = hooks
        self.log = log
        self.first_token = first_token
        self.max_seqs = plan.max_num_seqs
        self.budget = plan.max_num_batched_tokens
        self.ledger = ledger(plan.footprint, plan.capacity_blocks)
        # the batch
        self.n = 0
        self.batch = 0
        self.kv = 0
        self.sums = GroupSums(plan.table.groups)
        self.groups = None if plan.table.whole else self.sums
        self.heap: list[tuple[int, int, Request]] = []
        self.running: dict[int, Request] = {}
        self.partial: list[Request] = []
        self.admissions = 0
        # the queues
        self.landed: deque[Request] = deque()
        self.waiting: deque[Request] = deque()
        self.evicted: deque[Request] = deque()
        self.pending_tokens = 0
        # the step under way
        self.chunks: list[tuple[Request, int]] = []
        self.spans: list[tuple[int, int]] = []
        self.chunked = NO_CHUNKS
        self.admit = True
        self.joined: list[Request] = []
        self.started: list[tuple[Request, deque[Request]]] = []
        self.released = False
        # the order of service
        trtllm = plan.scheduler == "trtllm"
        self.whole = trtllm and not plan.chunked
        self.reserves = trtllm and plan.reserve_output
        self.policy = PrefillFirst(plan) if plan.scheduler == "sglang" else None
        self.paused = False
        self.t0 = 0.0
        self.plain = plan.footprint.plain and not self.reserves
        self.held = False

    # ------------------------------------------------------------------ newcomers

    def units_to_promise(self, request: Request, tokens: int) -> int:
        """Units for a transfer of ``tokens`` tokens."""
        if self.reserves:
            return self.ledger.units_for(request.prompt_tokens + request.output_tokens)
        return self.ledger.units_for(tokens)

    def could_start(self) -> bool:
        """Whether a prompt would be computed at this boundary if none were held (orders that reserve)."""
        budget = self.budget - self.batch
        if self.partial:
            return True
        if not self.waiting or budget <= 0 or len(self.running) >= self.max_seqs:
            return False
        r = self.waiting[0]
        if self.whole and r.prompt_tokens > budget:
            return False
        return self.ledger.units_for(r.prompt_tokens + r.output_tokens) <= self.ledger.free

    def promise(self, units: int, tokens: int) -> None:
        """Promise ``units`` for the ``tokens`` of a transfer; they are never taken back."""
        self.ledger.held += units
        self.pending_tokens += tokens

    # ------------------------------------------------------------------ boundaries

    def advance(self, t: float, k: int, first_s: float) -> Row:  # noqa: C901 -- the hot loop, kept flat
        """``k`` steps have ended: their tokens appear, and whoever has its last token leaves.

        Args:
            t: end of the last of these steps [s].
            k: how many.
            first_s: end of the first of them [s].

        Returns:
            What they did, for the log.
        """
        ledger = self.ledger
        n0 = self.n
        units = ledger.growing + ledger.held
        if ledger.weight and not self.paused:
            grown = ledger.growth(n0, k - 1) if k > 1 else 0
            units += grown
            ledger.growing += grown + ledger.residues[-(n0 + k - 1) % ledger.block]
        fresh = 0
        joined = self.joined
        if self.policy is not None:
            if self.paused:
                self.policy.pause(self, self.t0)
                return self._advance_paused(t, units)
            fresh = self.policy.resume(self, first_s)
            if self.batch and not self.chunks:
                self.policy.ratio.steps += k
        if joined:
            if self.first_token == "decode":
                fresh += len(joined)
                for r in joined:
                    r.first_token_s = first_s
            elif self.first_token == "prefill":
                fresh += len(joined)
                for r in joined:
                    self.log.gaps.append(first_s - r.prev_token_s)
            joined.clear()
        batch = self.batch
        kv = self.kv
        new, pairs, read, ends = NO_CHUNKS
        count = 0
        self.n = n = n0 + k
        self.kv = kv + k * batch
        if self.groups is not None:
            self.groups.advance(k, n, None if self.reserves else ledger)
        if self.chunks:
            new, pairs, read, ends = self.chunked
            count = len(self.chunks)
            admission.end_chunks(self, t)
        heap = self.heap
        while heap and heap[0][0] <= n:
            finish_n, _, r = heappop(heap)
            if r.finish_n != finish_n:
                continue  # evicted since
            self.leave(r)
            del self.running[r.id]
            r.last_token_s = t
            self.hooks.finished(r, t)
            self.released = True
            if self.policy is not None:
                self.policy.full = False
        self.admit = True
        return (batch, kv, new, pairs, read, batch + ends, fresh, units, count)

    def _advance_paused(self, t: float, units: int) -> Row:
        """A step has ended that only prefilled, while the decoding sequences paused."""
        new, pairs, read, ends = self.chunked
        count = len(self.chunks)
        admission.end_chunks(self, t)
        self.admit = True
        return (0, 0, new, pairs, read, ends, 0, units, count)

    def left(self) -> None:
        """A request has left the batch for good."""
        self.released = True
        if self.policy is not None:
            self.policy.full = False

    def schedule(self, t: float) -> None:
        """Decide who takes part in the step that starts at ``t``."""
        if self.started or self.joined or self.chunks:
            self.started.clear()
            self.joined.clear()
            self.chunks.clear()
        if self.policy is not None:
            self.t0 = t
            self.policy.schedule(self, t)
        else:
            ledger = self.ledger
            if ledger.growing + ledger.held > ledger.capacity:
                admission.make_room(self, t)
            if self.partial or self.evicted or self.waiting:
                admission.schedule_chunks(self, t)
            elif self.landed and self.admit:
                admission.admit_landed(self, t, self.budget - self.batch)
        if self.chunks:
            admission.measure_chunks(self)
        elif not self.batch:
            self.admit = True
            if self.policy is not None and not self.waiting:
                self.policy.ratio.reset()

    def steps(self) -> int:
        """How many steps like the next one follow before something here changes: at least 1."""
        heap = self.heap
        while heap[0][2].finish_n != heap[0][0]:
            heappop(heap)
        n = self.n
        k = heap[0][0] - n
        if not self.admit and (self.landed or self.evicted or self.waiting):
            return 1  # who was kept out by an eviction asks again at the next boundary
        ledger = self.ledger
        used = ledger.growing + ledger.held
        if used + ((k - 1) // ledger.block + 1) * ledger.weight > ledger.capacity:
            able = ledger.steps_within(n, ledger.capacity - used) + 1
            if able < k:
                k = able
        if self.groups is not None:
            edge = self.groups.steps_to_edge(n)
            if edge < k:
                k = edge
        return k

    def steps_promised(self, k: int) -> int:
        """The same after a promise: how many of ``k`` steps the ledger has room for."""
        ledger = self.ledger
        most = ledger.growing + ((k - 1) // ledger.block + 1) * ledger.weight + ledger.held
        if most > ledger.capacity:
            return min(k, ledger.steps_within(self.n, ledger.free) + 1)
        return k

    # ------------------------------------------------------------------ in and out of the batch

    def decode(self, r: Request, t: float) -> None:
        """A running request decodes from the next step on, at context ``prompt + emitted``."""
        n = self.n
        context = r.prompt_tokens + r.emitted
        r.offset = offset = context - n
        r.finish_n = finish_n = n + r.output_tokens - r.emitted
        if not self.reserves:
            self.ledger.join(offset, context)
        if self.groups is not None:
            self.groups.join(r, n, context)
        self.kv += context
        self.batch += 1
        heappush(self.heap, (finish_n, r.admission, r))
        if r.decode_start_s < 0.0:
            r.decode_start_s = t
        if self.hooks.observed:
            self.hooks.moved(t, r, State.DECODING, self.index)

    def leave(self, r: Request) -> int:
        """A request stops decoding; its context in tokens."""
        context = r.offset + self.n
        if self.reserves:
            self.ledger.held -= r.blocks
            r.blocks = 0
        else:
            self.ledger.leave(r.offset, context)
        if self.groups is not None:
            self.groups.leave(context)
        self.kv -= context
        self.batch -= 1
        r.finish_n = -1
        return context

    # ------------------------------------------------------------------ reading

    def rank_s(self, table: StepTable) -> tuple[float, int]:
        """Time [s] of the coming step on this rank, and the tokens it computes."""
        batch = self.batch
        if not self.chunks:
            return table.rank_decode_s(batch, self.reads()), batch
        new, _, _, ends = self.chunked
        if self.paused:
            return table.rank_mixed_s(0, [0] * len(table.groups), self.spans, ends), new
        return table.rank_mixed_s(batch, self.reads(), self.spans, batch + ends), batch + new

    def lines(self, pieces: tuple[StepPiece, ...]) -> list[Line]:
        """This rank's time in the coming steps: the largest of these."""
        batch = self.batch
        if self.groups is None:
            reads, rates = [self.kv], [batch]
        else:
            reads, rates = self.groups.reads, self.groups.rates
        return [
            (
                piece.a[batch] + sum(b[batch] * s for b, s in zip(piece.b, reads, strict=True)),
                sum(b[batch] * rate for b, rate in zip(piece.b, rates, strict=True)),
            )
            for piece in pieces
        ]

    def reads(self) -> list[int]:
        """KV tokens read in the next step, by attention group."""
        return [self.kv] if self.groups is None else self.groups.reads

    def room(self, units: int, passed: int) -> bool:
        """Whether ``units`` can be promised when ``passed`` steps of the stride have ended.

        Evicted requests come first: while one waits, nothing is promised.
        """
        if self.evicted:
            return False
        grown = self.ledger.growth(self.n, passed) if passed else 0
        return units <= self.ledger.free - grown
