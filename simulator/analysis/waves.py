"""A closed loop whose requests move in waves: a recursion over their returns, not a formula.

All requests of such a client begin together and drift apart by the spread of their lengths alone.
Where a request is away, on its way and under prefill, for a time comparable to that spread, those
that end after it catch up with it, the wave closes again, and no mean-field form of the waiting time
holds. What is left is the order in which requests end, counted in decode steps: a recursion from one
return to the next, without KV blocks, ranks or eviction, which costs a few operations a request.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from simulator.analysis.colocated import pauses, whole
from simulator.analysis.demand import Demand
from simulator.scenario.deployment import PoolPlan

MOST_REQUESTS = 5000
"""Requests the recursion follows; those of a longer run are taken to fare as these."""

TIE_S = 1e-9
"""Instants closer than this are one [s]."""


@dataclass(frozen=True, slots=True)
class Waves:
    """What the requests of a closed loop saw.

    Attributes:
        ttft_steady_s: mean TTFT of those after the opening burst [s].
        ttft_burst_s: mean TTFT of the opening burst [s].
        tpot_s: mean time per output token [s].
    """

    ttft_steady_s: float
    ttft_burst_s: float
    tpot_s: float


def waves(pool: PoolPlan, demand: Demand, slots: int, front_s: float) -> Waves:
    """Follow a closed loop on one colocated instance (one attention rank) that no slot limit binds.

    Args:
        pool: the pool.
        demand: the requests, in the order the client sends them.
        slots: requests in flight, fewer than there are requests.
        front_s: time from a request's arrival to the queue of the instance [s].
    """
    loop = _Loop(pool, demand, slots, front_s)
    while loop.left:
        loop.step()
    ttft = np.array(loop.first_s) - np.array(loop.sent_s)
    return Waves(
        float(ttft[slots:].mean()), float(ttft[:slots].mean()), float(np.mean(loop.tpot_s))
    )


class _Loop:
    """The instance from boundary to boundary, jumping over steps in which nobody comes or goes."""

    def __init__(self, pool: PoolPlan, demand: Demand, slots: int, front_s: float) -> None:
        self.table = pool.table
        self.budget = pool.max_num_batched_tokens
        self.pauses, self.whole, self.overlap = pauses(pool), whole(pool), pool.overlap
        self.front_s = front_s
        count = min(len(demand), max(MOST_REQUESTS, 4 * slots))
        self.prompt: list[int] = demand.prompt[:count].tolist()
        self.steps: list[int] = demand.steps[:count].tolist()
        self.context: list[int] = demand.first_context[:count].tolist()
        self.mean_reads = demand.mean_reads(pool.table.groups)
        self.kv = 0  # tokens of the contexts that the coming step reads
        self.sent_s = [0.0] * count
        self.first_s = [0.0] * count
        self.tpot_s: list[float] = []
        self.coming = deque((front_s, i) for i in range(slots))  # in order of time
        self.following = slots
        self.left = count
        self.waiting: deque[int] = deque()
        self.done = 0  # prompt tokens of the head of the queue that are computed
        self.ends: list[tuple[int, int]] = []  # decode step after which each decoding one ends
        self.clock = 0  # decode steps so far
        self.now_s = 0.0
        self.decided_s = 0.0  # start of the latest step: with overlap the next was decided then

    def step(self) -> None:
        """The next step, or as many as are alike."""
        busy = bool(self.ends or self.waiting)
        known_s = self.decided_s if self.overlap and busy else self.now_s
        while self.coming and self.coming[0][0] <= known_s + TIE_S:
            self.waiting.append(self.coming.popleft()[1])
        if not self.waiting and not self.ends:
            self.now_s = self.coming[0][0]
            return
        decoding = len(self.ends)
        kv, count = self.kv, 1
        spans, emit = self._prompts(self.budget - (0 if self.pauses else decoding))
        if spans:
            decoding = 0 if self.pauses else decoding
            rows = decoding + len(emit)
            step_s = self.table.mixed_s(decoding, self._reads(decoding, kv), spans, rows)
        else:
            count = self._alike(self.table.decode_s(decoding, self._reads(decoding, kv)))
            kv += decoding * (count - 1) // 2  # that of the middle step: time is linear in it
            step_s = self.table.decode_s(decoding, self._reads(decoding, kv))
        self.decided_s = self.now_s + (count - 1) * step_s
        self.now_s += count * step_s
        if decoding:
            self.clock += count
            self.kv += count * decoding
        for i in emit:
            self.first_s[i] = self.now_s
            heappush(self.ends, (self.clock + self.steps[i], i))
            self.kv += self.context[i]
        while self.ends and self.ends[0][0] <= self.clock:
            self._leave(heappop(self.ends)[1])

    def _prompts(self, room: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Chunks of the coming step, (cached, new) tokens, and the requests whose prefill ends."""
        spans, emit = [], []
        while self.waiting and room > 0:
            i = self.waiting[0]
            left = self.prompt[i] - self.done
            if self.whole and left > room:
                break
            new = min(left, room)
            spans.append((self.done, new))
            room -= new
            if new < left:
                self.done += new
                break
            self.done = 0
            emit.append(self.waiting.popleft())
        return spans, emit

    def _alike(self, step_s: float) -> int:
        """Decode steps until one ends or somebody joins."""
        count = self.ends[0][0] - self.clock
        if self.coming and not self.waiting:
            away_s = self.coming[0][0] - self.now_s - TIE_S
            passed = math.ceil(away_s / step_s) + self.overlap if away_s > 0.0 else 1
            count = min(count, passed)
        return max(1, count)

    def _reads(self, decoding: int, kv: int) -> list[float]:
        """Tokens read by attention group; of a window or a chunk on average."""
        return [
            kv if group.span is None else decoding * mean
            for group, mean in zip(self.table.groups, self.mean_reads, strict=True)
        ]

    def _leave(self, i: int) -> None:
        """A request has its last token, and its slot sends the next one."""
        self.left -= 1
        self.kv -= self.context[i] + self.steps[i]
        if self.steps[i]:
            self.tpot_s.append((self.now_s - self.first_s[i]) / self.steps[i])
        if self.following < len(self.sent_s):
            self.sent_s[self.following] = self.now_s
            self.coming.append((self.now_s + self.front_s, self.following))
            self.following += 1
