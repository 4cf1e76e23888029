"""Max-min fair shares of capacities by flows with individual caps (progressive filling).

Every unfrozen flow's rate rises at one speed; a flow freezes when it meets its cap, and all flows
of a port freeze when the port is full. The result is the unique max-min fair allocation
(Bertsekas & Gallager, *Data Networks*, 2nd ed., 1992, section 6.5.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf


def max_min_rates(
    ports: Sequence[Sequence[int]], caps: Sequence[float], capacity: Sequence[float]
) -> list[float]:
    """Max-min fair rates.

    Args:
        ports: for each flow, the ports it crosses (indices into ``capacity``).
        caps: for each flow, the most it can use [bytes/s]; positive.
        capacity: capacity of each port [bytes/s]; ``inf`` for none.

    Returns:
        The rate of each flow [bytes/s].
    """
    rates = [0.0] * len(ports)
    left = list(capacity)
    users = [0] * len(capacity)
    for crossing in ports:
        for p in crossing:
            users[p] += 1
    order = sorted(range(len(ports)), key=lambda i: caps[i])
    active = dict.fromkeys(order)
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
                    left[p] = max(0.0, left[p] - rate)
                users[p] -= 1
    return rates
