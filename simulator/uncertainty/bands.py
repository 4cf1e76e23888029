"""Bands of a simulation's results: the same requests, served by many draws of the deployment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import joblib  # type: ignore[import-untyped]  # no stubs are published

from simulator.engine import simulate_deployment
from simulator.metrics import summarize
from simulator.scenario import SLO, Scenario
from simulator.scenario.deployment import Deployment
from simulator.uncertainty.draws import Unsure, drawn, quantile
from simulator.workload import Requests

LOW, HIGH = 0.05, 0.95
"""Ends of a band: nine draws of ten lie inside."""

METRICS: Mapping[str, tuple[str, ...]] = {
    "ttft_s.mean": ("ttft_s", "mean"),
    "ttft_s.p99": ("ttft_s", "p99"),
    "tpot_s.mean": ("tpot_s", "mean"),
    "tpot_s.p99": ("tpot_s", "p99"),
    "e2e_s.p50": ("e2e_s", "p50"),
    "slo_attainment": ("slo_attainment",),
    "output_tokens_per_s_per_gpu": ("throughput", "output_tokens_per_s_per_gpu"),
    "usd_per_m_output_tokens": ("cost", "usd_per_m_output_tokens"),
}
"""What has a band, and where the JSON of a summary holds it."""


@dataclass(frozen=True, slots=True)
class Band:
    """A result with its uncertainty.

    Attributes:
        value: with the profiles as they are.
        low: the 5 % quantile of the draws.
        median: their median.
        high: the 95 % quantile.
    """

    value: float
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Bands:
    """Bands of a simulation.

    Attributes:
        draws: how many.
        seed: of the draws.
        metrics: by the names of ``METRICS``; without targets there is no ``slo_attainment``.
        holds: share of draws that meet the targets; None without targets.
    """

    draws: int
    seed: int
    metrics: Mapping[str, Band]
    holds: float | None

    def to_dict(self) -> dict[str, Any]:
        """Part of the JSON contract."""
        bands = {
            name: {"value": b.value, "low": b.low, "median": b.median, "high": b.high}
            for name, b in self.metrics.items()
        }
        return {"draws": self.draws, "seed": self.seed, "level": HIGH - LOW, "holds": self.holds,
                "bands": bands}  # fmt: skip


def simulate_bands(
    scenario: Scenario,
    draws: int,
    *,
    seed: int | None = None,
    unsure: Unsure | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Bands:
    """Simulate a scenario with every draw of its deployment, on the same requests.

    Args:
        scenario: what to simulate.
        draws: how many, at least 2.
        seed: of the workload and the draws; the scenario's own if None.
        unsure: what is unsure; by default all of it.
        jobs: processes.
        progress: called as ``progress(done, all)``.

    Raises:
        InputError: the scenario cannot be built.
    """
    if draws < 2:
        raise ValueError(f"a band needs at least 2 draws, found {draws}")
    seed = scenario.seed if seed is None else seed
    unsure = unsure or Unsure(seed)
    return deployment_bands(
        scenario.deployment(),
        scenario.requests(seed),
        scenario.slo,
        draws,
        seed=seed,
        unsure=unsure,
        jobs=jobs,
        progress=progress,
    )


def deployment_bands(
    deployment: Deployment,
    requests: Requests,
    slo: SLO | None,
    draws: int,
    *,
    seed: int,
    unsure: Unsure,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Bands:
    """The same, from resolved objects."""
    base = _results(deployment, requests, slo, seed)
    found: list[dict[str, float]] = []
    for result in _all(deployment, requests, slo, seed, draws, unsure, jobs):
        found.append(result)
        if progress is not None:
            progress(len(found), draws)
    metrics = {
        name: Band(value, *(quantile([f[name] for f in found], q) for q in (LOW, 0.5, HIGH)))
        for name, value in base.items()
        if math.isfinite(value)
    }
    holds = None
    if slo is not None:
        holds = sum(f["slo_attainment"] >= slo.attainment for f in found) / draws
    return Bands(draws=draws, seed=unsure.seed, metrics=metrics, holds=holds)


def _all(
    deployment: Deployment,
    requests: Requests,
    slo: SLO | None,
    seed: int,
    draws: int,
    unsure: Unsure,
    jobs: int,
) -> Iterator[dict[str, float]]:
    if jobs == 1:
        for i in range(draws):
            yield _drawn_results(deployment, requests, slo, seed, i, unsure)
        return
    pool = joblib.Parallel(n_jobs=jobs, return_as="generator")
    call = joblib.delayed(_drawn_results)
    yield from pool(call(deployment, requests, slo, seed, i, unsure) for i in range(draws))


def _drawn_results(
    deployment: Deployment,
    requests: Requests,
    slo: SLO | None,
    seed: int,
    draw: int,
    unsure: Unsure,
) -> dict[str, float]:
    return _results(drawn(deployment, draw, unsure), requests, slo, seed)


def _results(
    deployment: Deployment, requests: Requests, slo: SLO | None, seed: int
) -> dict[str, float]:
    """The metrics of one run; NaN where there is none."""
    contract = summarize(simulate_deployment(deployment, requests, seed=seed), slo).to_dict()
    return {name: _value(contract, path) for name, path in METRICS.items()}


def _value(contract: Mapping[str, Any], path: tuple[str, ...]) -> float:
    found: Any = contract
    for key in path:
        found = None if found is None else found.get(key)
    return math.nan if found is None else float(found)
