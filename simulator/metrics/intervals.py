"""How sure a number is: intervals from replications, or by resampling blocks of one replay.

References:
    [1] A. M. Law, Simulation Modeling and Analysis, 5th ed., McGraw-Hill, 2015, section 9.4.1
        (independent replications).
    [2] H. R. Künsch, The jackknife and the bootstrap for general stationary observations, Ann.
        Statist. 17(3), 1989 (moving-block bootstrap).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        mean: point estimate.
        lo: lower end.
        hi: upper end.
        level: confidence level.
        rule: how it was made, for reports.
    """

    mean: float
    lo: float
    hi: float
    level: float
    rule: str


def replication_interval(values: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Student-t interval for the mean over independent replications [1].

    Args:
        values: one number per replication (one seed each); at least 2.
        level: confidence level in (0, 1).

    >>> i = replication_interval([1.0, 2.0, 3.0])
    >>> round(i.mean, 3), round(i.hi - i.mean, 3)
    (2.0, 2.484)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        raise ValueError(f"an interval over replications needs at least 2 of them, got {x.size}")
    half = float(stdtrit(x.size - 1, 0.5 + 0.5 * level) * x.std(ddof=1) / x.size**0.5)
    mean = float(x.mean())
    return Interval(mean, mean - half, mean + half, level, f"{x.size} replications, Student t")


def block_bootstrap(
    series: FloatArray,
    statistic: Callable[[FloatArray], float],
    *,
    rng: np.random.Generator,
    block: int | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic of one dependent series, by moving blocks [2].

    Requests of one replay are not independent: neighbours share queues. Blocks of consecutive
    requests are drawn with replacement, so what happens within a block stays together.

    Args:
        series: one value per request, in order of arrival, without NaN.
        statistic: function of such a series, e.g. a percentile.
        rng: source of the resampling.
        block: requests per block; ``ceil(n^(1/2))`` by default. It should span the longest queue
            that matters.
        resamples: number of bootstrap series.
        level: confidence level in (0, 1).
    """
    n = series.size
    if n < 2:
        raise ValueError(f"a bootstrap needs at least 2 values, got {n}")
    size = min(n, block or int(np.ceil(n**0.5)))
    count = -(-n // size)
    within = np.arange(size)
    found = np.empty(resamples)
    for k in range(resamples):
        first = rng.integers(0, n - size + 1, count)
        found[k] = statistic(series[(first[:, None] + within).ravel()[:n]])
    lo, hi = np.quantile(found, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    rule = f"moving-block bootstrap, {resamples} resamples, blocks of {size} requests"
    return Interval(float(statistic(series)), float(lo), float(hi), level, rule)
