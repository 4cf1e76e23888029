"""Continuous batching with strides: the instance that decodes, or serves requests whole.

One rank, one batch (``simulator.engine.core``); strides as in ``simulator.engine.strides``. With one
attention group that reads everything and one affine piece of the step time, ``B`` sequences that read
``S`` KV tokens make steps of ``a[B] + b[B]·S``, and ``S`` grows by ``B`` a step.
"""

from __future__ import annotations

from math import ceil

from simulator.engine.clock import BOUNDARY, Clock
from simulator.engine.core import Batch
from simulator.engine.hooks import Hooks
from simulator.engine.strides import Strider, lead
from simulator.records import StrideLog
from simulator.request import NEVER, Request
from simulator.scenario.deployment import FirstToken, PoolPlan
from simulator.units import TIE_REL, tie_s


class BatchInstance(Strider):
    """One decode or colocated instance on the stride path.

    Args:
        index: position among all instances of the run.
        plan: the pool it belongs to.
        clock: the simulated clock.
        hooks: the cluster.
        log: where strides are written.
        first_token: who emits token 1 (landed requests only).
    """

    __slots__ = ("a", "affine", "b", "core", "host_s")

    def __init__(
        self,
        index: int,
        plan: PoolPlan,
        clock: Clock,
        hooks: Hooks,
        log: StrideLog,
        first_token: FirstToken,
    ) -> None:
        super().__init__(index, plan, clock, hooks, log)
        self.core = Batch(index, plan, hooks, log, first_token)
        self.affine = plan.table.whole and len(plan.table.pieces) == 1
        self.a = plan.table.decode_a
        self.b = plan.table.decode_b
        self.host_s = plan.table.host_s

    @property
    def ranks(self) -> tuple[Batch, ...]:
        """Its batches: one."""
        return (self.core,)

    # ------------------------------------------------------------------ newcomers

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request arrives to be prefilled and decoded here."""
        self.core.pending_tokens += request.prompt_tokens
        self._arrives(self.core, self.core.waiting, request, t_s)

    def land(self, request: Request, t_s: float) -> None:
        """A request's KV has arrived; its blocks were reserved."""
        self._arrives(self.core, self.core.landed, request, t_s)

    # ------------------------------------------------------------------ reading, mid-stride

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """KV tokens resident, promised or to be computed, as of the last boundary.

        At least ``stop`` if there are at least as many.
        """
        core = self.core
        if self.k:
            x = t_s + (TIE_REL * t_s if t_s > 1.0 else TIE_REL)
            if self.t_end <= x:
                self._end()
            least = core.kv + core.pending_tokens
            if least < stop and self.k > 1:
                return least + self._steps_until(x) * core.batch
            return least
        return core.kv + core.pending_tokens

    def has_room(self, request: Request, tokens: int, t_s: float) -> bool:
        """Whether blocks for ``tokens`` can be promised as of the last boundary."""
        core = self.core
        ledger = core.ledger
        units = -(-tokens // ledger.block) if core.plain else core.units_to_promise(request, tokens)
        k = self.k
        if k and not core.evicted and not core.partial:  # room whatever has grown by now
            most = ledger.growing + (k // ledger.block + 1) * ledger.weight + ledger.held
            if most + units <= ledger.capacity:
                return True
        self.sync(t_s)
        passed = self._steps_until(t_s + tie_s(t_s)) if self.k > 1 else 0
        return core.room(units, passed)

    def reserve(self, request: Request, tokens: int, t_s: float) -> None:
        """Promise blocks for the ``tokens`` of a transfer; they are never taken back."""
        core = self.core
        request.reserved = units = core.units_to_promise(request, tokens)
        core.promise(units, tokens)
        k = self.k
        if k > 1:
            able = core.steps_promised(k)
            if able < k:
                self._cut(able)

    # ------------------------------------------------------------------ boundaries

    def _end(self) -> None:
        """The boundary at ``t_end``: account for the stride, emit, finish, begin the next."""
        t0 = self.t0
        t = self.t_end
        k = self.k
        d0 = self.d0
        if self.staged:
            self._unstage(self._boundary_s(k - 1))
        self.woken = False
        self.k = 0
        self.version += 1
        log = self.log
        buffer = log.buffer
        buffer.extend((self.index, t0, t, k, *self.core.advance(t, k, t0 + d0), d0))
        if len(buffer) >= log.limit:
            log.flush()
        self.begin(t)

    def _again(self, batch: Batch) -> None:
        self.begin(self.t0)

    def begin(self, t: float) -> None:
        """Decide what the step that starts at ``t`` does, and how many like it follow."""
        self.t0 = t
        self.wake_s = NEVER
        core = self.core
        core.schedule(t)
        if self.staged and not (core.batch or core.chunks):  # nothing runs: nothing to wait for
            self._unstage(t)
            self.woken = True
            core.schedule(t)
        if core.chunks:
            self._stride(t, 1, self.table.joined_s(*core.rank_s(self.table)), 0.0)
        elif core.batch:
            self._plan_stride(t)
        else:
            self.k = 0
        if self.staged:
            self._hold()
        if core.released:
            core.released = False
            self.hooks.freed(t)

    def _plan_stride(self, t: float) -> None:
        core = self.core
        k = core.steps()
        if not self.affine:
            lines = [(self.host_s, 0.0), *core.lines(self.table.pieces)]
            d0, rise, k = lead(lines, k)
            self._stride(t, k, d0, rise)
            return
        batch = core.batch
        b = self.b[batch]
        d0 = self.a[batch] + b * core.kv
        rise = b * batch
        if d0 < self.host_s:
            if rise > 0.0:  # until the affine piece overtakes the host bound
                flat = ceil((self.host_s - d0) / rise)
                if flat < k:
                    k = flat
            d0 = self.host_s
            rise = 0.0
        self.k = k  # as ``_stride``
        self.d0 = d0
        self.rise = rise
        self.t_end = end = t + k * d0 + 0.5 * rise * (k * (k - 1))
        self.version += 1
        self.clock.at(end, self.timer, self.version, BOUNDARY + self.index)
