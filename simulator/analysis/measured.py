"""How much of what a deployment does with a workload rests on measurements of its kernels.

The prompts and outputs of the workload decide the sizes; what is not in them, how many sequences
decode together and how many prompt tokens share a step, is given by a run or by the closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.analysis.bounds import Bounds
from simulator.analysis.demand import Demand, FloatArray
from simulator.perf.evaluated import (
    Decodes,
    Evaluation,
    Prefills,
    decode_evaluations,
    prefill_evaluations,
)
from simulator.perf.ranges import Finding, Phase, findings, sentences
from simulator.perf.step import StepModel
from simulator.scenario.deployment import Deployment, PoolPlan
from simulator.workload import Requests

MOST = 2048
"""Requests looked at: of more, every so-manyth in order of length, the longest included."""


@dataclass(frozen=True, slots=True)
class Operating:
    """At what sizes the instances of a pool work.

    Attributes:
        batch: sequences of an attention rank that decode together.
        tokens: prompt tokens of a step of a rank that prefills.
    """

    batch: float = 1.0
    tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What of the simulated time is not of kernels measured at these sizes on this GPU.

    Attributes:
        findings: by pool and phase, largest share first.
        phases: the (pool, phase) pairs looked at.
    """

    findings: tuple[Finding, ...] = ()
    phases: tuple[tuple[str, str], ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a report must say."""
        return tuple(sentences(self.findings))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each phase's time that rests on measurements, of the pool with the least [1]."""
        found: dict[str, float] = {}
        for pool, phase in self.phases:
            rest = sum(f.share for f in self.findings if (f.pool, f.phase) == (pool, phase))
            found[phase] = min(found.get(phase, 1.0), max(0.0, 1.0 - rest))
        return found

    def to_list(self) -> list[dict[str, Any]]:
        """The ``not_measured`` list of the JSON contract (docs/json.md)."""
        return [found.to_dict() for found in self.findings]


def measured(
    deployment: Deployment, requests: Requests, at: Mapping[str, Operating] | None = None
) -> Measured:
    """Which operators run outside the sizes they were measured at, pool by pool.

    Args:
        deployment: what serves.
        requests: what is served.
        at: at what sizes a pool works, by its name; one sequence and one prompt at a time for those
            left out.
    """
    if not len(requests):
        return Measured()
    demand = Demand.of(deployment, requests)
    looked: dict[tuple[str, Phase], list[Finding]] = {}
    for pool in deployment.pools:
        if not isinstance(pool.step, StepModel):  # times of another origin: nothing to say
            continue
        for phase, evaluations in _phases(pool, demand, (at or {}).get(pool.name, Operating())):
            looked[pool.name, phase] = findings(
                evaluations, phase=phase, step=pool.step, pool=pool.name
            )
    return Measured(tuple(f for some in looked.values() for f in some), tuple(looked))


def _phases(
    pool: PoolPlan, demand: Demand, at: Operating
) -> Iterator[tuple[Phase, list[Evaluation]]]:
    if pool.role != "decode":
        prompt = _some(demand.prompt.astype(np.float64))
        budget = float(pool.max_num_batched_tokens)
        cut = pool.role == "colocated"
        shared = np.maximum(prompt, min(at.tokens, budget))
        x = Prefills(prompt, np.minimum(shared, budget) if cut else shared)
        yield "prefill", prefill_evaluations(pool.step, x)
    if pool.role != "prefill" and demand.steps.any():
        context = demand.first_context + 0.5 * np.maximum(demand.steps - 1, 0)
        order = _order(context)
        count = demand.steps[order].astype(np.float64)
        y = Decodes(count, context[order].astype(np.float64), max(1.0, at.batch))
        yield "decode", decode_evaluations(pool.step, y)


def _order(values: FloatArray) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Positions of at most ``MOST`` values that stand for all, ascending, the largest included."""
    order = np.argsort(values, kind="stable")
    every = -(-order.size // MOST)
    return order[::-1][::every][::-1]


def _some(values: FloatArray) -> FloatArray:
    return np.asarray(values[_order(values)], dtype=np.float64)


def operating(deployment: Deployment, bounds: Bounds) -> dict[str, Operating]:
    """Where the pools work by the closed form: the batch at full load, times the load."""
    found = {}
    for pool in deployment.pools:
        if pool.role != "prefill":
            bound = bounds.pool(pool.name)
            load = 1.0 if bound.load is None else min(1.0, bound.load)
            found[pool.name] = Operating(batch=bound.batch * load / pool.parallel.attention_dp)
    return found
