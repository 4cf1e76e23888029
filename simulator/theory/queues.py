"""Steady-state means of the textbook queues: Poisson arrivals, FCFS, infinite waiting room.

A queue offered as much work as it can do, or more, has no steady state: its ``utilisation`` is then
at least 1 and every mean is ``inf``. Rates are per second, times in seconds.

References:
    [1] L. Kleinrock, Queueing Systems, Volume 1: Theory, Wiley, 1975.
    [2] R. B. Cooper, Introduction to Queueing Theory, 2nd ed., North-Holland, 1981
        (Erlang B recursion, section 3.4).
    [3] F. Pollaczek, Über eine Aufgabe der Wahrscheinlichkeitstheorie, Math. Zeitschrift 32, 1930;
        A. Khinchine, Mathematical theory of a stationary queue, Mat. Sbornik 39, 1932.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueMeans:
    """Steady-state means of a queue.

    Attributes:
        utilisation: fraction of the servers' time that is busy, λ·E[S]/c.
        wait_s: mean time in the queue before service [s].
        sojourn_s: mean time from arrival to departure [s].
        waiting: mean number in the queue.
        number: mean number in the system.
    """

    utilisation: float
    wait_s: float
    sojourn_s: float
    waiting: float
    number: float


def _means(arrival_rate: float, service_s: float, servers: int, wait_s: float) -> QueueMeans:
    sojourn_s = wait_s + service_s
    return QueueMeans(
        utilisation=arrival_rate * service_s / servers,
        wait_s=wait_s,
        sojourn_s=sojourn_s,
        # an empty stream in front of any queue is an empty queue, not 0·inf
        waiting=arrival_rate * wait_s if arrival_rate else 0.0,
        number=arrival_rate * sojourn_s if arrival_rate else 0.0,
    )


def _check(arrival_rate: float, service_s: float, servers: int = 1) -> None:
    if arrival_rate < 0.0 or not service_s > 0.0 or servers < 1:
        raise ValueError(
            f"a queue needs an arrival rate >= 0, a service time > 0 and servers >= 1, "
            f"got {arrival_rate}, {service_s} and {servers}"
        )


def mm1(arrival_rate: float, service_s: float) -> QueueMeans:
    """M/M/1: exponential service of mean ``service_s`` [s]; W_q = ρ·E[S]/(1−ρ) [1, section 3.2].

    >>> q = mm1(0.8, 1.0)
    >>> round(q.number, 9), round(q.wait_s, 9)
    (4.0, 4.0)
    """
    return mg1(arrival_rate, service_s, scv=1.0)


def md1(arrival_rate: float, service_s: float) -> QueueMeans:
    """M/D/1: every service takes ``service_s`` [s]; half the wait of M/M/1 [1, section 5.6].

    >>> round(md1(0.8, 1.0).wait_s / mm1(0.8, 1.0).wait_s, 9)
    0.5
    """
    return mg1(arrival_rate, service_s, scv=0.0)


def mg1(arrival_rate: float, service_s: float, scv: float) -> QueueMeans:
    """M/G/1 by Pollaczek-Khinchine: W_q = λ·E[S²]/(2(1−ρ)) = ρ·E[S]·(1 + c²)/(2(1−ρ)) [3].

    Args:
        arrival_rate: λ [1/s].
        service_s: mean service time E[S] [s].
        scv: squared coefficient of variation of the service time, Var[S]/E[S]².

    >>> round(mg1(0.5, 1.0, scv=3.0).wait_s, 9)
    2.0
    """
    _check(arrival_rate, service_s)
    if scv < 0.0:
        raise ValueError(f"a squared coefficient of variation cannot be negative, got {scv}")
    rho = arrival_rate * service_s
    wait_s = rho * service_s * (1.0 + scv) / (2.0 * (1.0 - rho)) if rho < 1.0 else math.inf
    return _means(arrival_rate, service_s, 1, wait_s)


def erlang_b(offered: float, servers: int) -> float:
    """Probability that all ``servers`` of an M/G/c/c loss system are busy [2].

    The recursion B(0) = 1, B(k) = a·B(k−1)/(k + a·B(k−1)) is stable for any size; the textbook sum
    overflows beyond about 170 servers.

    Args:
        offered: load a = λ·E[S] [erlang].
        servers: c ≥ 0.

    >>> round(erlang_b(2.0, 3), 6)
    0.210526
    """
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked


def erlang_c(offered: float, servers: int) -> float:
    """Probability that an arrival to M/M/c has to wait; 1 when ``offered`` ≥ ``servers`` [1].

    >>> round(erlang_c(2.0, 3), 6)
    0.444444
    """
    rho = offered / servers
    if rho >= 1.0:
        return 1.0
    blocked = erlang_b(offered, servers)
    return blocked / (1.0 - rho * (1.0 - blocked))


def mmc(arrival_rate: float, service_s: float, servers: int) -> QueueMeans:
    """M/M/c: W_q = C(c, a)·E[S]/(c − a), with a = λ·E[S] and C Erlang's delay formula [1, 3.5].

    >>> mmc(0.8, 1.0, 1).wait_s == mm1(0.8, 1.0).wait_s
    True
    >>> round(mmc(2.0, 1.0, 3).wait_s, 6)
    0.444444
    """
    _check(arrival_rate, service_s, servers)
    offered = arrival_rate * service_s
    if offered >= servers:
        return _means(arrival_rate, service_s, servers, math.inf)
    wait_s = erlang_c(offered, servers) * service_s / (servers - offered)
    return _means(arrival_rate, service_s, servers, wait_s)
