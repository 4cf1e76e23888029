"""Least squares on logarithms, for the small sets of rows one machine gives.

Residuals are log(predicted/measured) under a soft-L1 loss, so that relative errors count and a row
disturbed by something else pulls little. Parameters are positive and fitted as logarithms within the
bounds of the profile's schema.

References:
    [1] B. Triggs et al., "Bundle adjustment: a modern synthesis", 2000, section 3: robust losses
        within Gauss-Newton least squares.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]
Model = Callable[[Mapping[str, float], npt.NDArray[np.intp]], Array]
"""Predicted times [s] of the rows with these positions, for parameters by name."""

SCALE = 0.1
"""Relative error from which the loss grows linearly."""
FOLDS = 5
_FLOOR = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """Fitted parameters.

    Attributes:
        params: by name.
        stderr: their standard errors; None where the rows do not determine the parameter (a
            standard error above the value itself).
        predicted_s: of every row [s].
        held_out: mean absolute relative error of rows whose group was left out of the fit; None
            with too few groups.
        folds: how many parts the groups were dealt to.
    """

    params: dict[str, float]
    stderr: dict[str, float | None]
    predicted_s: Array
    held_out: float | None
    folds: int


def estimate(
    model: Model,
    measured_s: Array,
    start: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    groups: Sequence[Hashable],
) -> Estimate:
    """Fit, and measure the error on groups of rows the fit has not seen.

    Args:
        model: predicts rows.
        measured_s: measured times [s].
        start: parameters to start from.
        bounds: lowest and highest value of each.
        groups: rows with the same one (a weight, a head configuration) are left out together.
    """
    everything = np.arange(len(measured_s))
    values, stderr = _fit(model, measured_s, start, bounds, everything)
    deal = _dealt(groups)
    folds = int(deal.max()) + 1
    errors: list[Array] = []
    for fold in range(folds if folds > 1 else 0):
        kept, left = np.flatnonzero(deal != fold), np.flatnonzero(deal == fold)
        if len(kept) <= len(start):
            return Estimate(values, stderr, model(values, everything), None, 0)
        unseen, _ = _fit(model, measured_s, values, bounds, kept)
        errors.append(np.abs(model(unseen, left) / measured_s[left] - 1.0))
    held_out = float(np.concatenate(errors).mean()) if errors else None
    return Estimate(values, stderr, model(values, everything), held_out, folds)


def _fit(
    model: Model,
    measured_s: Array,
    start: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    rows: npt.NDArray[np.intp],
) -> tuple[dict[str, float], dict[str, float | None]]:
    names = list(start)
    low = np.log([max(bounds[name][0], _FLOOR) for name in names])
    high = np.log([bounds[name][1] for name in names])
    first = np.clip(np.log([max(start[name], _FLOOR) for name in names]), low, high)
    target = np.log(measured_s[rows])

    def residuals(theta: Array) -> Array:
        values = dict(zip(names, np.exp(theta).tolist(), strict=True))
        return np.asarray(np.log(model(values, rows)) - target)

    best = None
    for share in (0.0, 0.3, -0.3):  # a few starts: the corner of a roofline has flat valleys
        x0 = np.clip(first + share * np.cos(np.arange(len(names))), low, high)
        inside = np.clip(x0, low + 1e-6, high - 1e-6)
        found = least_squares(residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=SCALE)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    values = dict(zip(names, np.exp(best.x).tolist(), strict=True))
    errors = _errors(np.asarray(best.jac), residuals(best.x))
    stderr = {
        name: None if error is None else values[name] * error
        for name, error in zip(names, errors, strict=True)
    }
    return values, stderr


def _errors(jacobian: Array, residual: Array) -> list[float | None]:
    """Standard errors of log parameters; None where a parameter moves no row."""
    count, width = jacobian.shape
    moves = np.linalg.norm(jacobian, axis=0) > 1e-6
    found: list[float | None] = [None] * width
    if count <= width or not moves.any():
        return found
    part = jacobian[:, moves]
    variance = float(residual @ residual) / (count - width)
    covariance = np.linalg.pinv(part.T @ part) * variance
    for position, value in zip(np.flatnonzero(moves), np.diag(covariance), strict=True):
        found[int(position)] = float(np.sqrt(value)) if value <= 1.0 else None
    return found


def _dealt(groups: Sequence[Hashable]) -> npt.NDArray[np.intp]:
    """The fold of each row: groups dealt out in turn, always the same way."""
    order = {group: position for position, group in enumerate(sorted(set(groups), key=repr))}
    shuffled = np.random.default_rng(3).permutation(len(order))
    return np.array([shuffled[order[group]] % min(FOLDS, len(order)) for group in groups])
