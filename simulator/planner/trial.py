"""One simulation of one layout, and what a plan keeps of it.

A trial is a pure function of its key: the same layout, seed and size give the same outcome in any
process, which is what makes a ledger of outcomes a complete state of a search.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simulator.analysis import analyze
from simulator.engine import simulate_deployment
from simulator.metrics import (
    PARTS,
    Stability,
    attains,
    block_bootstrap,
    completed,
    run_limits,
    stability,
    tpot,
    ttft,
    waterfall,
)
from simulator.planner.layout import Layout
from simulator.run import Run
from simulator.scenario import SLO, Scenario
from simulator.scenario.draw import draw_requests
from simulator.uncertainty import Draw, redrawn
from simulator.workload import Requests, stream

BATCHES = 8
"""Batches of consecutive requests per trial."""

_BOOTSTRAP_GROUPS = 2000


@dataclass(frozen=True, slots=True)
class Question:
    """What is planned for; travels to worker processes.

    Attributes:
        base: the scenario.
        slo: the targets.
        prices: of one GPU, by GPU type [USD/h].
    """

    base: Scenario
    slo: SLO
    prices: Mapping[str, float]

    def requests(self, seed: int, count: int | None, rate_scale: float = 1.0) -> Requests:
        """Its workload: ``count`` requests of one seed, arriving ``rate_scale`` times as fast.

        Another layout, another rate and a larger count see the same sequence (common random
        numbers). A trace is the same for every seed.
        """
        workload = self.base.config.workload
        if workload.requests is not None and count is not None:
            workload = workload.model_copy(update={"requests": count})
        drawn = draw_requests(workload, seed)
        if count is not None and count < len(drawn) and drawn.closed_loop is None:
            drawn = drawn.head(count)
        return drawn if rate_scale == 1.0 else drawn.faster(rate_scale)


@dataclass(frozen=True, slots=True)
class Trial:
    """A simulation to be made.

    Attributes:
        layout: what is simulated.
        seed: of arrivals and lengths.
        requests: how many arrive; None for all of a trace or a closed loop.
        skip: the first so many are not counted: the empty system is filling.
        tail: the last so many are not counted: the system is draining around them.
        rate_scale: arrivals come so many times as fast.
    """

    layout: Layout
    seed: int
    requests: int | None
    skip: int = 0
    tail: int = 0
    rate_scale: float = 1.0

    @property
    def key(self) -> str:
        """Its name in a ledger."""
        parts = asdict(self)
        return json.dumps(parts, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial found. Latencies are means and percentiles over counted, completed requests.

    Attributes:
        simulated: requests simulated.
        counted: of these, requests counted.
        hits: counted requests that met every target.
        batch_hits: the same in ``BATCHES`` batches of consecutive requests.
        batch_sizes: requests of these.
        ttft_mean_s: time to first token [s]; None if nobody got one.
        ttft_p99_s: its 99th percentile [s].
        tpot_mean_s: time per output token [s]; None if no request has two.
        tpot_p99_s: its 99th percentile [s].
        output_tokens_per_s: output tokens of counted requests over the time they arrived in [1/s].
        stable: whether the named test finds no growing backlog.
        conclusive: whether that test could tell.
        why: its sentence.
        missed_ttft: share of counted requests beyond the TTFT target.
        missed_tpot: share beyond the TPOT target.
        unserved: share that did not complete.
        slow_part: largest part of the TTFT waterfall among those beyond the TTFT target.
        bootstrap: intervals of ``attainment``, ``ttft_s`` and ``tpot_s`` as [lo, hi], and ``block``,
            where there is only one replay; None for synthetic workloads.
    """

    simulated: int
    counted: int
    hits: int
    batch_hits: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    ttft_mean_s: float | None
    ttft_p99_s: float | None
    tpot_mean_s: float | None
    tpot_p99_s: float | None
    output_tokens_per_s: float | None
    stable: bool
    conclusive: bool
    why: str
    missed_ttft: float
    missed_tpot: float
    unserved: float
    slow_part: str | None
    bootstrap: dict[str, list[float]] | None = None

    @property
    def attainment(self) -> float:
        """Share of counted requests that met every target."""
        return self.hits / self.counted

    @property
    def overloaded(self) -> bool:
        """Whether the named test says so, and could tell."""
        return not self.stable and self.conclusive

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Outcome:
        """From a ledger row."""
        lists = {key: tuple(raw[key]) for key in ("batch_hits", "batch_sizes")}
        return cls(**{**raw, **lists})


def run_trial(question: Question, trial: Trial, world: Draw | None = None) -> Outcome:
    """Simulate a layout.

    Args:
        question: scenario, targets and prices.
        trial: what to simulate.
        world: what the model is taken to be off by; None: nothing.

    Raises:
        InputError: the layout cannot be built.
    """
    slo = question.slo
    deployment = trial.layout.scenario(question.base, slo=slo).deployment()
    if world is not None:
        deployment = redrawn(deployment, world)
    requests = question.requests(trial.seed, trial.requests, trial.rate_scale)
    run = simulate_deployment(deployment, requests, seed=trial.seed)
    found = stability(run, analyze(deployment, requests, slo=slo))
    return outcome_of(run, slo, found, trial)


def outcome_of(run: Run, slo: SLO, found: Stability, trial: Trial) -> Outcome:
    """What a plan keeps of a run."""
    arrival = run.requests["arrival_s"].to_numpy(dtype=np.float64)
    order = np.argsort(arrival, kind="stable")
    kept = order[trial.skip : len(order) - trial.tail]
    met = attains(run, slo)[kept]
    done = completed(run)[kept]
    first, each = ttft(run)[kept], tpot(run)[kept]
    ttft_limit, tpot_limit = run_limits(run, slo)
    late, slow = done & (first > ttft_limit[kept]), done & (each > tpot_limit[kept])
    batches = np.array_split(met, min(BATCHES, met.size))
    tokens = float(run.requests["output_tokens"].to_numpy()[kept][done].sum())
    span_s = float(arrival[kept[-1]] - arrival[kept[0]])
    replayed = not run.workload.stationary
    return Outcome(
        simulated=len(order),
        counted=int(met.size),
        hits=int(met.sum()),
        batch_hits=tuple(int(b.sum()) for b in batches),
        batch_sizes=tuple(int(b.size) for b in batches),
        ttft_mean_s=_mean(first[done]),
        ttft_p99_s=_p99(first[done]),
        tpot_mean_s=_mean(each[done]),
        tpot_p99_s=_p99(each[done]),
        output_tokens_per_s=tokens / span_s if span_s > 0.0 else None,
        stable=found.stable,
        conclusive=found.conclusive,
        why=found.reason,
        missed_ttft=float(late.mean()),
        missed_tpot=float(slow.mean()),
        unserved=float(1.0 - done.mean()),
        slow_part=_slow_part(run, kept[late]),
        bootstrap=_bootstrap(met, first[done], each[done]) if replayed else None,
    )


def _mean(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def _p99(values: np.ndarray) -> float | None:
    values = values[~np.isnan(values)]
    return float(np.quantile(values, 0.99)) if values.size else None


def _slow_part(run: Run, rows: np.ndarray) -> str | None:
    if not rows.size:
        return None
    means = waterfall(run).iloc[rows].mean()
    return str(max(PARTS, key=lambda name: float(means[name])))


def block_length(n: int) -> int:
    """Requests of one bootstrap block: n^(2/3), so that a block spans whole bursts.

    Optimal for a variance is n^(1/3) and for a tail share n^(1/4) under short memory; a trace has
    bursts of minutes, and blocks that are too short make intervals too narrow, so that the error
    is made on the safe side.
    """
    return int(max(1, min(n, math.ceil(n ** (2.0 / 3.0)))))


def _bootstrap(
    met: np.ndarray, first: np.ndarray, each: np.ndarray
) -> dict[str, list[float]] | None:
    """Moving-block intervals of one replay; None for fewer than two requests."""
    found: dict[str, list[float]] = {}
    series = {"attainment": met.astype(np.float64), "ttft_s": first, "tpot_s": each}
    for name, values in series.items():
        values = values[~np.isnan(values)]
        if values.size < 2:
            continue
        # of a long replay, means of neighbours: as good for a mean, and quick to resample
        group = -(-values.size // _BOOTSTRAP_GROUPS)
        means = values[: values.size // group * group].reshape(-1, group).mean(axis=1)
        block = max(1, round(block_length(values.size) / group))
        interval = block_bootstrap(
            means, lambda v: float(v.mean()), rng=stream(0, f"bootstrap.{name}"), block=block
        )
        mean = float(values.mean())
        found[name] = [min(interval.lo, mean), max(interval.hi, mean)]
        if name == "attainment":
            found["block"] = [float(block * group)]
    return found or None
