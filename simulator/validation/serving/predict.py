"""Simulating measured runs, one by one or all on several processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from simulator.engine import simulate_deployment
from simulator.engine_profiles import EngineProfile, load_engine
from simulator.errors import InputError
from simulator.run import Run
from simulator.scenario.deployment import Deployment
from simulator.validation.serving.clients import Client, client_of
from simulator.validation.serving.mapping import (
    Unpredictable,
    check_gpu,
    engine_of,
    scenario_of,
)
from simulator.validation.serving.runs import MeasuredRun

Engines = Mapping[str, EngineProfile]
"""Profiles that replace the bundled ones, by name."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the simulation of a run says.

    Attributes:
        row: position of the run in its file.
        ttft_ms: mean time to first token over all requests, the opening burst included [ms]; NaN
            where there is no prediction.
        tpot_ms: mean time per output token [ms].
        latency_ms: of a request of the length asked for, as the table defines it [ms].
        tokens_per_s_per_gpu: output tokens over the run's length and GPUs.
        preemptions: per request.
        notes: what was assumed or borrowed.
        reason: why there is no prediction; empty where there is one.
    """

    row: int
    ttft_ms: float = math.nan
    tpot_ms: float = math.nan
    latency_ms: float = math.nan
    tokens_per_s_per_gpu: float = math.nan
    preemptions: float = 0.0
    notes: tuple[str, ...] = field(default=())
    reason: str = ""


def predict(run: MeasuredRun, engines: Engines | None = None, *, seed: int = 1) -> Prediction:
    """Simulate one run; what cannot be simulated becomes a reason.

    Args:
        run: what was measured.
        engines: profiles that replace the bundled ones.
        seed: of the client's lengths.
    """
    client = client_of(run)
    try:
        check_run(run)
        name = engine_of(run)
        engine = ((engines or {}).get(name) or load_engine(name)).of_version(run.version)
        check_gpu(run)
        found = simulated(run, client, engine, seed)
        if client.front_request_s:
            found = _held_up(run, client, engine, seed, found)
    except (Unpredictable, InputError) as error:
        return Prediction(run.row, reason=str(error))
    notes = (*run.notes, *((client.note,) if client.note else ()), *found.notes)
    return replace(found, notes=notes)


def simulated(run: MeasuredRun, client: Client, engine: EngineProfile, seed: int) -> Prediction:
    """One simulation of a run.

    Raises:
        Unpredictable: something in the run is not modelled.
        InputError: the scenario cannot be built.
    """
    scenario = scenario_of(run, client, engine, seed=seed)
    deployment = scenario.deployment()
    done = simulate_deployment(deployment, scenario.requests(), seed=seed)
    return measured(run, done, _notes(deployment), client)


def _held_up(
    run: MeasuredRun, client: Client, engine: EngineProfile, seed: int, free: Prediction
) -> Prediction:
    """A run whose requests spend a while outside the engine, in no order.

    A delay of the same length for all would make them come back in bunches. So the engine is simulated
    with the requests that are left to it, by Little's law, and the delay is added to TTFT.
    """
    away_ms = 1e3 * client.front_request_s * run.concurrency
    inside_ms = free.ttft_ms + free.tpot_ms * (0.5 * (1.0 + client.ratio) * run.osl - 1.0)
    left = max(1, round(run.concurrency * inside_ms / (inside_ms + away_ms)))
    found = simulated(replace(run, concurrency=left), client, engine, seed)
    ttft_ms = found.ttft_ms + away_ms
    latency_ms = ttft_ms + found.tpot_ms * (run.osl - 1)
    return replace(found, ttft_ms=ttft_ms, latency_ms=latency_ms)


def predict_all(
    runs: Sequence[MeasuredRun],
    engines: Engines | None = None,
    *,
    jobs: int = 1,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Simulate runs, in order.

    Args:
        runs: what was measured.
        engines: profiles that replace the bundled ones.
        jobs: processes.
        seed: of the clients' lengths.
        progress: called as ``progress(done, all)``.
    """
    found: list[Prediction] = []
    for prediction in _stream(runs, engines, jobs, seed):
        found.append(prediction)
        if progress is not None:
            progress(len(found), len(runs))
    return found


def _stream(
    runs: Sequence[MeasuredRun], engines: Engines | None, jobs: int, seed: int
) -> Iterator[Prediction]:
    if jobs == 1 or len(runs) < 8:
        yield from (predict(run, engines, seed=seed) for run in runs)
        return
    import joblib  # type: ignore[import-untyped]  # no stubs are published

    pool = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size="auto")
    yield from pool(joblib.delayed(predict)(run, engines, seed=seed) for run in runs)


def check_run(run: MeasuredRun) -> None:
    """Refuse a run that cannot be compared.

    Raises:
        Unpredictable: not usable, or a length or the concurrency is missing.
    """
    if not run.usable:
        raise Unpredictable("not usable: a duplicate, incomplete, or suspect measurement")
    for name in ("isl", "osl", "concurrency"):
        if getattr(run, name) < 1:
            raise Unpredictable(f"{name} is missing")


def _notes(deployment: Deployment) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for pool in deployment.pools for note in pool.step.notes))


def measured(
    run: MeasuredRun, done: Run, notes: tuple[str, ...] = (), client: Client | None = None
) -> Prediction:
    """What the client reports; with ``stream_interval`` n it sees token 1 together with token n.

    Args:
        run: what was measured.
        done: its simulation.
        notes: what was assumed.
        client: what the benchmark client does; by default that of the run.
    """
    client = client or client_of(run)
    table: Any = done.requests
    first = table["first_token_s"].to_numpy()
    last = table["last_token_s"].to_numpy()
    arrival = table["arrival_s"].to_numpy()
    output = table["output_tokens"].to_numpy()
    ended = np.isfinite(last)
    if client.warmed_up:
        ended &= np.arange(len(ended)) >= run.concurrency
    if not ended.any():
        return Prediction(run.row, reason="no request of the simulation completed")
    ttft_ms = 1e3 * float((first - arrival)[ended].mean())
    several = ended & (output > 1)
    gaps = (last - first)[several] / (output[several] - 1)
    tpot_ms = 1e3 * float(gaps.mean()) if several.any() else math.nan
    ttft_ms += waiting_steps(run, client) * tpot_ms
    late = min(client.stream_interval, run.osl) - 1
    if late:
        ttft_ms, tpot_ms = ttft_ms + late * tpot_ms, tpot_ms * (1.0 - late / (run.osl - 1))
    span = float(np.nanmax(last)) - float(arrival.min())
    return Prediction(
        row=run.row,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        latency_ms=ttft_ms + tpot_ms * (run.osl - 1),
        tokens_per_s_per_gpu=float(output[ended].sum()) / span / run.gpus,
        preemptions=float(table["preemptions"].sum()) / len(table),
        notes=notes,
    )


def waiting_steps(run: MeasuredRun, client: Client) -> float:
    """Steps a request waits for company on average, of at most ``client.wait_steps``.

    The first to come waits all of them; those that come while it does, half as long on average. In a
    closed loop ``concurrency / mean output`` come a step. Nobody waits in the opening burst.

    Args:
        run: what was measured.
        client: what the benchmark client does.
    """
    if not client.wait_steps:
        return 0.0
    mean_output = run.osl * (1.0 + client.ratio) / 2.0
    company = client.wait_steps * run.concurrency / mean_output
    later = 1.0 - 1.0 / client.prompts_per_slot
    return later * client.wait_steps * (1.0 + company / 2.0) / (1.0 + company)
