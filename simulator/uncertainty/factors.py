"""What a deployment's times rest on and how far each may be off.

A kernel form fitted to thousands of rows knows its parameters to a fraction of a per cent and is
still 5-15 % off on shapes it has not seen. So each operator carries a *discrepancy*: a log-normal
factor whose spread is its held-out error, the same for all its calls in one draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hwprofiles.scaling import OperatorKey, held_out_error, operator_keys, scaled
from simulator.perf.step import StepModel
from simulator.scenario.deployment import Deployment
from simulator.uncertainty.spread import LINK, UNMEASURED_ERROR, EngineSpread

STEP, OVERHEAD, PREFILL, FRONT = "engine step", "engine overhead", "engine prefill", "front end"
TRANSFER = "link"

_PROBE = 1.25
_PROBE_SEQS, _PROBE_TOKENS = 4, 16


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that takes ``exp(N(0, sigma))`` times as long as modelled.

    Attributes:
        name: for reports, e.g. ``h100_sxm gemm bf16`` or ``engine overhead``.
        sigma: standard deviation of its logarithm [1].
        source: where ``sigma`` comes from.
        operator: the operator of a profile it is about; None for the engine's and the link's.
    """

    name: str
    sigma: float
    source: str
    operator: OperatorKey | None = None


def sigma_of(error: float) -> float:
    """Spread whose mean absolute log error is ``error`` [1]: E|N(0, σ)| = σ·√(2/π)."""
    return error * math.sqrt(math.pi / 2.0)


def factors_of(deployment: Deployment, spread: EngineSpread) -> tuple[Factor, ...]:
    """Every factor that moves a step or a transfer of a deployment, operators first.

    Pools on one GPU type and kernel family share their operators' factors.

    Args:
        deployment: what is simulated.
        spread: of its engine.
    """
    found: dict[OperatorKey, Factor] = {}
    for pool in deployment.pools:
        for key, params in operator_keys(pool.step.gpu, pool.step.operators_per_gpu.family):
            if key not in found and _felt(pool.step, key):
                found[key] = _discrepancy(key, params)
    return (*found.values(), *_engine_factors(deployment, spread))


def _felt(step: StepModel, key: OperatorKey) -> bool:
    """Whether an operator takes part in any step of an instance."""
    other = replace(step, gpu=scaled(step.gpu, {key: _PROBE}))
    return bool(other.table(_PROBE_SEQS, _PROBE_TOKENS) != step.table(_PROBE_SEQS, _PROBE_TOKENS))


def _discrepancy(key: OperatorKey, params: object) -> Factor:
    error = held_out_error(params)
    if error is None:
        text = f"assumed: {100 * UNMEASURED_ERROR:.0f} %, its profile gives no held-out error"
        return Factor(str(key), sigma_of(UNMEASURED_ERROR), text, key)
    text = f"held-out error of {100 * error:.1f} % in the profile of {key.gpu}"
    return Factor(str(key), sigma_of(error), text, key)


def _engine_factors(deployment: Deployment, spread: EngineSpread) -> tuple[Factor, ...]:
    steps = [pool.step for pool in deployment.pools]
    overhead = any(s.c0_s or s.c1_s or s.host_s for s in steps)
    source = "spread of measured runs around their simulation (docs/uncertainty.md)"
    some = [
        Factor(OVERHEAD, spread.overhead if overhead else 0.0, source),
        Factor(PREFILL, spread.prefill, source),
        Factor(FRONT, spread.front if deployment.router_latency_s else 0.0, source),
        Factor(STEP, spread.step, source),
        Factor(TRANSFER, LINK if deployment.link is not None else 0.0, "assumed"),
    ]
    return tuple(factor for factor in some if factor.sigma > 0.0)
