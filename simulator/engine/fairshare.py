"""Max-min fair shares of capacities by flows with individual caps (progressive filling).

Every unfrozen flow's rate rises at one speed; a flow freezes when it meets its cap, and all flows
of a port freeze when the port is full. The result is the unique max-min fair allocation
(Bertsekas & Gallager, *Data Networks*, 2nd ed., 1992, section 6.5.2). Flows that cross the same
ports under the same cap get the same rate, so they are given as one group with its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf


def max_min_rates(
    ports: Sequence[Sequence[int]],
    caps: Sequence[float],
    capacity: Sequence[float],
    sizes: Sequence[int] | None = None,
) -> list[float]:
    """Max-min fair rates.

    Args:
        ports: for each group of flows, the ports it crosses (indices into ``capacity``).
        caps: for each group, the most one flow can use [bytes/s]; positive.
        capacity: capacity of each port [bytes/s]; ``inf`` for none.
        sizes: flows in each group; one each by default.

    Returns:
        The rate of one flow of each group [bytes/s].
    """
    n = len(ports)
    sizes = [1] * n if sizes is None else sizes
    rates = [0.0] * n
    left = list(capacity)
    users = [0] * len(capacity)
    for crossing, size in zip(ports, sizes, strict=True):
        for p in crossing:
            users[p] += size
    active = dict.fromkeys(sorted(range(n), key=lambda i: caps[i]))
    while active:
        share = min((left[p] / users[p] for p in range(len(left)) if users[p]), default=inf)
        first = next(iter(active))
        if caps[first] <= share:
            # the smallest caps freeze first; freezing them can only raise the others' share
            frozen = [first]
            rate = caps[first]
        else:
            full = {p for p in range(len(left)) if users[p] and left[p] / users[p] <= share}
            frozen = [i for i in active if not full.isdisjoint(ports[i])]
            rate = share
        for i in frozen:
            del active[i]
            rates[i] = rate
            for p in ports[i]:
                if rate < inf:
                    left[p] = max(0.0, left[p] - rate * sizes[i])
                users[p] -= sizes[i]
    return rates
