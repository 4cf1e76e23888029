"""The prefill instance: whole prompts, first come first served, under a token budget.

A batch takes requests from the head of the queue while their prompts fit the budget, the batch
limit and the free KV blocks (and, when decode blocks are promised first, while a decode instance
has room). A prompt longer than the budget runs alone. A batch that is not full may wait until its
oldest request has waited ``max_wait_s``. A prompt's KV stays until its last byte has left.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Protocol

from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.kvcache import BlockLedger
from simulator.records import StrideLog
from simulator.request import Request, State
from simulator.scenario.deployment import PoolPlan
from simulator.units import TIE_REL, tie_s


class PrefillHooks(Protocol):
    """Callbacks from a prefill instance to the cluster."""

    observed: bool

    def moved(self, t_s: float, request: Request, state: State, instance: int) -> None:
        """A request entered a state."""
        ...

    def admits(self, request: Request, t_s: float, prefill: PrefillInstance) -> bool:
        """Whether the prefill of ``request`` may start (room promised, where that comes first)."""
        ...

    def started(self, prefill: PrefillInstance, t_s: float, end_s: float) -> None:
        """A batch started, or was extended at its very start."""
        ...

    def prefilled(self, request: Request, t_s: float, prefill: PrefillInstance) -> None:
        """A request's prompt is computed."""
        ...


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
        self.budget = plan.max_num_batched_tokens
        self.max_seqs = plan.max_num_seqs
        self.max_wait_s = plan.max_wait_s
        self.ledger = BlockLedger(plan.block_tokens, plan.capacity_blocks)
        self.queue: deque[Request] = deque()
        self.queued_tokens = 0
        self.tokens = 0  # prompt tokens assigned and not yet prefilled
        self.batch: list[Request] = []
        self.batch_tokens = 0
        self.busy = False
        self.t0 = 0.0
        self.t_end = 0.0
        self.wake_s = -1.0
        self.version = 0
        self.callbacks = (self._on_timer,)

    def enqueue(self, request: Request, t_s: float) -> None:
        """A request joins the queue; at the very start of a batch it may still join that."""
        self.queue.append(request)
        self.queued_tokens += request.prompt_tokens
        self.tokens += request.prompt_tokens
        self.retry(t_s)

    def retry(self, t_s: float) -> None:
        """Something that may have kept the head of the queue waiting has changed."""
        if not self.busy:
            self._begin(t_s)
            return
        tie = TIE_REL * t_s if t_s > 1.0 else TIE_REL
        if t_s <= self.t0 + tie and self.t_end > t_s + tie:
            self._fill(self.t0)
            self._start(self.t0)

    def release(self, request: Request, t_s: float) -> None:
        """A request's KV has left."""
        self.ledger.held -= request.blocks
        request.blocks = 0
        if self.queue:
            self.retry(t_s)

    def outstanding_tokens(self, t_s: float, stop: int = 0) -> int:
        """Prompt tokens assigned and not yet prefilled, as of the last boundary."""
        if self.busy and self.t_end <= t_s + (TIE_REL * t_s if t_s > 1.0 else TIE_REL):
            self._end()
        return self.tokens

    def _wake(self, t: float) -> None:
        """Look at the queue again at ``t``."""
        if self.wake_s != t:
            self.wake_s = t
            self.version += 1
            self.clock.at(t, self.callbacks, self.version, None, BOUNDARY + self.index)

    def _on_timer(self, timer: Timer) -> None:
        if timer.version == self.version:
            if self.busy:
                self._end()
            else:
                wake_s = self.wake_s
                self.wake_s = -1.0
                self._begin(wake_s)

    def _begin(self, t: float) -> None:
        if not self.queue:
            return
        if self.max_wait_s > 0.0:
            full = self.queued_tokens >= self.budget or len(self.queue) >= self.max_seqs
            ready_s = self.queue[0].queued_s + self.max_wait_s
            if not full and ready_s > t + tie_s(t):
                self._wake(ready_s)
                return
        self._fill(t)
        if self.batch:
            self._start(t)

    def _fill(self, t: float) -> None:
        """Move requests from the queue into the batch while they fit."""
        queue = self.queue
        batch = self.batch
        ledger = self.ledger
        while queue and len(batch) < self.max_seqs:
            r = queue[0]
            tokens = r.prompt_tokens
            if batch and self.batch_tokens + tokens > self.budget:
                break
            blocks = ledger.blocks_for(tokens)
            if blocks > ledger.capacity - ledger.held or not self.hooks.admits(r, t, self):
                break
            queue.popleft()
            ledger.held += blocks
            r.blocks = blocks
            r.prefill_start_s = t
            batch.append(r)
            self.batch_tokens += tokens
            self.queued_tokens -= tokens
            if self.hooks.observed:
                self.hooks.moved(t, r, State.PREFILLING, self.index)

    def _start(self, t: float) -> None:
        spans = [(0, r.prompt_tokens) for r in self.batch]
        self.busy = True
        self.wake_s = -1.0
        self.t0 = t
        self.t_end = end = t + self.table.mixed_s(0, 0, spans, len(spans))
        self.version += 1
        self.clock.at(end, self.callbacks, self.version, None, BOUNDARY + self.index)
        self.hooks.started(self, t, end)

    def _end(self) -> None:
        t = self.t_end
        self.t_end = inf  # until the batch has been handed on, nothing else begins
        self.version += 1
        batch = self.batch
        self.batch = []
        new = self.batch_tokens
        self.batch_tokens = 0
        self.tokens -= new
        pairs = 0.0
        for r in batch:
            pairs += 0.5 * r.prompt_tokens * r.prompt_tokens
        log = self.log
        log.buffer.extend(
            (
                self.index,
                self.t0,
                t,
                1,
                0,
                0,
                new,
                pairs,
                new,
                len(batch),
                0,
                self.ledger.held,
                len(batch),
                t - self.t0,
            )
        )
        if len(log.buffer) >= log.limit:
            log.flush()
        for r in batch:
            r.prefill_end_s = t
            self.hooks.prefilled(r, t, self)
        self.busy = False
        self._begin(t)
