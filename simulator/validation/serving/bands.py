"""How wide predictions of measured runs should be taken, and how often measurements lie inside.

A run is simulated again in a few draws of what the model may be off by (``simulator.uncertainty``).
Of few draws the spread is known better than the quantiles, so that the band is the log-normal one
around the prediction. Where the client was inferred, TTFT carries that as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from simulator.engine import simulate_deployment
from simulator.engine_profiles import load_engine
from simulator.scenario import Scenario
from simulator.scenario.deployment import Deployment
from simulator.uncertainty import (
    LEVEL,
    SPREAD,
    EngineSpread,
    check_draws,
    draw_factors,
    factors_of,
    redrawn,
)
from simulator.validation.serving.clients import client_of
from simulator.validation.serving.mapping import engine_of, scenario_of
from simulator.validation.serving.predict import Engines, Prediction, measured, simulated
from simulator.validation.serving.runs import MeasuredRun

METRICS = ("ttft", "tpot")

CLIENT = {True: 0.0, False: 0.45}
"""Standard deviation of the log of a mean TTFT that its client leaves [1], by whether that is documented:
what left-out errors of the fitted deployments ask for (``python -m calibration.engines.spread``,
docs/uncertainty.md)."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RunBand:
    """The band of a run's prediction; NaN where there is no prediction.

    Attributes:
        row: position of the run in its file.
        ttft: lower and upper end of mean TTFT [ms].
        tpot: the same of TPOT [ms].
        logs: logarithms of what was drawn over what was predicted, by metric: one a draw.
        drawn: logarithms of the factors drawn, by name: one a draw.
    """

    row: int
    ttft: tuple[float, float] = (math.nan, math.nan)
    tpot: tuple[float, float] = (math.nan, math.nan)
    logs: Mapping[str, tuple[float, ...]] | None = None
    drawn: Mapping[str, tuple[float, ...]] | None = None


def run_bands(
    runs: Sequence[MeasuredRun],
    predictions: Sequence[Prediction],
    *,
    draws: int,
    engines: Engines | None = None,
    spread: EngineSpread = SPREAD,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[RunBand]:
    """The bands of predictions, in order.

    Args:
        runs: what was measured.
        predictions: theirs.
        draws: simulations of each run.
        engines: profiles that replace the bundled ones.
        spread: of the engines.
        seed: of the clients' lengths and of the draws.
        jobs: processes.
        progress: called as ``progress(done, all)``.

    Raises:
        InputError: a number of draws that makes no band.
    """
    check_draws(draws)
    found: list[RunBand] = []
    ask = _Ask(draws, engines, spread, seed)
    for band in _stream(ask, runs, predictions, jobs):
        found.append(band)
        if progress is not None:
            progress(len(found), len(runs))
    return found


def coverage(table: pd.DataFrame) -> dict[str, float]:
    """Share of measurements inside their bands, by metric; NaN where there are none.

    Args:
        table: of ``with_bands``.
    """
    found = {}
    for metric in METRICS:
        known = table[table[f"{metric}_lo"].notna()]
        value = known[metric]
        inside = (value >= known[f"{metric}_lo"]) & (value <= known[f"{metric}_hi"])
        found[metric] = float(inside.mean()) if len(known) else math.nan
    return found


def with_bands(table: pd.DataFrame, bands: Sequence[RunBand]) -> pd.DataFrame:
    """``scores.joined`` with the columns ``ttft_lo``, ``ttft_hi``, ``tpot_lo`` and ``tpot_hi`` [ms]."""
    ends: dict[str, list[float]] = {}
    for metric in METRICS:
        ends[f"{metric}_lo"] = [getattr(band, metric)[0] for band in bands]
        ends[f"{metric}_hi"] = [getattr(band, metric)[1] for band in bands]
    return table.assign(**ends)


def rows_with_bands(table: pd.DataFrame, bands: Sequence[RunBand]) -> pd.DataFrame:
    """The rows of ``validate --rows`` with the columns ``lo`` and ``hi``."""
    ends = {
        (band.row, f"{metric}_ms"): getattr(band, metric) for band in bands for metric in METRICS
    }
    pairs = [ends[key] for key in zip(table["row"], table["metric"], strict=True)]
    return table.assign(lo=[lo for lo, _ in pairs], hi=[hi for _, hi in pairs])


def log_normal(value: float, sigma: float) -> tuple[float, float]:
    """Ends of the band of ``LEVEL`` around a value whose logarithm has that standard deviation."""
    reach = float(ndtri(0.5 + 0.5 * LEVEL)) * sigma
    return value * math.exp(-reach), value * math.exp(reach)


@dataclass(frozen=True, slots=True)
class _Ask:
    """How bands are made; travels to worker processes."""

    draws: int
    engines: Engines | None
    spread: EngineSpread
    seed: int


def _stream(
    ask: _Ask, runs: Sequence[MeasuredRun], predictions: Sequence[Prediction], jobs: int
) -> Iterator[RunBand]:
    pairs = zip(runs, predictions, strict=True)
    if jobs == 1:
        yield from (_band(ask, run, p) for run, p in pairs)
        return
    import joblib  # type: ignore[import-untyped]  # no stubs are published

    pool = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size="auto")
    yield from pool(joblib.delayed(_band)(ask, run, p) for run, p in pairs)


def _band(ask: _Ask, run: MeasuredRun, prediction: Prediction) -> RunBand:
    if prediction.reason:
        return RunBand(run.row)
    name, client = engine_of(run), client_of(run)
    engine = ((ask.engines or {}).get(name) or load_engine(name)).of_version(run.version)
    scenario = scenario_of(run, client, engine, seed=ask.seed)
    deployment = scenario.deployment()
    factors = factors_of(deployment, ask.spread)
    gpus = (pool.gpu for pool in deployment.pools)
    # each deployment its own world: errors of two rows are one draw only where they are one row
    worlds = draw_factors(factors, gpus, ask.draws, ask.seed + run.row)
    values = [_again(run, scenario, redrawn(deployment, world), ask.seed) for world in worlds]
    # a delay outside the engine is in the prediction and in none of the draws
    base = simulated(run, client, engine, ask.seed) if client.front_request_s else prediction
    logs: dict[str, tuple[float, ...]] = {}
    ends: dict[str, tuple[float, float]] = {}
    for metric in METRICS:
        key = f"{metric}_ms"
        some = [math.log(getattr(v, key) / getattr(base, key)) for v in values if not v.reason]
        logs[metric] = tuple(some)
        client_sigma = CLIENT[client.known] if metric == "ttft" else 0.0
        ends[metric] = log_normal(
            getattr(prediction, key), math.hypot(spread_in(some), client_sigma)
        )
    drawn = {f.name: tuple(w.logs[f.name] for w in worlds) for f in factors}
    return RunBand(run.row, ends["ttft"], ends["tpot"], logs, drawn)


def spread_in(logs: Sequence[float]) -> float:
    """Standard deviation about zero: what draws are off by on average, a shift included."""
    known = np.asarray([x for x in logs if math.isfinite(x)])
    return float(np.sqrt(np.mean(known**2))) if known.size else math.nan


def _again(run: MeasuredRun, scenario: Scenario, world: Deployment, seed: int) -> Prediction:
    done = simulate_deployment(world, scenario.requests(), seed=seed)
    return measured(run, done)
