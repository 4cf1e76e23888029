"""Simulated times near a fit as a formula, cheap enough to sample.

Times are nearly linear in the overheads, and in one over the efficiencies: with ``u`` these and ``t̂`` the
time at the fit, ``t(x) ≈ t̂ · (1 + Σ_k slope_k · (u_k(x) − u_k(x̂)))``. Linear in the logarithms they are
not: an overhead that is half as large takes away more of its own leverage on the data than a tangent
says, and intervals from tangents are too narrow on that side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CHAINS = 64
STEPS = 1000
BURN = 200
LEAST = 0.05
"""Smallest ratio of a time to that at the fit."""


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Residuals as a formula.

    Attributes:
        best: shape (k,): logarithms of the constants at the fit.
        power: shape (k,): 1 where times grow with the constant, -1 where with one over it.
        rows: shape (n,): residuals at the fit.
        scale: shape (n,): relative error that is one unit of a residual.
        slopes: shape (n, k): relative change of a time by a relative change of ``u``.
    """

    best: FloatArray
    power: FloatArray
    rows: FloatArray
    scale: FloatArray
    slopes: FloatArray

    def residuals(self, x: FloatArray) -> FloatArray:
        """Residuals of shape (..., n) at logarithms of shape (..., k)."""
        change = np.expm1(self.power * (x - self.best))
        ratio = np.maximum(1.0 + change @ self.slopes.T, LEAST)
        found: FloatArray = self.rows + np.log(ratio) / self.scale
        return found

    def jacobian(self) -> FloatArray:
        """Derivatives of the residuals at the fit, shape (n, k)."""
        found: FloatArray = self.slopes * self.power / self.scale[:, None]
        return found

    def only(self, kept: NDArray[np.bool_]) -> Surrogate:
        """That of some of the rows."""
        return Surrogate(
            self.best, self.power, self.rows[kept], self.scale[kept], self.slopes[kept]
        )


def posterior(
    surrogate: Surrogate,
    start: FloatArray,
    width: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
    covariance: FloatArray,
    widened: float,
) -> FloatArray:
    """Draws of the logarithms given the runs and the prior: random-walk Metropolis.

    Args:
        surrogate: residuals of the runs.
        start: centre of the prior.
        width: its standard deviation.
        bounds: lowest and highest values.
        covariance: of the steps, that of the linearised problem.
        widened: factor by which residuals are larger than their scale.

    Returns:
        Shape (draws, k); the same for the same arguments.
    """
    rng = np.random.default_rng(0)
    size = start.size
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(size))
    low, high = bounds

    def cost(x: FloatArray) -> FloatArray:
        soft = 2.0 * (np.sqrt(1.0 + surrogate.residuals(x) ** 2) - 1.0)
        prior = ((x - start) / width) ** 2
        found: FloatArray = soft.sum(axis=-1) / widened**2 + prior.sum(axis=-1)
        return found

    x = np.clip(surrogate.best + rng.normal(size=(CHAINS, size)) @ root.T, low, high)
    here = cost(x)
    kept = []
    for i in range(STEPS):
        there = x + (2.4 / np.sqrt(size)) * rng.normal(size=x.shape) @ root.T
        inside = ((there >= low) & (there <= high)).all(axis=1)
        new = cost(there)
        taken = inside & (np.log(rng.random(CHAINS)) < 0.5 * (here - new))
        x = np.where(taken[:, None], there, x)
        here = np.where(taken, new, here)
        if i >= BURN:
            kept.append(x)
    return np.concatenate(kept)
