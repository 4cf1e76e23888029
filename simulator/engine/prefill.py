"""The prefill instance: whole prompts, first come first served, under a token budget.

A batch takes requests from the head of the queue while their prompts fit the budget, the batch
limit and the free KV blocks (and, when decode blocks are promised first, while a decode instance
has room). A prompt longer than the budget runs alone. A batch that is not full may wait until its
oldest request has waited ``max_wait_s``. A prompt's KV stays until its last byte has left.

Lock-step ranks (attention data parallelism) have a queue, a batch and KV of their own; a request goes
to the one with the fewest tokens to prefill, equal ones to the lowest, and a step takes a batch from
each. With ``p`` pipeline stages a pass takes ``L`` seconds and the next may start ``L/p`` after it;
it cannot overtake, so pass ``i`` ends at ``max(start_i + L_i, end_(i-1) + L_i/p)``, which is exact for
stages of equal length.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Protocol

from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.engine.groups import GroupTotals
from simulator.kvcache import ledger
from simulator.records import StrideLog
from simulator.request import Request, State
from simulator.scenario.deployment import PoolPlan
from simulator.units import TIE_REL, tie_s


class PrefillHooks(Protocol):
    """Callbacks from a prefill instance to the cluster."""

    observed: bool
    promise_first: bool
    """Whether ``admits`` must be asked."""
    layerwise: bool
    """Whether ``started`` must be called."""

    def moved(self, t_s: float, request: Request, state: State, instance: int) -> None:
        """A request entered a state."""
        ...

    def admits(self, request: Request, t_s: float, prefill: PrefillInstance) -> bool:
        """Whether the prefill of ``request`` may start (room promised, where that comes first)."""
        ...

    def started(self, prefill: PrefillInstance, flight: Flight) -> None:
        """A pass started, or was extended at its very start."""
        ...

    def prefilled(self, request: Request, t_s: float, prefill: PrefillInstance) -> None:
        """A request's prompt is computed."""
        ...


class Flight:
    """One pass of a batch through the instance.

    Attributes:
        t0: its start [s].
        t_end: its end [s].
        requests: whose prompts it computes.
        version: raised when it is extended.
    """

    __slots__ = ("requests", "t0", "t_end", "version")

    def __init__(self, t0: float) -> None:
        self.t0 = t0
        self.t_end = inf
        self.requests: list[Request] = []
        self.version = 0


class Rank:
    """Queue, batch being filled and KV of one rank.

    Attributes:
        queue: requests to prefill.
        queued_tokens: their prompt tokens.
        tokens: prompt tokens assigned and not yet prefilled.
        batch: requests of the pass that is starting.
        batch_tokens: their prompt tokens.
        sums: totals by attention group, kept where they differ from those of the log.
    """

    __slots__ = ("batch", "batch_tokens", "ledger", "queue", "queued_tokens", "sums", "tokens")

    def __init__(self, plan: PoolPlan) -> None:
        self.ledger = ledger(plan.footprint, plan.capacity_blocks)
        self.queue: deque[Request] = deque()
        self.queued_tokens = 0
        self.tokens = 0
        self.batch: list[Request] = []
        self.batch_tokens = 0
        self.sums = GroupTotals(plan.table.groups)


class PrefillInstance:
    """One prefill instance."""

    def __init__(
        self, index: int, plan: PoolPlan, clock: Clock, hooks: PrefillHooks, log: StrideLog
    ) -> None:
        self.index = index
        self.plan = plan
        self.clock = clock
        self.hooks = hooks
        self.log = log
        self.table = plan.table
        self.stages = plan.table.stages
        self.whole = plan.table.whole
        self.budget = plan.max_num_batched_tokens
        self.max_seqs = plan.max_num_seqs
        self.max_wait_s = plan.max_wait_s
        self.tokens = 0  # prompt tokens assigned and not yet prefilled, on all ranks
        self.ranks = tuple(Rank(plan) for _ in range(plan.table.ranks))
        self.flight: Flight | None = None  # the pass in the first stage
        self.flights: deque[Flight] = deque()  # passes in later stages
        self.free_s = inf  # when the first stage is free again; inf when it is free
        self.last_s = 0.0  # when the latest pass but one ends
        self.wake_s = -1.0
        self.version = 0
        self.timer = Timer(self._on_timer)
        self.landing = Timer(self._on_flight_end)

    # ------------------------------------------------------------------ requests

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request joins the queue; at the very start of a pass it may still join that."""
        rank = self.ranks[0]
        if len(self.ranks) > 1:
            self.outstanding_tokens(t_s)  # a boundary that is due is taken before it is read
            for i, other in enumerate(self.ranks):
                if other.tokens < rank.tokens:
                    rank = other
                    request.prefill_rank = i
        rank.queue.append(request)
        tokens = request.prompt_tokens
        rank.queued_tokens += tokens
        rank.tokens += tokens
        self.tokens += tokens
        self.retry(t_s)

    def retry(self, t_s: float) -> None:
        """Something that may have kept the head of a queue waiting has changed."""
        flight = self.flight
        if flight is None:
            self._begin(t_s)
            return
        tie = TIE_REL * t_s if t_s > 1.0 else TIE_REL
        if t_s <= flight.t0 + tie and self.free_s > t_s + tie:
            self._fill(flight.t0)
            self._start(flight)

    def release(self, request: Request, t_s: float) -> None:
        """A request's KV has left."""
        rank = self.ranks[request.prefill_rank]
        rank.ledger.held -= request.blocks
        request.blocks = 0
        if rank.queue:
            self.retry(t_s)

    def outstanding_tokens(self, t_s: float, stop: int = 0) -> int:
        """Prompt tokens assigned and not yet prefilled, as of the last boundary."""
        x = t_s + (TIE_REL * t_s if t_s > 1.0 else TIE_REL)
        if self.flights:
            while self.flights and self.flights[0].t_end <= x:
                self._land(self.flights.popleft())
        if self.free_s <= x:
            self._free()
        return self.tokens

    @property
    def filling(self) -> bool:
        """Whether the pass that is starting has a request already."""
        return any(rank.batch for rank in self.ranks)

    # ------------------------------------------------------------------ boundaries

    def _wake(self, t: float) -> None:
        """Look at the queues again at ``t``."""
        if self.wake_s != t:
            self.wake_s = t
            self.version += 1
            self.clock.at(t, self.timer, self.version, BOUNDARY + self.index)

    def _on_timer(self, version: int) -> None:
        if version == self.version:
            if self.flight is not None:
                self._free()
            else:
                wake_s = self.wake_s
                self.wake_s = -1.0
                self._begin(wake_s)

    def _begin(self, t: float) -> None:
        if self.max_wait_s > 0.0:
            ready_s = min(map(self._ready_s, self.ranks))
            if t + tie_s(t) < ready_s < inf:
                self._wake(ready_s)
                return
        for rank in self.ranks:
            if rank.queue:
                break
        else:
            return
        if self._fill(t):
            self._start(Flight(t))

    def _ready_s(self, rank: Rank) -> float:
        """When this rank's batch need not wait any longer: long ago if it is full."""
        if not rank.queue:
            return inf
        if rank.queued_tokens >= self.budget or len(rank.queue) >= self.max_seqs:
            return -inf
        return rank.queue[0].queued_s + self.max_wait_s

    def _fill(self, t: float) -> bool:
        """Move requests from the queues into the batches while they fit; whether there are any."""
        some = False
        for rank in self.ranks:
            queue = rank.queue
            batch = rank.batch
            ledger = rank.ledger
            while queue and len(batch) < self.max_seqs:
                r = queue[0]
                tokens = r.prompt_tokens
                if batch and rank.batch_tokens + tokens > self.budget:
                    break
                blocks = ledger.units_for(tokens)
                if blocks > ledger.capacity - ledger.held:
                    break
                if self.hooks.promise_first and not self.hooks.admits(r, t, self):
                    break
                queue.popleft()
                ledger.held += blocks
                r.blocks = blocks
                r.prefill_start_s = t
                batch.append(r)
                rank.batch_tokens += tokens
                rank.queued_tokens -= tokens
                if self.hooks.observed:
                    self.hooks.moved(t, r, State.PREFILLING, self.index)
            if batch:
                some = True
        return some

    def _start(self, flight: Flight) -> None:
        """The batches set out, or set out anew with who has joined at the very start."""
        slowest = 0.0
        tokens = 0
        for rank in self.ranks:
            if rank.batch:
                part_s = self.table.rank_prefill_s([r.prompt_tokens for r in rank.batch])
                if part_s > slowest:
                    slowest = part_s
                tokens += rank.batch_tokens
        pass_s = self.table.joined_s(slowest, tokens)
        t = flight.t0
        self.flight = flight
        self.wake_s = -1.0
        flight.t_end = t + pass_s
        if self.stages == 1:
            self.free_s = flight.t_end
        else:
            self.free_s = t + pass_s / self.stages
            flight.t_end = max(flight.t_end, self.last_s + pass_s / self.stages)
        flight.version += 1
        self.version += 1
        self.clock.at(self.free_s, self.timer, self.version, BOUNDARY + self.index)
        if self.hooks.layerwise:
            flight.requests = [r for rank in self.ranks for r in rank.batch]
            self.hooks.started(self, flight)

    def _free(self) -> None:
        """The first stage has done with its pass: record it, hand on, begin the next."""
        flight = self.flight
        assert flight is not None
        t = self.free_s
        self.free_s = inf  # until the batch has been handed on, nothing else begins
        self.version += 1
        ranks = self.ranks
        requests = ranks[0].batch
        for rank in ranks[1:]:
            requests = requests + rank.batch
        flight.requests = requests
        new = held = 0
        for rank in ranks:
            if not self.whole:
                rank.sums.prefilled([(0, r.prompt_tokens) for r in rank.batch])
            new += rank.batch_tokens
            held += rank.ledger.held
            rank.batch = []
            rank.batch_tokens = 0
        pairs = 0.0
        for r in requests:
            pairs += 0.5 * r.prompt_tokens * r.prompt_tokens
        count = len(requests)
        t0 = flight.t0
        buffer = self.log.buffer
        buffer.extend((self.index, t0, t, 1, 0, 0, new, pairs, new, count, 0, held, count, t - t0))
        if len(buffer) >= self.log.limit:
            self.log.flush()
        if self.stages == 1:
            self._land(flight)
        else:
            self.last_s = flight.t_end
            self.flights.append(flight)
            self.clock.at(flight.t_end, self.landing, flight, BOUNDARY + self.index)
        self.flight = None
        self._begin(t)

    def _on_flight_end(self, flight: Flight) -> None:
        if self.flights and self.flights[0] is flight:  # else it was handed on when it was read
            self.flights.popleft()
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        """A pass has ended: its prompts are computed."""
        t = flight.t_end
        for r in flight.requests:
            self.tokens -= r.prompt_tokens
            self.ranks[r.prefill_rank].tokens -= r.prompt_tokens
        for r in flight.requests:
            r.prefill_end_s = t
            self.hooks.prefilled(r, t, self)
