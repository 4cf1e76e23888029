"""Intervals for shares near 1 and for means, from independent replications.

A share such as attainment has two troubles: it sits at the edge of [0, 1], where an interval
symmetric about the estimate is wrong [1], and misses come in clusters, because neighbours share a
queue, so that n requests say less than n independent ones. Both are met by a Wilson interval with an
*effective* number of requests: the number of independent requests that would scatter as the
replications (or, with few of them, the batches of consecutive requests) did, with a Student
quantile because the scatter is itself an estimate.

References:
    [1] L. D. Brown, T. T. Cai, A. DasGupta, Interval estimation for a binomial proportion, Statist.
        Sci. 16(2), 2001.
    [2] E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected number
        of positive counts estimated from survey data, Survey Methodology 24, 1998 (effective
        sample size, Student quantile).
    [3] J. A. Hanley, A. Lippman-Hand, If nothing goes wrong, is everything all right?, JAMA
        249(13), 1983 (no miss in n: the rule of three).
    [4] W. Whitt, Planning queueing simulations, Management Science 35(11), 1989.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from simulator.metrics import Interval

CLUSTER = 10.0
"""Misses assumed to come together where none, or no scatter, has been seen."""

MOST_CLUSTER = 60.0
"""Beyond it (load 0.88) a layout without a miss could not be told from one with too many."""

LEAST_INFLATION = 0.2
"""Units that agree better than this by chance are not believed."""


def share_interval(
    hits: Sequence[int], sizes: Sequence[int], level: float = 0.95, *, cluster: float = 1.0
) -> Interval:
    """Interval of a share from units that are (nearly) independent of each other.

    Few units may have missed the rare busy periods in which most misses happen, and then scatter
    too little. The interval is therefore never narrower than one with misses ``cluster`` at a time.

    Args:
        hits: requests that met the targets, unit by unit (replications or long batches).
        sizes: requests of each unit.
        level: confidence level in (0, 1).
        cluster: how many times the variance of independent requests is expected, see
            ``expected_cluster``.
    """
    units, total = len(sizes), sum(sizes)
    p = sum(hits) / total
    if sum(hits) == total:
        lo = float((0.5 - 0.5 * level) ** (max(CLUSTER, cluster) / total))
        return Interval(1.0, lo, 1.0, level, f"no miss in {total} requests")
    # the scatter is itself an estimate: Student's quantile, not the normal one
    t = float(stats.t.ppf(0.5 + 0.5 * level, max(units - 1, 1)))
    z = float(stats.norm.ppf(0.5 + 0.5 * level))
    seen = wilson(p, effective_size(hits, sizes), t)
    expected = wilson(p, total / cluster, z)
    rule = f"{units} units of {total / units:.0f} requests, effective-size Wilson"
    return Interval(p, min(*seen, *expected, p), max(*seen, *expected, p), level, rule)


def expected_cluster(load: float | None) -> float:
    """How much more a share scatters than one of independent requests, from the load alone.

    Misses happen in busy periods, and those last about one relaxation time, ``ρ/(1 − ρ)²`` arrivals
    in heavy traffic [4]. Measured on queues for decode slots at load 0.6, 0.8 and 0.9, intervals
    that assume this (beside what the units show) cover the long run in 94 to 99 % of cases where
    those without cover it in 52 to 96 %.

    Args:
        load: highest load of a pool or link; None if unknown.
    """
    if load is None or load <= 0.0:
        return 1.0
    return min(MOST_CLUSTER, 1.0 + load / max(1.0 - load, 1e-3) ** 2)


def effective_size(hits: Sequence[int], sizes: Sequence[int]) -> float:
    """Independent requests whose share would scatter as that of these units does [2].

    The variance is that of a ratio of clustered units. With a single unit nothing scatters, and
    misses are taken to come ``CLUSTER`` at a time.
    """
    x, n = np.asarray(hits, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    total = float(n.sum())
    p = float(x.sum()) / total
    if x.size < 2 or not 0.0 < p < 1.0:
        return total / CLUSTER
    residual = x - p * n
    variance = x.size / (x.size - 1.0) * float(residual @ residual) / total**2
    inflation = variance * total / (p * (1.0 - p))
    return total / max(inflation, LEAST_INFLATION)


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson score interval of a share ``p`` of ``n`` independent trials at quantile ``z`` [1]."""
    centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * float(np.sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Interval of a mean over independent units; None with fewer than two known values.

    Student's, and for positive values also Student's on the logarithm, whichever reaches further:
    mean waits are skewed to the right, where Student's alone ends too early.

    Args:
        values: one mean per unit.
        level: confidence level in (0, 1).
    """
    x = np.asarray([v for v in values if v is not None and np.isfinite(v)], dtype=np.float64)
    if x.size < 2:
        return None
    mean = float(x.mean())
    half = float(stats.t.ppf(0.5 + 0.5 * level, x.size - 1) * x.std(ddof=1) / x.size**0.5)
    lo, hi = mean - half, mean + half
    if x.min() > 0.0:
        ratio = math.exp(half / mean)
        lo, hi = min(lo, mean / ratio), max(hi, mean * ratio)
    return Interval(mean, lo, hi, level, f"{x.size} units, Student t")
