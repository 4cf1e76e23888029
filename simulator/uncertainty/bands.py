"""``uncertainty``: a scenario simulated in many worlds in which the model may be off.

Every world serves the same requests (common random numbers), so that a band shows what is not known
about the hardware and the engine, and nothing of the luck of the arrivals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.engine import simulate_deployment
from simulator.errors import InputError
from simulator.metrics import Summary, summarize
from simulator.scenario import SLO, Scenario
from simulator.scenario.deployment import Deployment
from simulator.uncertainty.draws import Draw, draw_factors
from simulator.uncertainty.drivers import explained
from simulator.uncertainty.factors import Factor, factors_of
from simulator.uncertainty.redraw import redrawn
from simulator.uncertainty.spread import SPREAD
from simulator.workload import Requests

DRAWS = 40
"""Draws by default: with a Latin hypercube, enough to place the ends of a 5-95 % band."""

MOST_DRAWS = 10_000
FEW_DRAWS = 20
"""Below it the ends of the band are the outermost draws, and reports say so."""

LEVEL = 0.9
"""Share of the draws between the ends of a band."""

Progress = Callable[[int, int], None]
FloatArray = npt.NDArray[np.float64]

METRICS: Mapping[str, tuple[str, str | None]] = {
    "ttft_s.mean": ("ttft_s", "mean"),
    "ttft_s.p50": ("ttft_s", "p50"),
    "ttft_s.p99": ("ttft_s", "p99"),
    "tpot_s.mean": ("tpot_s", "mean"),
    "tpot_s.p50": ("tpot_s", "p50"),
    "tpot_s.p99": ("tpot_s", "p99"),
    "slo_attainment": ("slo_attainment", None),
    "goodput_rps": ("goodput_rps", None),
    "usd_per_m_output_tokens": ("cost", "usd_per_m_output_tokens"),
}
"""What has a band: attribute of a ``Summary``, and the part of it."""


@dataclass(frozen=True, slots=True)
class Band:
    """Where a metric lies over the draws; None where it is undefined in all of them.

    Attributes:
        lo: 5 % quantile.
        median: 50 % quantile.
        hi: 95 % quantile.
    """

    lo: float | None
    median: float | None
    hi: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """What draws say about one scenario.

    Attributes:
        draws: how many.
        seed: of the draws and of the workload.
        values: metric of every draw, NaN where undefined, by name in ``METRICS``.
        factors: what was drawn.
        shares: by metric, share of its variance that each factor explains, by the factor's name;
            empty for a metric that does not vary.
        keeps_up: share of the draws in which the deployment keeps up with the workload.
        holds: share of the draws in which the attainment wanted is reached; None without targets.
    """

    draws: int
    seed: int
    values: Mapping[str, FloatArray]
    factors: tuple[Factor, ...]
    shares: Mapping[str, Mapping[str, float]]
    keeps_up: float
    holds: float | None

    def band(self, metric: str) -> Band:
        """The band of a metric.

        Args:
            metric: its name in ``METRICS``.
        """
        return band_of(self.values[metric])

    def driver(self, metric: str) -> tuple[str, float] | None:
        """The factor that explains most of a metric's variance, and its share; None: no variance."""
        shares = self.shares[metric]
        if not shares:
            return None
        name = max(shares, key=lambda n: shares[n])
        return name, shares[name]

    def to_dict(self) -> dict[str, Any]:
        """The ``uncertainty`` object of ``simulate --json`` (docs/json.md)."""
        bands: dict[str, Any] = {}
        for metric in METRICS:
            found = self.band(metric)
            where, _, part = metric.partition(".")
            target = bands.setdefault(where, {}) if part else bands
            target[part or where] = {"lo": found.lo, "median": found.median, "hi": found.hi}
        return {
            "draws": self.draws,
            "seed": self.seed,
            "level": LEVEL,
            **bands,
            "keeps_up": self.keeps_up,
            "holds": self.holds,
            "sources": [
                {
                    "name": factor.name,
                    "sigma": factor.sigma,
                    "source": factor.source,
                    "shares": {m: s[factor.name] for m, s in self.shares.items() if s},
                }
                for factor in self.factors
            ],
        }


def band_of(values: FloatArray) -> Band:
    """The 5-95 % band of a sample; NaN are left out."""
    known = values[~np.isnan(values)]
    if not known.size:
        return Band(None, None, None)
    tail = (1.0 - LEVEL) / 2.0
    # Hazen's rule: value i of n stands for the middle of its slice, which is what is drawn
    lo, median, hi = np.quantile(known, [tail, 0.5, 1.0 - tail], method="hazen")
    return Band(float(lo), float(median), float(hi))


def check_draws(draws: int, name: str = "draws") -> None:
    """Refuse a number of draws that makes no band.

    Raises:
        InputError: fewer than two, or more than ``MOST_DRAWS``.
    """
    if not 2 <= draws <= MOST_DRAWS:
        raise InputError(f"{name}: found {draws}; allowed: from 2 to {MOST_DRAWS:,} draws.")


def uncertainty(
    scenario: Scenario,
    *,
    draws: int = DRAWS,
    seed: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Bands:
    """Simulate a scenario in ``draws`` worlds in which the model may be off.

    Args:
        scenario: what to simulate.
        draws: how many worlds.
        seed: of the workload and of the draws; the scenario's if None.
        jobs: worker processes; -1 for one a core. The answer does not depend on it.
        progress: called as ``progress(worlds done, worlds)``.

    Raises:
        InputError: a number that is not allowed, or a scenario that cannot be built.
    """
    check_draws(draws)
    if jobs < 1 and jobs != -1:
        raise InputError(f"jobs: found {jobs}; allowed: at least 1, or -1 for one a core.")
    seed = scenario.seed if seed is None else seed
    deployment, slo = scenario.deployment(), scenario.slo
    factors = factors_of(deployment, SPREAD)
    worlds = draw_factors(factors, (pool.gpu for pool in deployment.pools), draws, seed)
    ask = _Ask(deployment, scenario.requests(seed), slo, seed)
    found: list[_World] = []
    for world in _simulated(ask, worlds, jobs):
        found.append(world)
        if progress is not None:
            progress(len(found), draws)
    values = {m: np.array([w.values[m] for w in found]) for m in METRICS}
    logs = {f.name: np.array([world.logs[f.name] for world in worlds]) for f in factors}
    return Bands(
        draws=draws,
        seed=seed,
        values=values,
        factors=factors,
        shares={m: explained(v, logs) for m, v in values.items()},
        keeps_up=float(np.mean([w.stable for w in found])),
        holds=None if slo is None else float(np.mean([_holds(w, slo) for w in found])),
    )


@dataclass(frozen=True, slots=True)
class _Ask:
    """What every world is asked; travels to worker processes."""

    deployment: Deployment
    requests: Requests
    slo: SLO | None
    seed: int


@dataclass(frozen=True, slots=True)
class _World:
    """What is kept of a world."""

    values: dict[str, float]
    stable: bool


def _simulated(ask: _Ask, worlds: Sequence[Draw], jobs: int) -> Iterator[_World]:
    if jobs == 1:
        yield from (_simulate(ask, world) for world in worlds)
        return
    import joblib  # type: ignore[import-untyped]  # no stubs are published

    pool = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1)
    yield from pool(joblib.delayed(_simulate)(ask, world) for world in worlds)


def _simulate(ask: _Ask, world: Draw) -> _World:
    run = simulate_deployment(redrawn(ask.deployment, world), ask.requests, seed=ask.seed)
    summary = summarize(run, ask.slo)
    return _World({metric: _value(summary, metric) for metric in METRICS}, summary.stable)


def _value(summary: Summary, metric: str) -> float:
    where, part = METRICS[metric]
    found = getattr(summary, where)
    if part is not None:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return float("nan") if found is None else float(found)


def _holds(world: _World, slo: SLO) -> bool:
    return world.stable and world.values["slo_attainment"] >= slo.attainment
