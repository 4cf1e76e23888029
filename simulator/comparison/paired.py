"""``compare``: a disaggregated scenario and its colocated twin, on the same requests.

The two runs share arrivals and lengths (common random numbers), so that a difference between them
is the layouts' and not the draw's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from simulator.analysis import analyze
from simulator.analysis.bounds import finite
from simulator.comparison.twins import Inventory, cost_twins, inventory, inventory_twin
from simulator.comparison.verdict import verdict
from simulator.engine import simulate_deployment
from simulator.errors import InputError, suggest
from simulator.metrics import Interval, Summary, attains, block_bootstrap, summarize
from simulator.run import Run
from simulator.scenario import SLO, Deployment, Scenario
from simulator.workload import Requests

Twin = Literal["inventory", "cost"]
Progress = Callable[[str, int, int], None]

TWINS: tuple[Twin, ...] = ("inventory", "cost")
SCHEMA = 1
SCREENING_REQUESTS = 2000
"""Requests of a screening run: the first so many of the workload."""

_MOST_BLOCKS = 2000


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: what was simulated, and what came out."""

    scenario: Scenario
    run: Run
    summary: Summary


@dataclass(frozen=True, slots=True)
class Candidate:
    """A colocated layout that was screened for the cost twin.

    Attributes:
        layout: GPU type, TP and instances, such as ``6 × h100_sxm TP4``.
        usd_per_hour: its price [USD/h].
        load: highest closed-form load on the whole workload; None if the arrival rate is unknown.
        slo_attainment: share of the screening requests that met every target; None without one.
        e2e_mean_s: their mean end-to-end latency [s].
        chosen: whether it became the twin.
    """

    layout: str
    usd_per_hour: float
    load: float | None
    slo_attainment: float | None
    e2e_mean_s: float | None
    chosen: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A disaggregated scenario and its colocated twin on the same requests.

    Attributes:
        twin: how the twin was defined, ``inventory`` or ``cost``.
        how: the same in one sentence, with the layout found.
        disaggregated: the scenario given.
        colocated: the twin.
        gain: attainment of the disaggregated side minus that of the twin, with an interval that
            covers the course of this one run (paired by request, moving blocks); None without
            targets, or for less than two requests.
        verdict: which is better at what, in one sentence.
        notes: what the reader should know about the twin.
        screening: the layouts tried for a cost twin.
    """

    twin: Twin
    how: str
    disaggregated: Side
    colocated: Side
    gain: Interval | None
    verdict: str
    notes: tuple[str, ...]
    screening: tuple[Candidate, ...]

    @property
    def slo(self) -> SLO | None:
        """The targets both sides were held to."""
        return self.disaggregated.scenario.slo

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able form: both summaries (schema of ``simulate --json``), gain, verdict."""
        gain = self.gain
        return {
            "schema": SCHEMA,
            "scenario": self.disaggregated.scenario.name,
            "twin": self.twin,
            "how": self.how,
            "verdict": self.verdict,
            "slo_attainment_gain": None
            if gain is None
            else {
                "mean": gain.mean,
                "lo": gain.lo,
                "hi": gain.hi,
                "level": gain.level,
                "rule": gain.rule,
            },
            "disaggregated": _side(self.disaggregated),
            "colocated": _side(self.colocated),
            "notes": list(self.notes),
            "screening": [
                {
                    "layout": c.layout,
                    "usd_per_hour": c.usd_per_hour,
                    "load": c.load,
                    "slo_attainment": c.slo_attainment,
                    "e2e_mean_s": c.e2e_mean_s,
                    "chosen": c.chosen,
                }
                for c in self.screening
            ],
        }


def _side(side: Side) -> dict[str, Any]:
    pools = [
        {"name": p.name, "role": p.role, "gpu": p.gpu.name, "tp": p.tp, "instances": p.instances}
        for p in side.run.deployment.pools
    ]
    return {
        "gpus": side.run.deployment.gpus,
        "layout": pools,
        "summary": side.summary.to_dict(),
    }


def compare(
    scenario: Scenario,
    *,
    twin: Twin = "inventory",
    seed: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate a disaggregated scenario and its colocated twin on the same requests.

    Args:
        scenario: a disaggregated scenario.
        twin: ``inventory``: the same GPUs by type, each type its own colocated pool. ``cost``: the
            best homogeneous colocated layout of at most the same price per hour, over the GPU
            types of the scenario and the TP degrees that the model allows. The best of a short
            screening run each is taken; see ``Comparison.how``.
        seed: replaces the scenario's seed.
        progress: called now and then as ``progress(what, done, total)``.

    Raises:
        InputError: the scenario is colocated, cannot be built, or has no possible twin.
    """
    if twin not in TWINS:
        raise InputError(f"twin: found {twin!r}; {suggest(str(twin), TWINS)}")
    if seed is not None:
        scenario = scenario.with_overrides([f"seed={seed}"])
    deployment = scenario.deployment()
    stock = inventory(scenario, deployment)
    requests = scenario.requests()
    candidates: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()
    # the twin first: if it is not possible, nothing has been simulated in vain
    if twin == "inventory":
        other, how, notes = inventory_twin(scenario, stock)
    else:
        other, how, candidates = _cost_twin(scenario, deployment, stock, requests, progress)
    twin_deployment = other.deployment()
    ours = _simulated(scenario, deployment, requests, "disaggregated", progress)
    theirs = _simulated(other, twin_deployment, requests, "colocated", progress)
    gain = _gain(ours.run, theirs.run, scenario.slo)
    return Comparison(
        twin=twin,
        how=how,
        disaggregated=ours,
        colocated=theirs,
        gain=gain,
        verdict=verdict(ours.summary, theirs.summary, scenario.slo, gain),
        notes=notes,
        screening=candidates,
    )


def _simulated(
    scenario: Scenario,
    deployment: Deployment,
    requests: Requests,
    what: str,
    progress: Progress | None,
) -> Side:
    report = None if progress is None else partial(progress, what)
    run = simulate_deployment(deployment, requests, seed=scenario.seed, progress=report)
    return Side(scenario, run, summarize(run, scenario.slo))


def _cost_twin(
    scenario: Scenario,
    deployment: Deployment,
    stock: tuple[Inventory, ...],
    requests: Requests,
    progress: Progress | None,
) -> tuple[Scenario, str, tuple[Candidate, ...]]:
    """The best layout for the money: no load above 1, then attainment, then mean latency."""
    budget = deployment.usd_per_hour
    layouts = cost_twins(scenario, stock, budget)
    head = requests.head(SCREENING_REQUESTS)
    scored: list[tuple[tuple[float, ...], int, Candidate]] = []
    for i, (twin, layout) in enumerate(layouts):
        side = _simulated(twin, layout, head, f"screening {i + 1} of {len(layouts)}", progress)
        load = finite(analyze(layout, requests, slo=scenario.slo).load)
        met, latency = side.summary.slo_attainment, side.summary.e2e_s["mean"]
        pool = layout.pools[0]
        seen = Candidate(
            layout=f"{pool.instances} × {pool.gpu.name} {pool.parallel.label}",
            usd_per_hour=layout.usd_per_hour,
            load=load,
            slo_attainment=met,
            e2e_mean_s=latency,
            chosen=False,
        )
        rank = (
            max(load if load is not None else 0.0, 1.0),
            -(met or 0.0),
            latency or float("inf"),
            layout.usd_per_hour,
        )
        scored.append((rank, i, seen))
    best = min(scored, key=lambda entry: entry[:2])[1]
    screened = tuple(replace(c, chosen=i == best) for _, i, c in scored)
    aim = "mean latency" if scenario.slo is None else "attainment, then mean latency"
    one = len(layouts) == 1
    how = (
        f"The best homogeneous colocated layout of at most {budget:.2f} USD/h: "
        f"{screened[best].layout} at {screened[best].usd_per_hour:.2f} USD/h, "
        + (
            "the only one possible."
            if one
            else f"chosen from {len(layouts)} on the first {len(head)} requests "
            f"(no load above 1, then {aim})."
        )
    )
    return layouts[best][0], how, screened


def _gain(ours: Run, theirs: Run, slo: SLO | None) -> Interval | None:
    """Difference of the attainments, paired request by request, in order of arrival."""
    if slo is None or len(ours.requests) < 2:
        return None
    difference = attains(ours, slo).astype(np.float64) - attains(theirs, slo)
    # of a long run, means of consecutive requests: as good for a mean, and quick to resample
    group = -(-difference.size // _MOST_BLOCKS)
    whole = difference[: difference.size // group * group].reshape(-1, group).mean(axis=1)
    rng = np.random.default_rng(ours.seed)
    found = block_bootstrap(whole, lambda v: float(v.mean()), rng=rng)
    mean = float(difference.mean())
    rule = found.rule if group == 1 else f"{found.rule} × {group}"
    return Interval(mean, min(found.lo, mean), max(found.hi, mean), found.level, rule)
