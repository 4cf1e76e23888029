"""Draws of the factors: Latin hypercubes from named streams.

References:
    [1] M. D. McKay, R. J. Beckman, W. J. Conover, A comparison of three methods for selecting values
        of input variables in the analysis of output from a computer code, Technometrics 21(2), 1979.
    [2] R. L. Iman, W. J. Conover, A distribution-free approach to inducing rank correlation among
        input variables, Communications in Statistics B11(3), 1982.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from hwprofiles import GpuProfile
from hwprofiles.joint import log_covariance
from hwprofiles.scaling import operator_keys, parameter_path
from simulator.uncertainty.factors import Factor
from simulator.workload import stream

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Draw:
    """One world in which the model may be off.

    Attributes:
        logs: logarithm of each factor, by its name.
        parameters: logarithm of the factor on each parameter with a standard error, by GPU and path.
    """

    logs: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def factor(self, name: str) -> float:
        """How many times as long something takes; exactly 1 if it was not drawn."""
        log = self.logs.get(name, 0.0)
        return 1.0 if log == 0.0 else math.exp(log)


def draw_factors(
    factors: Sequence[Factor], gpus: Iterable[GpuProfile], count: int, seed: int
) -> tuple[Draw, ...]:
    """``count`` draws of every factor and of every parameter that has a standard error.

    A Latin hypercube [1]: each factor takes one value from each of ``count`` equally likely slices,
    in an order of its own, so that few draws cover its whole range. Each comes from its own named
    stream: another factor, or another deployment, changes nothing in it. Parameters of one operator
    keep their slices and are put into an order that has the correlations of their errors [2].

    Args:
        factors: what may be off.
        gpus: profiles of the deployment.
        count: how many draws.
        seed: of the streams.
    """
    logs = {f.name: f.sigma * _normals(count, seed, f.name) for f in factors}
    known = {gpu.name: gpu for gpu in gpus}
    drawn = {name: _parameters(gpu, count, seed) for name, gpu in known.items()}
    return tuple(
        Draw(
            {name: float(values[i]) for name, values in logs.items()},
            {
                name: {path: float(values[i]) for path, values in paths.items()}
                for name, paths in drawn.items()
            },
        )
        for i in range(count)
    )


def _parameters(gpu: GpuProfile, count: int, seed: int) -> dict[str, FloatArray]:
    """Logarithm of the factor on every kernel parameter with a standard error, in each draw."""
    found: dict[str, FloatArray] = {}
    for family in gpu.kernels:
        for key, params in operator_keys(gpu, family):
            names, covariance = log_covariance(params)
            if not names:
                continue
            spread = np.sqrt(np.diag(covariance))
            paths = [parameter_path(key, name) for name in names]
            alone = np.array([_normals(count, seed, f"{gpu.name} {path}") for path in paths])
            together = _ordered(alone, covariance / np.outer(spread, spread))
            found |= {p: s * row for p, s, row in zip(paths, spread, together, strict=True)}
    return found


def _ordered(alone: FloatArray, correlation: FloatArray) -> FloatArray:
    """Rows in another order each, so that they have about the correlations wanted.

    Each keeps its values, and so its slices; the order is that of correlated normals [2].
    """
    if np.allclose(correlation, np.eye(len(correlation)), atol=1e-9):
        return alone
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    ranks = np.argsort(np.argsort(root @ alone, axis=1), axis=1)
    return np.take_along_axis(np.sort(alone, axis=1), ranks, axis=1)


def _normals(count: int, seed: int, name: str) -> FloatArray:
    random = stream(seed, f"uncertainty {name}")
    slices = random.permutation(count)
    return np.asarray(ndtri((slices + random.random(count)) / count), dtype=np.float64)
