"""``xpyd calibrate overhead``: from result files to a user's own engine profile."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from calibration.overhead.reading import read_results
from calibration.overhead.refit import Progress, Refit, chosen, refit
from calibration.overhead.replay import Load, Replay, replay_of
from calibration.overhead.results import Result
from calibration.overhead.scores import score_text
from calibration.overhead.setup import Options, Setup, set_up, version_of
from hwprofiles.param import Source
from simulator.engine_profiles import EngineProfile
from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.workload import Requests

_Number = TypeVar("_Number", int, float)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Clients:
    """What the user says of the benchmark clients, where files do not.

    Attributes:
        concurrency: requests in flight: none, one for all runs, or one a run.
        rate_rps: arrivals [1/s]: the same.
        ratio: lengths are uniform between this share of the longest and the longest.
    """

    concurrency: tuple[int, ...] = ()
    rate_rps: tuple[float, ...] = ()
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Overhead:
    """A refitted engine.

    Attributes:
        setup: what was measured.
        refit: constants and predictions.
        engine: the profile with the fitted constants.
    """

    setup: Setup
    refit: Refit
    engine: EngineProfile


def overhead(
    files: Sequence[Path],
    options: Options,
    clients: Clients,
    *,
    name: str = "my_engine",
    constants: Sequence[str] | None = None,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Overhead:
    """Refit an engine's constants to the runs in result files.

    Args:
        files: results of benchmark clients, all of one deployment.
        options: what the deployment was.
        clients: what the clients did, where files do not say it.
        name: of the new profile.
        constants: names of those to fit; None: see ``refit.chosen``.
        seed: of lengths and arrivals that files do not list.
        jobs: processes.
        progress: called as ``progress(what, done, all)``.

    Raises:
        InputError: a file, an option or a name is wrong, or they disagree.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"'{name}' cannot name an engine; allowed: letters, digits, '_', '.' and '-', a letter "
            "first."
        )
    results = read_results(files)
    setup = set_up(options, results)
    replays = _replays(results, setup, clients, options, seed)
    names = chosen(replays, constants)
    for replay in replays:
        replay.check({})
    found = refit(replays, setup.engine, names, jobs=jobs, progress=progress)
    return Overhead(setup, found, _profile(name, setup, found, results))


def _replays(
    results: Sequence[Result], setup: Setup, clients: Clients, options: Options, seed: int
) -> list[Replay]:
    slots = _each("--concurrency", clients.concurrency, len(results))
    rates = _each("--request-rate", clients.rate_rps, len(results))
    drawn = _scenario_requests(options, results)
    found = [
        replay_of(result, setup, Load(count, rate, clients.ratio), seed=seed + i, workload=drawn)
        for i, (result, count, rate) in enumerate(zip(results, slots, rates, strict=True))
    ]
    return sorted(found, key=_load)


def _load(replay: Replay) -> tuple[float, float]:
    """Requests in flight, then the rate of arrivals: the order of tables."""
    loop, arrival = replay.requests.closed_loop, replay.requests.arrival_s
    return 0.0 if loop is None else loop.concurrency, len(arrival) / max(float(arrival[-1]), 1e-9)


def _each(option: str, given: Sequence[_Number], n: int) -> list[_Number | None]:
    """One value a run."""
    if len(given) not in (0, 1, n):
        raise InputError(
            f"{option}: found {len(given)} values; allowed: one, or one for each of {n}."
        )
    return [given[i] if len(given) == n else (given[0] if given else None) for i in range(n)]


def _scenario_requests(options: Options, results: Sequence[Result]) -> Requests | None:
    """Lengths of the scenario, where some file lists none."""
    if options.scenario is None or all(
        r.prompt.quantiles or r.prompt.recorded is not None for r in results
    ):
        return None
    return Scenario.load(options.scenario, options.overrides).requests()


def _profile(name: str, setup: Setup, found: Refit, results: Sequence[Result]) -> EngineProfile:
    """The engine with what the runs say; constants they say nothing of stay as they were."""
    engine = setup.engine
    when = version_of(results)
    files = ", ".join(result.label for result in results)
    for constant in found.constants:
        if constant.verdict == "prior":
            continue
        text = (
            f"{_clients(results)} on {setup.text}{f' ({when})' if when else ''}: {files}; prior: "
            f"engine profile '{setup.engine.name}'; {score_text(found)}; fitted "
            f"{datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}"
        )
        changed = engine.changed(Source("fitted", text), **{constant.name: constant.value})
        values = {
            key: replace(param, stderr=constant.stderr) if key == constant.name else param
            for key, param in changed.values
        }
        engine = replace(changed, values=tuple(values.items()))
    return replace(
        engine,
        name=name.lower(),
        description=f"{setup.engine.name}, refitted to {len(results)} benchmark runs on {setup.text}",
    )


def _clients(results: Sequence[Result]) -> str:
    names = sorted({result.client for result in results})
    return f"{len(results)} results of {', '.join(names)}"
