"""Leaving out the start of a run, on request only and by a stated rule.

Nothing is removed by default: a benchmark client reports its opening burst, and so do we. Steady
state is a question about open-loop, stationary workloads.

References:
    [1] K. P. White, An effective truncation heuristic for bias reduction in simulation output,
        Simulation 69(6), 1997 (the marginal standard error rule, MSER).
    [2] S. C. Spratt, Heuristics for the startup problem, MSc thesis, Univ. of Virginia, 1998
        (MSER-5: on means of batches of five).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BATCH = 5


def mser5(series: npt.ArrayLike) -> int:
    """Number of leading observations to drop, by MSER-5 [1, 2].

    Of all truncation points in the first half, the one that minimises the squared standard error of
    what is left, ``Σ (y − mean)² / n²``, over means of batches of five observations.

    Args:
        series: observations in order, without NaN.

    >>> mser5([9.0] * 10 + ([1.0] * 5 + [2.0] * 5) * 10)
    10
    """
    x = np.asarray(series, dtype=np.float64)
    batches = x.size // BATCH
    if batches < 2:
        return 0
    y = x[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    y = y - y.mean()  # the rule does not see a shift, rounding does
    left = np.arange(batches, 0, -1)
    total = np.cumsum(y[::-1])[::-1]
    squares = np.cumsum((y * y)[::-1])[::-1]
    error = (squares - total * total / left) / left.astype(np.float64) ** 2
    return BATCH * int(np.argmin(error[: batches // 2 + 1]))
