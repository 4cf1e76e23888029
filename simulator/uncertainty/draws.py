"""Draws of the factors: Latin hypercubes from named streams.

References:
    [1] M. D. McKay, R. J. Beckman, W. J. Conover, A comparison of three methods for selecting values
        of input variables in the analysis of output from a computer code, Technometrics 21(2), 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from hwprofiles import GpuProfile
from simulator.uncertainty.factors import Factor
from simulator.workload import stream


@dataclass(frozen=True, slots=True)
class Draw:
    """One world in which the model may be off.

    Attributes:
        logs: logarithm of each factor, by its name.
        normals: standard normals of parameters with a standard error, by GPU and path.
    """

    logs: Mapping[str, float] = field(default_factory=dict)
    normals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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
    stream: another factor, or another deployment, changes nothing in it. Parameters are drawn
    independently of one another.

    Args:
        factors: what may be off.
        gpus: profiles of the deployment.
        count: how many draws.
        seed: of the streams.
    """
    logs = {f.name: f.sigma * _normals(count, seed, f.name) for f in factors}
    known = {gpu.name: gpu for gpu in gpus}
    normals = {
        name: {
            path: _normals(count, seed, f"{name} {path}")
            for path, param in gpu.parameters()
            if param.stderr and path.startswith("kernels.") and not path.endswith(".error")
        }
        for name, gpu in known.items()
    }
    return tuple(
        Draw(
            {name: float(values[i]) for name, values in logs.items()},
            {
                name: {path: float(values[i]) for path, values in paths.items()}
                for name, paths in normals.items()
            },
        )
        for i in range(count)
    )


def _normals(count: int, seed: int, name: str) -> npt.NDArray[np.float64]:
    random = stream(seed, f"uncertainty {name}")
    slices = random.permutation(count)
    return np.asarray(ndtri((slices + random.random(count)) / count), dtype=np.float64)
