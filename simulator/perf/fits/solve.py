"""Robust least squares on log ratios, with standard errors that admit correlated rows.

Parameters minimise ``Σ ρ(log(predicted/measured))`` with the soft-L1 loss
``ρ(r) = 2c²(√(1 + (r/c)²) - 1)``: a row twice too slow pulls little harder than one 30 % too slow.
Their covariance is the sandwich ``H⁻¹ M H⁻¹`` of an M-estimator [1] with the meat summed by group of
rows [2], since rows of one group share their error; intervals take Student's t with as many degrees
of freedom as there are groups less parameters.

References:
    [1] P. J. Huber, "The behavior of maximum likelihood estimates under nonstandard conditions",
        5th Berkeley Symposium, 1967.
    [2] K.-Y. Liang, S. L. Zeger, "Longitudinal data analysis using generalized linear models",
        Biometrika 73(1), 1986.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from simulator.errors import InputError

Array = npt.NDArray[np.float64]

SOFT = 0.1
"""Where the loss turns from square to linear: a ratio off by 10 % [1]."""

_STEP = 1e-5
"""Relative step of numerical derivatives [1]."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A parameter to fit.

    Attributes:
        name: of the field of the profile.
        start: where the search starts, in ``unit``.
        low: smallest value allowed.
        high: largest value allowed.
        unit: SI, or ``1``.
    """

    name: str
    start: float
    low: float
    high: float
    unit: str = "1"


@dataclass(frozen=True, slots=True)
class Solution:
    """Values, their covariance (0 for one at a bound), and the groups behind them."""

    values: Array
    covariance: Array
    groups: int
    at_bound: tuple[bool, ...]


def solve(
    form: Callable[[Array], Array],
    bounds: Sequence[Bound],
    measured_s: Array,
    groups: Sequence[str],
) -> Solution:
    """Fit a form to measured times.

    Args:
        form: times of all rows for parameter values [s].
        bounds: the parameters.
        measured_s: times of all rows [s].
        groups: name of each row's group.

    Raises:
        InputError: fewer rows than parameters, or a time that is not positive.
    """
    if len(measured_s) <= len(bounds):
        raise InputError(
            f"fit: {len(measured_s)} rows do not determine {len(bounds)} parameters; "
            f"give at least {len(bounds) + 1}."
        )
    if not np.all(np.isfinite(measured_s)) or np.any(measured_s <= 0.0):
        raise InputError("fit: latency_us: found a time that is not positive; allowed: above 0.")
    low = np.array([b.low for b in bounds])
    high = np.array([b.high for b in bounds])
    start = np.clip([b.start for b in bounds], low, high)
    scale = np.maximum(np.abs(start), 1e-3 * (high - low))

    def residuals(x: Array) -> Array:
        return np.asarray(np.log(np.maximum(form(x), 1e-12) / measured_s))

    found = least_squares(
        residuals, start, bounds=(low, high), loss="soft_l1", f_scale=SOFT, x_scale=scale,
        ftol=1e-10, xtol=1e-10, gtol=1e-10, max_nfev=400,
    )  # fmt: skip
    values = np.asarray(found.x, dtype=np.float64)
    margin = 1e-4 * np.minimum(scale, high - low)
    at = (values - low < margin) | (high - values < margin)
    covariance = _sandwich(residuals, values, scale, ~at, groups)
    return Solution(values, covariance, len(set(groups)), tuple(bool(b) for b in at))


def _sandwich(
    residuals: Callable[[Array], Array],
    values: Array,
    scale: Array,
    free: npt.NDArray[np.bool_],
    groups: Sequence[str],
) -> Array:
    """Group-robust covariance of the free parameters; rows and columns of the others are 0."""
    covariance = np.zeros((len(values), len(values)))
    index = np.flatnonzero(free)
    if len(index) == 0:
        return covariance
    r = residuals(values)
    # in units of each parameter's scale, or seconds beside bytes/s would be lost in rounding
    jacobian = np.column_stack([_derivative(residuals, values, scale, int(i)) for i in index])
    z = (r / SOFT) ** 2
    bread = jacobian.T @ (jacobian * ((1.0 + z) ** -1.5)[:, None])
    scores = jacobian * (r / np.sqrt(1.0 + z))[:, None]
    names, position = np.unique(np.asarray(groups), return_inverse=True)
    summed = np.zeros((len(names), len(index)))
    np.add.at(summed, position, scores)
    n, k, g = len(r), len(index), len(names)
    small = g / max(g - 1, 1) * (n - 1) / max(n - k, 1)
    inverse = np.linalg.pinv(bread)
    scaled = small * inverse @ (summed.T @ summed) @ inverse
    covariance[np.ix_(index, index)] = scaled * np.outer(scale[index], scale[index])
    return covariance


def _derivative(residuals: Callable[[Array], Array], values: Array, scale: Array, i: int) -> Array:
    step = np.zeros_like(values)
    step[i] = _STEP * scale[i]
    return np.asarray((residuals(values + step) - residuals(values - step)) / (2.0 * _STEP))
