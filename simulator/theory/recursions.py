"""Exact waiting times of FCFS queues, one sample path at a time: oracles without a tolerance.

References:
    [1] D. V. Lindley, The theory of queues with a single server, Math. Proc. Cambridge Phil. Soc.
        48(2), 1952.
    [2] J. Kiefer and J. Wolfowitz, On the theory of queues with many servers, Trans. Amer. Math.
        Soc. 78, 1955.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def lindley(arrival_s: npt.ArrayLike, service_s: npt.ArrayLike) -> FloatArray:
    """Waiting time of every customer of a G/G/1 FCFS queue [s], by Lindley's recursion [1].

    The recursion is written in instants (a customer starts when it has arrived and its predecessor
    has left), the same sums a simulator makes, so that the two agree to the last bits.

    Args:
        arrival_s: instants of arrival [s], not decreasing.
        service_s: service times [s].

    >>> lindley([0.0, 1.0, 1.5, 9.0], [2.0, 2.0, 1.0, 1.0]).tolist()
    [0.0, 1.0, 2.5, 0.0]
    """
    return kiefer_wolfowitz(arrival_s, service_s, servers=1)


def kiefer_wolfowitz(
    arrival_s: npt.ArrayLike, service_s: npt.ArrayLike, servers: int
) -> FloatArray:
    """Waiting time of every customer of a G/G/c FCFS queue [s] [2].

    The Kiefer-Wolfowitz vector of residual workloads is kept as the sorted instants at which the
    servers become free; each customer takes the first of them. O(n log c).

    Args:
        arrival_s: instants of arrival [s], not decreasing.
        service_s: service times [s].
        servers: c ≥ 1 identical servers.

    >>> kiefer_wolfowitz([0.0, 1.0, 1.5, 2.0], [4.0, 2.0, 1.0, 1.0], servers=2).tolist()
    [0.0, 0.0, 1.5, 2.0]
    """
    arrivals = np.asarray(arrival_s, dtype=np.float64)
    services = np.asarray(service_s, dtype=np.float64)
    if arrivals.shape != services.shape or arrivals.ndim != 1:
        raise ValueError(
            f"arrivals and service times must be two vectors of one length, "
            f"got shapes {arrivals.shape} and {services.shape}"
        )
    if servers < 1:
        raise ValueError(f"a queue needs at least one server, got {servers}")
    free = [-np.inf] * servers
    waits = []
    for arrived, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        start = max(arrived, free[0])
        heapq.heapreplace(free, start + service)
        waits.append(start - arrived)
    return np.array(waits, dtype=np.float64)
