"""Attention data parallelism: ranks with batches of their own that step together.

Each rank holds its own sequences and their KV and runs the scheduler for itself; the experts are
spread over all ranks, so that every layer ends with all of them meeting. A step takes as long as its
slowest rank, plus what the ranks do jointly; a rank without work takes part for nothing. Every
boundary is one of all ranks. With a balance prompts wait for one another (``engine.balance``). A newcomer goes to the rank with the fewest outstanding tokens, equal
ones to the lowest, and stays there.
"""

from __future__ import annotations

from collections.abc import Iterable

from simulator.engine.admission import take_back
from simulator.engine.balance import Balancer
from simulator.engine.clock import Clock
from simulator.engine.core import Batch, Line
from simulator.engine.hooks import Hooks
from simulator.engine.strides import Strider, lead
from simulator.records import StrideLog
from simulator.request import NEVER, Request
from simulator.scenario.deployment import FirstToken, PoolPlan
from simulator.units import tie_s


class LockStepInstance(Strider):
    """One decode or colocated instance of several ranks; arguments as ``BatchInstance``."""

    __slots__ = ("balancer", "ranks")

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
        self.ranks = tuple(
            Batch(index, plan, hooks, log, first_token) for _ in range(plan.table.ranks)
        )
        self.balancer = None if plan.balance is None else Balancer(plan.balance)

    # ------------------------------------------------------------------ newcomers

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request arrives to be prefilled and decoded here."""
        request.rank = rank = self._least(self._open(t_s), t_s)
        batch = self.ranks[rank]
        batch.pending_tokens += request.prompt_tokens
        self._arrives(batch, batch.waiting, request, t_s)

    def land(self, request: Request, t_s: float) -> None:
        """A request's KV has arrived; its blocks were reserved on one of the ranks."""
        batch = self.ranks[request.rank]
        self._arrives(batch, batch.landed, request, t_s)

    # ------------------------------------------------------------------ reading, mid-stride

    def _open(self, t_s: float) -> Iterable[int]:
        """Ranks a newcomer may go to: with TensorRT-LLM none with more requests than needed."""
        ranks = range(len(self.ranks))
        if self.plan.scheduler != "trtllm":
            return ranks
        self.sync(t_s)
        held = [len(b.running) + len(b.waiting) + len(b.evicted) for b in self.ranks]
        for _, batch, _, _ in self.staged:
            held[self.ranks.index(batch)] += 1
        most = max(-(-(sum(held) + 1) // len(held)), *held)
        return [rank for rank in ranks if held[rank] < most]

    def _passed(self, t_s: float) -> int:
        """Steps of the stride under way that have ended at ``t_s``, a boundary due taken first."""
        self.sync(t_s)
        return self._steps_until(t_s + tie_s(t_s)) if self.k > 1 else 0

    def _least(self, ranks: Iterable[int], t_s: float) -> int:
        """Among ``ranks``, the one with the fewest outstanding tokens as of the last boundary."""
        passed = self._passed(t_s)

        def outstanding(rank: int) -> int:
            batch = self.ranks[rank]
            return batch.kv + batch.pending_tokens + passed * batch.batch

        return min(ranks, key=outstanding)

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """KV tokens resident, promised or to be computed on all ranks, as of the last boundary."""
        passed = self._passed(t_s)
        return sum(b.kv + b.pending_tokens + passed * b.batch for b in self.ranks)

    def has_room(self, request: Request, tokens: int, t_s: float) -> bool:
        """Whether some rank can promise blocks for ``tokens`` as of the last boundary."""
        return bool(self._able(request, tokens, t_s))

    def _able(self, request: Request, tokens: int, t_s: float) -> list[int]:
        """Ranks with room for ``tokens``."""
        passed = self._passed(t_s)
        return [
            i
            for i, b in enumerate(self.ranks)
            if b.room(b.units_to_promise(request, tokens), passed)
        ]

    def reserve(self, request: Request, tokens: int, t_s: float) -> None:
        """Promise blocks for the ``tokens`` of a transfer on one of the ranks that have room."""
        request.rank = rank = self._least(self._able(request, tokens, t_s), t_s)
        batch = self.ranks[rank]
        request.reserved = units = batch.units_to_promise(request, tokens)
        batch.promise(units, tokens)
        k = self.k
        if k > 1:
            able = batch.steps_promised(k)
            if able < k:
                self._cut(able)

    # ------------------------------------------------------------------ boundaries

    def _end(self) -> None:
        t = self.t_end
        k = self.k
        d0 = self.d0
        if self.staged:
            self._unstage(self._boundary_s(k - 1))
        self.woken = False
        self.k = 0
        self.version += 1
        if self.balancer is not None:
            self.balancer.passed(k - 1)
        rows = [batch.advance(t, k, self.t0 + d0) for batch in self.ranks]
        buffer = self.log.buffer
        buffer.extend((self.index, self.t0, t, k, *map(sum, zip(*rows, strict=True)), d0))
        if len(buffer) >= self.log.limit:
            self.log.flush()
        self.begin(t)

    def begin(self, t: float) -> None:
        """Decide what the step that starts at ``t`` does on each rank, and how many follow."""
        self.t0 = t
        self.wake_s = NEVER
        self._schedule(t)
        if self.staged and not any(batch.batch or batch.chunks for batch in self.ranks):
            self._unstage(t)  # nothing runs: nothing to wait for
            self.woken = True
            self._schedule(t)
        self._plan(t)

    def _schedule(self, t: float) -> None:
        balancer = self.balancer
        if balancer is not None:
            held = balancer.holds(self.ranks)
            for batch in self.ranks:
                batch.held = held
        for batch in self.ranks:
            batch.schedule(t)

    def _again(self, batch: Batch) -> None:
        if self.balancer is None:
            batch.schedule(self.t0)
        else:  # what one rank has decides for all
            for other in self.ranks:
                if other is not batch:
                    take_back(other)
            self.balancer.undo()
            self._schedule(self.t0)
        self._plan(self.t0)

    def _plan(self, t: float) -> None:
        working = [batch for batch in self.ranks if batch.batch or batch.chunks]
        if not working:
            self.k = 0
        elif any(batch.chunks for batch in working):
            self._plan_mixed(t, working)
        else:
            self._plan_decode(t, working)
        if self.staged:
            self._hold()
        released = False
        for batch in self.ranks:
            released |= batch.released
            batch.released = False
        if released:
            self.hooks.freed(t)

    def _plan_mixed(self, t: float, working: list[Batch]) -> None:
        parts = [batch.rank_s(self.table) for batch in working]
        slowest_s = max(part_s for part_s, _ in parts)
        step_s = self.table.joined_s(slowest_s, sum(tokens for _, tokens in parts))
        self._stride(t, 1, step_s, 0.0)

    def _plan_decode(self, t: float, working: list[Batch]) -> None:
        table = self.table
        joint_s = 0.0
        joint = table.decode_joint_s or table.joint_s
        if joint is not None:
            joint_s = joint[sum(batch.batch for batch in working)]
        k = min(batch.steps() for batch in working)
        if self.balancer is not None and any(batch.held and batch.waiting for batch in self.ranks):
            k = min(k, self.balancer.steps())
        lines: list[Line] = [(table.host_s, 0.0)]
        for batch in working:
            lines.extend(
                (first_s + joint_s, growth_s) for first_s, growth_s in batch.lines(table.pieces)
            )
        d0, rise, k = lead(lines, k)
        self._stride(t, k, d0, rise)
