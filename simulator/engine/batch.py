"""Continuous batching with strides: the instance that decodes, or serves requests whole.

Between two changes of its batch an instance runs a *stride*: ``k`` steps known in closed form. With
``B`` sequences that read ``S`` KV tokens in the first step, step ``j`` takes ``d0 + c·j`` where
``c = decode_b[B]·B``, so boundary ``j`` lies at ``t0 + j·d0 + c·j(j-1)/2``. A stride ends at the
first of: a sequence's last token, KV blocks running out, the host bound giving way, a newcomer (at
the first boundary not before it). A step that prefills chunks is a stride of one.

The scheduler is vLLM V1's: running sequences first (decodes, then chunks under way, in order of
admission), then newcomers while slots, token budget and blocks last; the latest admitted is evicted
when blocks run out and recomputes its prompt and output by chunks. Nobody is admitted at a boundary
that evicted, unless it left the batch empty. ``docs/ties.md`` says what happens at equal instants.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import ceil, sqrt

from simulator.engine.admission import (
    admit_landed,
    end_chunks,
    make_room,
    plan_mixed,
    schedule_chunks,
    take_back,
)
from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.engine.hooks import Hooks
from simulator.kvcache import BlockLedger
from simulator.records import StrideLog
from simulator.request import NEVER, Request, State
from simulator.scenario.deployment import FirstToken, PoolPlan
from simulator.units import TIE_REL, tie_s


class BatchInstance:
    """One decode or colocated instance on the stride path.

    Args:
        index: position among all instances of the run.
        plan: the pool it belongs to.
        clock: the simulated clock.
        hooks: the cluster.
        log: where strides are written.
        first_token: who emits token 1 (landed requests only).
    """

    __slots__ = (  # noqa: RUF023 -- as grouped in the constructor
        "index", "plan", "clock", "hooks", "log", "first_token", "table", "a", "b", "host_s",
        "max_seqs", "budget", "ledger", "callbacks", "version",
        "n", "batch", "kv", "heap", "running", "partial", "admissions",
        "landed", "waiting", "evicted", "pending_tokens",
        "k", "t0", "t_end", "d0", "rise", "chunks", "chunked", "admit", "joined", "started",
        "wake_s", "released",
    )  # fmt: skip

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
        self.table = plan.table
        self.a = plan.table.decode_a
        self.b = plan.table.decode_b
        self.host_s = plan.table.host_s
        self.max_seqs = plan.max_num_seqs
        self.budget = plan.max_num_batched_tokens
        self.ledger = BlockLedger(plan.block_tokens, plan.capacity_blocks)
        self.callbacks = (self._on_timer,)
        self.version = 0
        # the batch
        self.n = 0  # steps completed since the run began
        self.batch = 0  # sequences decoding
        self.kv = 0  # KV tokens they read in the next step
        self.heap: list[tuple[int, int, Request]] = []  # (finish_n, admission, request)
        self.running: dict[int, Request] = {}  # in order of admission; chunks under way included
        self.partial: list[Request] = []  # prefilling by chunks, in order of admission
        self.admissions = 0
        # the queues
        self.landed: deque[Request] = deque()  # their KV is here
        self.waiting: deque[Request] = deque()  # to be prefilled here
        self.evicted: deque[Request] = deque()  # to be recomputed here
        self.pending_tokens = 0  # KV tokens promised, landed, waiting or being computed
        # the stride under way; k = 0 when idle
        self.k = 0
        self.t0 = 0.0
        self.t_end = 0.0
        self.d0 = 0.0
        self.rise = 0.0  # c: growth of the step time per step
        self.chunks: list[tuple[Request, int]] = []
        self.chunked = (0, 0.0, 0, 0)  # new tokens, pairs, read tokens, prefills that end
        self.admit = True  # whether this boundary may admit
        self.joined: list[Request] = []  # landed requests admitted at this boundary
        self.started: list[tuple[Request, deque[Request]]] = []  # chunks begun at this boundary
        self.wake_s = NEVER
        self.released = False  # blocks became free for promises since the cluster was last told

    # ------------------------------------------------------------------ newcomers

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request arrives to be prefilled and decoded here."""
        self.waiting.append(request)
        self.pending_tokens += request.prompt_tokens
        self._newcomer(t_s)

    def land(self, request: Request, t_s: float) -> None:
        """A request's KV has arrived; its blocks were reserved."""
        self.landed.append(request)
        self._newcomer(t_s)

    def _newcomer(self, t: float) -> None:
        """Somebody wants to join: at this boundary, or at the next one not before ``t``."""
        k = self.k
        if not k:
            if self.wake_s < 0.0:
                self.wake_s = t
                self.version += 1
                self.clock.at(t, self.callbacks, self.version, None, BOUNDARY + self.index)
            return
        tie = TIE_REL * t if t > 1.0 else TIE_REL
        if self.t_end <= t + tie:
            return  # the boundary is at this very instant and will see the queues
        if t <= self.t0 + tie:
            take_back(self)
        elif k > 1 and len(self.running) < self.max_seqs:
            y = t - tie
            j = self._steps_until(y)
            if not j or self._boundary_s(j) < y:
                j += 1
            if j < k:
                self._cut(j)

    def _cut(self, j: int) -> None:
        """End the stride after its step ``j`` instead of ``k``."""
        self.k = j
        self.t_end = t = self._boundary_s(j)
        self.version += 1
        self.clock.at(t, self.callbacks, self.version, None, BOUNDARY + self.index)

    # ------------------------------------------------------------------ reading, mid-stride

    def _boundary_s(self, j: int) -> float:
        return self.t0 + j * self.d0 + 0.5 * self.rise * (j * (j - 1))

    def _steps_until(self, x: float) -> int:
        """Largest ``j`` ≤ k whose boundary is not after ``x``."""
        tau = x - self.t0
        d0 = self.d0
        if tau < d0:
            return 0
        half = 0.5 * self.rise
        if half:  # the positive root of half·j² + (d0 - half)·j = tau, in its stable form
            p = d0 - half
            j = int(2.0 * tau / (p + sqrt(p * p + 4.0 * half * tau)))
        else:
            j = int(tau / d0)
        k = self.k
        if j > k:
            j = k
        t0 = self.t0  # the root may be off by one in the last place: settle it by the boundaries
        while j < k and t0 + (j + 1) * d0 + half * ((j + 1) * j) <= x:
            j += 1
        while j and t0 + j * d0 + half * (j * (j - 1)) > x:
            j -= 1
        return j

    def sync(self, t_s: float) -> None:
        """If a boundary is due at ``t_s``, take it before anything is read."""
        if self.k and self.t_end <= t_s + tie_s(t_s):
            self._end()

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """KV tokens resident, promised or to be computed, as of the last boundary.

        At least ``stop`` if there are at least as many.
        """
        if self.k:
            x = t_s + (TIE_REL * t_s if t_s > 1.0 else TIE_REL)
            if self.t_end <= x:
                self._end()
            least = self.kv + self.pending_tokens
            if least < stop and self.k > 1:
                return least + self._steps_until(x) * self.batch
            return least
        return self.kv + self.pending_tokens

    def has_room(self, blocks: int, t_s: float) -> bool:
        """Whether ``blocks`` can be promised as of the last boundary.

        Evicted requests come first: while one waits, nothing is promised.
        """
        ledger = self.ledger
        k = self.k
        if k and not self.evicted and not self.partial:
            most = ledger.growing + (k // ledger.block + 1) * self.batch + ledger.held
            if most + blocks <= ledger.capacity:
                return True
        self.sync(t_s)
        if self.evicted:
            return False
        grown = 0
        if self.k > 1:
            grown = ledger.growth(self.n, self._steps_until(t_s + tie_s(t_s)))
        return blocks <= ledger.free - grown

    def reserve(self, blocks: int, tokens: int) -> None:
        """Promise ``blocks`` for the ``tokens`` of a transfer; they are never taken back."""
        ledger = self.ledger
        ledger.held += blocks
        self.pending_tokens += tokens
        k = self.k
        if k > 1:
            most = ledger.growing + ((k - 1) // ledger.block + 1) * self.batch + ledger.held
            if most > ledger.capacity:
                able = ledger.steps_within(self.n, ledger.free) + 1
                if able < k:
                    self._cut(able)

    # ------------------------------------------------------------------ boundaries

    def _on_timer(self, timer: Timer) -> None:
        if timer.version == self.version:
            if self.k:
                self._end()
            else:
                self.begin(self.wake_s)

    def _end(self) -> None:  # noqa: C901 -- the hot loop: one call per stride, kept flat on purpose
        """The boundary at ``t_end``: account for the stride, emit, finish, begin the next."""
        t = self.t_end
        k = self.k
        n0 = self.n
        ledger = self.ledger
        batch = self.batch
        log = self.log
        hooks = self.hooks
        joined = self.joined
        chunks = self.chunks

        blocks = ledger.growing + ledger.held
        if batch:
            grown = ledger.growth(n0, k - 1) if k > 1 else 0
            blocks += grown
            n_last = n0 + k - 1
            ledger.growing += grown + ledger.residues[-n_last % ledger.block]
        fresh = 0
        if joined:
            if self.first_token == "decode":
                first = self.t0 + self.d0
                fresh = len(joined)
                for r in joined:
                    r.first_token_s = first
            elif self.first_token == "prefill":
                first = self.t0 + self.d0
                fresh = len(joined)
                for r in joined:
                    log.gaps.append(first - r.prev_token_s)
            joined.clear()
        if chunks:
            new, pairs, read, ends = self.chunked
            row = (
                self.index, self.t0, t, k, batch, self.kv, new, pairs, read, batch + ends, fresh,
                blocks, len(chunks), self.d0,
            )  # fmt: skip
        else:
            row = (
                self.index, self.t0, t, k, batch, self.kv, 0, 0.0, 0, batch, fresh, blocks, 0,
                self.d0,
            )  # fmt: skip
        buffer = log.buffer
        buffer.extend(row)
        if len(buffer) >= log.limit:
            log.flush()

        self.n = n = n0 + k
        self.kv += k * batch
        self.k = 0
        self.version += 1
        if chunks:
            end_chunks(self, t)
        heap = self.heap
        while heap and heap[0][0] <= n:
            finish_n, _, r = heappop(heap)
            if r.finish_n != finish_n:
                continue  # evicted since
            context = r.offset + n
            ledger.leave(r.offset, context)
            self.kv -= context
            self.batch -= 1
            r.finish_n = -1
            del self.running[r.id]
            r.last_token_s = t
            hooks.finished(r, t)
            self.released = True
        self.admit = True
        self.begin(t)

    def decode(self, r: Request, t: float) -> None:
        """A running request decodes from the next step on, at context ``prompt + emitted``."""
        n = self.n
        context = r.prompt_tokens + r.emitted
        r.offset = offset = context - n
        r.finish_n = finish_n = n + r.output_tokens - r.emitted
        self.ledger.join(offset, context)
        self.kv += context
        self.batch += 1
        heappush(self.heap, (finish_n, r.admission, r))
        if r.decode_start_s < 0.0:
            r.decode_start_s = t
        if self.hooks.observed:
            self.hooks.moved(t, r, State.DECODING, self.index)

    def begin(self, t: float) -> None:
        """Decide what the step that starts at ``t`` does, and how many like it follow."""
        self.t0 = t
        self.wake_s = NEVER
        ledger = self.ledger
        if self.started or self.joined or self.chunks:
            self.started.clear()
            self.joined.clear()
            self.chunks.clear()
        if ledger.growing + ledger.held > ledger.capacity:
            make_room(self, t)
        if self.partial or self.evicted or self.waiting:
            schedule_chunks(self, t)
        elif self.landed and self.admit:
            admit_landed(self, t, self.budget - self.batch)
        if self.chunks:
            plan_mixed(self, t)
        elif self.batch:
            self._plan_stride(t)
        else:
            self.k = 0
            self.admit = True
        if self.released:
            self.released = False
            self.hooks.freed(t)

    def _plan_stride(self, t: float) -> None:
        batch = self.batch
        heap = self.heap
        while heap[0][2].finish_n != heap[0][0]:
            heappop(heap)
        n = self.n
        k = heap[0][0] - n
        if not self.admit and (self.landed or self.evicted or self.waiting):
            k = 1  # who was kept out by an eviction asks again at the next boundary
        b = self.b[batch]
        d0 = self.a[batch] + b * self.kv
        rise = b * batch
        if d0 < self.host_s:
            if rise > 0.0:  # until the affine piece overtakes the host bound
                flat = ceil((self.host_s - d0) / rise)
                if flat < k:
                    k = flat
            d0 = self.host_s
            rise = 0.0
        ledger = self.ledger
        used = ledger.growing + ledger.held
        if used + ((k - 1) // ledger.block + 1) * batch > ledger.capacity:
            able = ledger.steps_within(n, ledger.capacity - used) + 1
            if able < k:
                k = able
        self.k = k
        self.d0 = d0
        self.rise = rise
        self.t_end = end = t + k * d0 + 0.5 * rise * (k * (k - 1))
        self.version += 1
        self.clock.at(end, self.callbacks, self.version, None, BOUNDARY + self.index)
