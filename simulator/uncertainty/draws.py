"""A deployment whose kernels and engine are a draw from what is known about them.

A draw has three parts, independent of one another:

1. every fitted parameter moves by its standard error;
2. every *operator* takes ``exp(N(0, σ))`` times as long, one factor for all its calls in the draw, σ
   from its error on held-out shapes. Standard errors from thousands of rows are a fraction of a
   percent where held-out error is 5-15 %: without this factor a band is far too narrow;
3. the engine's own costs: overheads, front end, share of efficiency kept in long steps, and what a
   whole step does that no operator explains.

Two draws of the same number are equal, whatever is simulated with them and in which process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from hwprofiles import GpuProfile, KernelFamily, Param
from simulator.perf.step import StepModel
from simulator.scenario.deployment import Deployment, PoolPlan
from simulator.workload import stream

MAPE_TO_SIGMA = math.sqrt(math.pi / 2.0)
"""Standard deviation of a normal error over its mean absolute value [1]."""

UNKNOWN_ERROR = 0.15
"""Held-out error of an operator whose profile gives none: a calibrated one's 5-15 % [1], assumed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineSpread:
    """How far an engine's costs may be from its profile's: standard deviations of logarithms.

    The values make 90 % bands cover measured serving runs of deployments that were never fitted;
    see docs/accuracy.md.

    Attributes:
        overhead: per step and per sequence.
        front: front-end latency of a request.
        sustained: share of efficiency kept in long steps.
        step: a whole step.
    """

    overhead: float = 0.4
    front: float = 0.5
    sustained: float = 0.15
    step: float = 0.04


@dataclass(frozen=True, slots=True)
class Unsure:
    """A source of draws.

    Attributes:
        seed: of all draws.
        engine: spread of the engine's costs.
    """

    seed: int = 1
    engine: EngineSpread = EngineSpread()

    def normals(self, draw: int, what: str, count: int) -> list[float]:
        """Independent standard normals of one purpose of one draw."""
        rng = stream(self.seed, f"uncertainty.{draw}.{what}")
        return [float(z) for z in rng.standard_normal(count)]

    def factor(self, draw: int, what: str, sigma: float) -> float:
        """``exp(σ·z)`` of one purpose of one draw."""
        return math.exp(sigma * self.normals(draw, what, 1)[0])


def drawn(deployment: Deployment, draw: int, unsure: Unsure | None = None) -> Deployment:
    """The deployment as it would be if the truth were this draw.

    Memory, limits and links stay; pools of one GPU type share their draw.

    Args:
        deployment: as its profiles say.
        draw: number of the draw.
        unsure: what is unsure; by default all of it, with seed 1.
    """
    unsure = unsure or Unsure()
    pools = tuple(_pool(pool, draw, unsure) for pool in deployment.pools)
    front = unsure.factor(draw, "front", unsure.engine.front)
    return replace(deployment, pools=pools, router_latency_s=front * deployment.router_latency_s)


def _pool(pool: PoolPlan, draw: int, unsure: Unsure) -> PoolPlan:
    step = _step(pool.step, draw, unsure)
    most = pool.table.max_tokens
    table = step.table(pool.max_num_seqs, most, rounds=pool.role != "prefill")
    return replace(pool, step=step, table=table)


def _step(step: StepModel, draw: int, unsure: Unsure) -> StepModel:
    spread = unsure.engine
    overhead = unsure.factor(draw, "overhead", spread.overhead)
    whole = unsure.factor(draw, "step", spread.step)
    kept = unsure.factor(draw, "sustained", spread.sustained)
    experts = step.sustained_experts
    return replace(
        step,
        gpu=drawn_gpu(step.gpu, draw, unsure, whole),
        c0_s=whole * overhead * step.c0_s,
        c1_s=whole * overhead * step.c1_s,
        host_s=whole * step.host_s,
        sustained=min(1.0, kept * step.sustained),
        sustained_experts=None if experts is None else min(1.0, kept * experts),
    )


def drawn_gpu(gpu: GpuProfile, draw: int, unsure: Unsure, whole: float = 1.0) -> GpuProfile:
    """The GPU with its kernels drawn.

    Args:
        gpu: as its profile says.
        draw: number of the draw.
        unsure: what is unsure.
        whole: factor on the time of everything [1].
    """
    families = tuple(_family(gpu.name, family, draw, unsure, whole) for family in gpu.kernels)
    return replace(gpu, kernels=families)


def _family(
    gpu: str, family: KernelFamily, draw: int, unsure: Unsure, whole: float
) -> KernelFamily:
    changed: dict[str, Any] = {}
    for field in fields(family):
        found = getattr(family, field.name)
        if field.name == "name" or found is None:
            continue
        what = f"{gpu}.{field.name}"
        z = unsure.normals(draw, what, 1)[0]
        changed[field.name] = _operator(found, z, what, draw, unsure, whole)
    return replace(family, **changed)


def _operator(found: Any, z: float, what: str, draw: int, unsure: Unsure, whole: float) -> Any:
    """Parameters of an operator: one set, (type, set) pairs, or a set for each number of GPUs."""
    if isinstance(found, tuple):
        return tuple(_operator(item, z, what, draw, unsure, whole) for item in found)
    if not is_dataclass(found):
        return found
    error = getattr(found, "error", None)
    sigma = MAPE_TO_SIGMA * (UNKNOWN_ERROR if error is None else error.value)
    factor = whole * math.exp(sigma * z)
    params = [f.name for f in fields(found) if isinstance(getattr(found, f.name), Param)]
    moves = unsure.normals(draw, f"{what}.stderr", len(params))
    changed = {
        name: _param(getattr(found, name), name, factor, move)
        for name, move in zip(params, moves, strict=True)
        if name != "error"
    }
    return replace(found, **changed)  # type: ignore[type-var]  # a frozen parameter set


def _param(param: Param, name: str, factor: float, move: float) -> Param:
    """A parameter moved by its standard error, and scaled so that times take ``factor`` longer."""
    value = param.value
    if param.stderr:
        value = max(value + move * param.stderr, 0.2 * value)
    if name.endswith("_eff") or param.unit == "bytes/s":
        value /= factor
    elif param.unit == "s":
        value *= factor
    return replace(param, value=value)


def quantile(values: list[float], q: float) -> float:
    """Quantile of the finite values; NaN without any."""
    found = [v for v in values if math.isfinite(v)]
    return float(np.quantile(found, q)) if found else math.nan
