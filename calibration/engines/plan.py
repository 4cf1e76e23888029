"""What is fitted of each engine, and what is believed before any run is seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.validation.serving.doubts import doubt
from simulator.validation.serving.runs import MeasuredRun
from simulator.validation.serving.split import fitted

FloatArray = NDArray[np.float64]
Shape = Literal["log", "inverse", "linear"]


@dataclass(frozen=True, slots=True)
class Prior:
    """What is believed of a constant.

    Attributes:
        centre: its value, in its unit.
        width: standard deviation: of the logarithm, or in its unit where ``shape`` is linear.
        shape: ``log``: positive, times are linear in it; ``inverse``: a share of at most 1, times are
            linear in one over it; ``linear``: may be negative.
    """

    centre: float
    width: float
    shape: Shape = "log"

    def value(self, x: float) -> float:
        """The constant whose coordinate is ``x`` widths from the centre; a share is at most 1."""
        if self.shape == "linear":
            return self.centre + x * self.width
        found = self.centre * math.exp(x * self.width)
        return min(found, 1.0) if self.shape == "inverse" else found

    def drive(self, x: FloatArray) -> FloatArray:
        """What simulated times are about linear in, at coordinates ``x``, relative to the centre."""
        if self.shape == "linear":
            return x
        if self.shape == "inverse":
            return np.maximum(np.exp(-x * self.width), self.centre)
        return np.exp(x * self.width)

    @property
    def top(self) -> float:
        """Largest coordinate."""
        return -math.log(self.centre) / self.width if self.shape == "inverse" else math.inf


PRIORS: Mapping[str, Prior] = {
    "c0_s": Prior(0.6e-3, 0.7),
    "c0_gpu_s": Prior(0.0, 4e-6, "linear"),
    "c0_experts_s": Prior(0.0, 20e-6, "linear"),
    "c0_experts_bf16_s": Prior(0.0, 20e-6, "linear"),
    "c1_s": Prior(25e-6, 0.5),
    "eager_layer_s": Prior(0.6e-3, 0.7),
    "front_s": Prior(0.025, 0.7),
    "front_gpu_s": Prior(0.0, 5e-3, "linear"),
    "sustained_bf16": Prior(0.9, 0.15, "inverse"),
    "sustained_fp8": Prior(0.75, 0.2, "inverse"),
    "sustained_attention": Prior(0.9, 0.15, "inverse"),
    "sustained_experts": Prior(0.5, 0.5, "inverse"),
    "sustained_experts_fp8": Prior(0.6, 0.4, "inverse"),
}
"""The same for all engines. ``c0_s``, ``c1_s``: 0.2 to 1.0 ms a step and 20 to 50 µs a sequence are found for
dense models on Hopper. ``eager_layer_s``: some twenty (dense) to eighty (experts) launches of 10 to 15 µs.
``front_s``: tens of milliseconds. Shares: the clocks a GPU keeps under a long fp8 load are 0.6 to 0.9 of those of a short
benchmark; attention reads caches in pages, of lengths that vary; routed experts are loaded unevenly, which benchmarks with uniform routing do not show."""

DENSE = ("c0_s", "c0_gpu_s", "c1_s", "eager_layer_s", "front_s")


@dataclass(frozen=True, slots=True)
class Generation:
    """Versions of an engine that share constants.

    Attributes:
        engine: name of the profile.
        version: beginning of the versions; empty: all that no other generation names.
        constants: what its runs tell.
    """

    engine: str
    version: str
    constants: tuple[str, ...]

    def runs(self, runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
        """Those of this generation that may be fitted: nothing is wrong with them that is known."""
        return [run for run in runs if generation_of(run) is self and _usable(run)]


GENERATIONS = (
    Generation(
        "vllm",
        "",
        (
            *DENSE,
            "sustained_fp8",
            "sustained_attention",
            "c0_experts_bf16_s",
            "sustained_experts",
        ),
    ),
    Generation(
        "trtllm",
        "1.0",
        (*DENSE, "sustained_bf16", "sustained_fp8", "c0_experts_s", "sustained_experts_fp8"),
    ),
    Generation(
        "trtllm",
        "",
        (
            *DENSE,
            "front_gpu_s",
            "sustained_fp8",
            "c0_experts_s",
            "c0_experts_bf16_s",
            "sustained_experts",
            "sustained_experts_fp8",
        ),
    ),
    Generation(
        "sglang",
        "",
        (*DENSE, "sustained_bf16", "sustained_fp8", "c0_experts_s", "sustained_experts_fp8"),
    ),
)
"""In order: the first that fits a run is its own. TensorRT-LLM 1.0 (2025) and the releases after it differ
in their executor (scheduling overlapped with the GPU, dependent launches), so in their overheads."""


def generation_of(run: MeasuredRun) -> Generation | None:
    """The generation of a run; None for an engine that is not fitted."""
    for one in GENERATIONS:
        if one.engine == run.engine and run.version.startswith(one.version):
            return one
    return None


def _usable(run: MeasuredRun) -> bool:
    return fitted(run) and run.usable and not run.queue_dominated and not doubt(run)


def deployment_of(run: MeasuredRun) -> str:
    """Name of a run's deployment."""
    return f"{run.engine} {run.model.rsplit('/', 1)[-1]} {run.gpu} {run.layout}"


def thinned(runs: Sequence[MeasuredRun], most: int, budget: float) -> list[MeasuredRun]:
    """At most ``most`` runs of each deployment, evenly over prompt length, output length and load.

    Args:
        runs: what may be fitted.
        most: runs of a deployment.
        budget: output tokens of all requests in flight; runs with more, slow to simulate, are left out.
    """
    kept: list[MeasuredRun] = []
    for name in dict.fromkeys(map(deployment_of, runs)):
        own = [r for r in runs if deployment_of(r) == name and r.concurrency * r.osl <= budget]
        own.sort(key=lambda r: (r.concurrency, r.isl, r.osl, r.row))
        count = min(most, len(own))
        kept += [own[round(i * (len(own) - 1) / max(count - 1, 1))] for i in range(count)]
    return kept
