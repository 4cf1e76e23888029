"""Which factor a band comes from.

References:
    [1] A. Saltelli et al., Global Sensitivity Analysis: The Primer, Wiley, 2008, section 1.2.5
        (standardised regression coefficients).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_CONSTANT = 1e-9
"""Relative spread below which a metric does not vary."""


def explained(values: FloatArray, logs: Mapping[str, FloatArray]) -> dict[str, float]:
    """Share of a metric's variance that each factor explains, first order [1].

    The squared standardised coefficients of a regression of the metric's logarithm (of the metric,
    where it is not positive) on the logarithms of the factors, as shares of their sum: the variance
    that independent factors would cause. Where there are too few draws for a regression, squared
    correlations. Interactions are left out.

    Args:
        values: the metric in each draw; NaN are left out.
        logs: logarithm of each factor in each draw, by name.

    Returns:
        Shares by name; empty where the metric does not vary or nothing was drawn.
    """
    known = ~np.isnan(values)
    y = values[known]
    if y.size < 2 or not logs or float(np.ptp(y)) <= _CONSTANT * float(np.abs(y).max()):
        return {}
    y = np.log(y) if y.min() > 0.0 else y
    y = y - y.mean()
    x = np.stack([column[known] - column[known].mean() for column in logs.values()], axis=1)
    spread = np.sqrt((x**2).sum(axis=0))
    x = x / np.where(spread > 0.0, spread, 1.0)
    enough = y.size >= 2 * x.shape[1] + 2
    slopes = np.linalg.lstsq(x, y, rcond=None)[0] if enough else x.T @ y
    whole = float(slopes @ slopes)
    return {name: float(s * s / whole) for name, s in zip(logs, slopes, strict=True)}
