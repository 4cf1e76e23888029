"""The step-by-step reference of the striding instances: one event per step, everything recomputed.

It keeps plain lists, walks them at every step, and adds up boundaries one step at a time. It shares
no arithmetic with the stride path beyond the step-time table, and stays for ever: tests hold both
to the same requests and to instants within 1e-9. One class serves one rank and several.
"""

from __future__ import annotations

from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.engine.hooks import Hooks
from simulator.engine.reference_rank import ReferenceRank
from simulator.engine.reference_sglang import PrefillFirstRank
from simulator.records import StrideLog
from simulator.request import Request
from simulator.scenario.deployment import FirstToken, PoolPlan
from simulator.units import tie_s


def rank_of(plan: PoolPlan) -> type[ReferenceRank]:
    """The kind of rank with this pool's scheduler."""
    return PrefillFirstRank if plan.scheduler == "sglang" else ReferenceRank


class ReferenceInstance:
    """Same interface and semantics as ``BatchInstance`` and ``LockStepInstance``."""

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
        self.version = 0
        self.timer = Timer(self._on_timer)
        self.ranks = [
            rank_of(plan)(index, plan, hooks, log, first_token) for _ in range(plan.table.ranks)
        ]
        self.counts = [0, 0]  # boundaries prompts waited for a rank without, for more on every rank
        self.counts_before = [0, 0]
        self.stepping = False
        self.waking = False
        self.woken = False
        self.t0 = 0.0
        self.t_end = 0.0

    # newcomers

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request arrives to be prefilled and decoded here."""
        if len(self.ranks) > 1:
            self.sync(t_s)
            able = [rank for rank in self.ranks if self._takes(rank)]
            request.rank = self.ranks.index(min(able, key=ReferenceRank.tokens))
        rank = self.ranks[request.rank]
        self._arrives(rank, "waiting", request, t_s)

    def _takes(self, rank: ReferenceRank) -> bool:
        """Whether the newcomer may go to this rank."""
        if self.plan.scheduler != "trtllm":
            return True
        counts = [each.requests() for each in self.ranks]
        even = (sum(counts) + len(counts)) // len(counts)  # of one more, rounded up
        return rank.requests() < max(even, max(counts))

    def land(self, request: Request, t_s: float) -> None:
        """A request's KV has arrived."""
        rank = self.ranks[request.rank]
        rank.promised.remove((request.reserved, request.prompt_tokens + request.emitted))
        self._arrives(rank, "landed", request, t_s)

    def _arrives(self, rank: ReferenceRank, queue: str, request: Request, t: float) -> None:
        if self.plan.overlap and self.stepping and not (self.woken and t <= self.t0 + tie_s(t)):
            rank.staged.append((t, queue, request))
            return
        restart = self._restarts(rank, t)
        getattr(rank, queue).append(request)
        self._newcomer(rank, t, restart)

    def _restarts(self, rank: ReferenceRank, t: float) -> bool:
        """If the current step began at this very instant, take the rank's admissions back."""
        tie = tie_s(t)
        if self.stepping and self.t_end > t + tie and t <= self.t0 + tie:
            for each in [rank] if self.plan.balance is None else self.ranks:
                each.restore()
            return True
        return False

    def _newcomer(self, rank: ReferenceRank, t: float, restart: bool) -> None:
        if restart:
            if self.plan.balance is None:
                rank.begin(self.t0)
            else:
                self.counts = list(self.counts_before)
                self._decide(self.t0)
            self._step(self.t0)
        elif not self.stepping and not self.waking:
            self.waking = True
            self.t0 = t
            self._schedule(t)

    def _schedule(self, t: float) -> None:
        self.version += 1
        self.clock.at(t, self.timer, self.version, BOUNDARY + self.index)

    # reading

    def sync(self, t_s: float) -> None:
        """If a boundary is due at ``t_s``, take it before anything is read."""
        if self.stepping and self.t_end <= t_s + tie_s(t_s):
            self._end()

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """KV tokens resident, promised or to be computed, as of the last boundary."""
        self.sync(t_s)
        return sum(rank.tokens() for rank in self.ranks)

    def has_room(self, request: Request, tokens: int, t_s: float) -> bool:
        """Whether blocks for ``tokens`` can be promised as of the last boundary."""
        self.sync(t_s)
        return any(rank.has_room(request, tokens) for rank in self.ranks)

    def reserve(self, request: Request, tokens: int, t_s: float) -> None:
        """Promise blocks for a transfer of ``tokens`` tokens."""
        able = [rank for rank in self.ranks if rank.has_room(request, tokens)]
        rank = min(able, key=ReferenceRank.tokens)  # the first of equal ones
        request.rank = self.ranks.index(rank)
        request.reserved = rank.transfer_units(request, tokens)
        rank.promised.append((request.reserved, tokens))

    # boundaries

    def _on_timer(self, version: int) -> None:
        if version == self.version:
            if self.stepping:
                self._end()
            else:
                self.waking = False
                self.woken = True
                self._begin(self.t0)

    def _end(self) -> None:
        t = self.t_end
        self.stepping = False
        self.version += 1
        self._record()
        self.woken = False
        for rank in self.ranks:
            rank.end(t)
            rank.unstage(self.t0)
        self._begin(t)

    def _record(self) -> None:
        columns = [sum(values) for values in zip(*(r.row() for r in self.ranks), strict=True)]
        self.log.buffer.extend((self.index, self.t0, self.t_end, 1, *columns, self.t_end - self.t0))
        if len(self.log.buffer) >= self.log.limit:
            self.log.flush()

    def _begin(self, t: float) -> None:
        self.t0 = t
        self._decide(t)
        if not any(rank.batch for rank in self.ranks) and any(r.staged for r in self.ranks):
            self.woken = True
            for rank in self.ranks:
                rank.unstage(t)
            self._decide(t)
        self._step(t)

    def _decide(self, t: float) -> None:
        if self.plan.balance is not None:
            held = self._held()
            for rank in self.ranks:
                rank.held = held
        for rank in self.ranks:
            rank.begin(t)

    def _held(self) -> bool:
        """Whether prompts wait at this boundary, and how long they have."""
        rule = self.plan.balance
        assert rule is not None
        self.counts_before = list(self.counts)
        decoding = [sum(s.decoding for s in rank.batch) for rank in self.ranks]
        room = all(n < self.plan.max_num_seqs for n in decoding)
        if room and all(rank.has_prompt() for rank in self.ranks):
            self.counts[0] = 0
            if not all(decoding):
                return False
            if self.counts[1] < rule.batching_wait_iters:
                self.counts[1] += 1
                return True
            self.counts[1] = 0
            return False
        self.counts[0] += 1
        if self.counts[0] >= rule.timeout_iters or not all(decoding):
            self.counts[0] = 0
            return False
        return True

    def _step(self, t: float) -> None:
        if any(rank.batch for rank in self.ranks):
            times = [rank.step_s() for rank in self.ranks if rank.batch]
            tokens = sum(rank.new_tokens() for rank in self.ranks)
            self.stepping = True
            decodes = not any(rank.chunks() for rank in self.ranks)
            self.t_end = t + self.plan.table.joined_s(max(times), tokens, decodes=decodes)
            self._schedule(self.t_end)
        if any(rank.released for rank in self.ranks):
            for rank in self.ranks:
                rank.released = False
            self.hooks.freed(t)
