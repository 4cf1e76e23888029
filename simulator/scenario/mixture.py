"""Request classes: drawing a workload of several kinds of requests.

Two ways to say how many of each. With *weights*, all classes share one arrival process: bursts and
tides hit them together, and a class is a random choice with probability proportional to its weight.
With *rates*, every class has a process of its own, and the workload is their superposition.

Every class draws from random streams named after it. A class added or changed leaves the lengths of
the others as they were (with rates, their arrivals too).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.scenario.arrival_schema import is_profile
from simulator.scenario.class_schema import RequestClass
from simulator.scenario.draw import described, instants, is_stationary, token_counts, tokens
from simulator.scenario.workload_schema import Workload
from simulator.workload import ClosedLoop, Requests, stream
from simulator.workload.sessions import Turns, turns_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SPARE = 64
_SESSIONS_SAMPLED = 4096


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests of one class, by session and turn."""

    arrival_s: FloatArray
    prompt: IntArray
    output: IntArray


def draw_classes(workload: Workload, seed: int) -> Requests:
    """The requests of a resolved workload with classes.

    Args:
        workload: resolved section.
        seed: experiment seed.
    """
    classes = workload.classes or {}
    if workload.closed_loop is not None:
        return _closed(workload, classes, seed)
    if workload.rate_rps is not None:
        parts = _shared(workload, classes, seed)
        source = f"{described(workload)}: {_shares(classes)}"
        stationary = is_stationary(workload.arrivals)
    else:
        parts = _own(workload, classes, seed)
        source = "; ".join(f"{name}: {described(c)}" for name, c in classes.items())
        stationary = all(is_stationary(c.arrivals) for c in classes.values())
    return _merged(parts, tuple(classes), workload.requests, source, stationary, _notes(classes))


def _shares(classes: dict[str, RequestClass]) -> str:
    total = sum(c.weight or 0.0 for c in classes.values())
    return ", ".join(f"{n} {100 * (c.weight or 0.0) / total:.3g} %" for n, c in classes.items())


def _notes(classes: dict[str, RequestClass]) -> tuple[str, ...]:
    several = [name for name, c in classes.items() if c.session is not None]
    if not several:
        return ()
    verb = "has" if len(several) == 1 else "have"
    return (
        f"{', '.join(several)} {verb} sessions: no session is open at the start, so the rate rises "
        "over the length of the first ones, and turns do not wait for answers.",
    )


def _merged(
    parts: list[_Part],
    names: tuple[str, ...],
    n: int | None,
    source: str,
    stationary: bool,
    notes: tuple[str, ...],
) -> Requests:
    """The first ``n`` requests of all classes in order of arrival (all, without ``n``)."""
    arrival = np.concatenate([p.arrival_s for p in parts])
    order = np.argsort(arrival, kind="stable")[:n]
    index = np.repeat(np.arange(len(parts)), [p.arrival_s.size for p in parts])
    return Requests(
        arrival[order],
        np.concatenate([p.prompt for p in parts])[order],
        np.concatenate([p.output for p in parts])[order],
        source=source,
        stationary=stationary,
        notes=notes,
        classes=names,
        class_index=index[order],
    )


# --- how many of each ---------------------------------------------------------------------------


def _closed(workload: Workload, classes: dict[str, RequestClass], seed: int) -> Requests:
    client = workload.closed_loop
    assert client is not None
    assert client.requests is not None  # filled in by resolve
    index = _choice(classes, dict.fromkeys(classes, 1.0), client.requests, seed)
    prompt = np.zeros(index.size, dtype=np.int64)
    output = np.zeros(index.size, dtype=np.int64)
    for i, (name, found) in enumerate(classes.items()):
        part = _part(name, found, np.zeros(int((index == i).sum())), seed)
        prompt[index == i], output[index == i] = part.prompt, part.output
    return Requests(
        np.zeros(index.size),
        prompt,
        output,
        source=f"closed loop, {client.concurrency} in flight: {_shares(classes)}",
        closed_loop=ClosedLoop(client.concurrency),
        classes=tuple(classes),
        class_index=index,
    )


def _choice(
    classes: dict[str, RequestClass], turns: dict[str, float], n: int, seed: int
) -> IntArray:
    """Class of each of ``n`` starts: by weight of requests, so by weight over turns of sessions."""
    weight = np.array([(c.weight or 0.0) / turns[name] for name, c in classes.items()])
    edges = np.cumsum(weight) / weight.sum()
    found = np.searchsorted(edges, stream(seed, "classes").random(n), side="right")
    return np.minimum(found, len(classes) - 1)


def _shared(workload: Workload, classes: dict[str, RequestClass], seed: int) -> list[_Part]:
    """One process for all: an arrival is the request, or the first of a session."""
    turns = {name: _mean_turns(name, c) for name, c in classes.items()}
    weights = sum(c.weight or 0.0 for c in classes.values())
    starts_per_request = sum((c.weight or 0.0) / turns[n] for n, c in classes.items()) / weights
    n = workload.requests
    ends = is_profile(workload.arrivals)
    sessions = any(c.session is not None for c in classes.values())
    count = n
    if n is not None and sessions:
        count = math.ceil(1.1 * n * starts_per_request) + _SPARE
    while True:
        starts = instants(workload, count, seed, "arrivals", scale=starts_per_request)
        index = _choice(classes, turns, starts.size, seed)
        parts = [
            _part(name, c, starts[index == i], seed) for i, (name, c) in enumerate(classes.items())
        ]
        if ends or not sessions or _enough(parts, float(starts[-1]), n or 0):
            return parts
        count = 2 * (count or 1)


def _own(workload: Workload, classes: dict[str, RequestClass], seed: int) -> list[_Part]:
    """A process for every class."""
    turns = {name: _mean_turns(name, c) for name, c in classes.items()}
    total = sum(c.rate_rps or 0.0 for c in classes.values())
    n = workload.requests or 0
    counts = {
        name: math.ceil(1.1 * n * (c.rate_rps or 0.0) / total / turns[name]) + _SPARE
        for name, c in classes.items()
    }
    while True:
        parts, known_s = [], math.inf
        for name, c in classes.items():
            stream_name = f"class.{name}.arrivals"
            starts = instants(c, counts[name], seed, stream_name, scale=1.0 / turns[name])
            parts.append(_part(name, c, starts, seed))
            if not is_profile(c.arrivals):
                known_s = min(known_s, float(starts[-1]))
        if math.isinf(known_s) or _enough(parts, known_s, n):
            return parts
        counts = {name: 2 * count for name, count in counts.items()}


def _enough(parts: list[_Part], known_s: float, n: int) -> bool:
    """Whether the first ``n`` requests are all within the time that the starts cover."""
    return sum(int((p.arrival_s <= known_s).sum()) for p in parts) >= n


# --- one class ----------------------------------------------------------------------------------


def _part(name: str, found: RequestClass, starts: FloatArray, seed: int) -> _Part:
    """The requests of a class, from the instants at which they (or their sessions) start [s]."""
    if found.session is None:
        path = ("workload", "classes", name)
        prompt, output = token_counts(found, starts.size, seed, f"class.{name}.", path)
        return _Part(starts, prompt, output)
    turns = _turns(name, found, starts.size, seed)
    return _Part(starts[turns.session] + turns.after_s, turns.prompt_tokens, turns.output_tokens)


def _turns(name: str, found: RequestClass, sessions: int, seed: int) -> Turns:
    session = found.session
    assert session is not None
    assert found.prompt_tokens is not None  # required by resolve
    assert found.output_tokens is not None

    def rng(what: str) -> np.random.Generator:
        return stream(seed, f"class.{name}.{what}")

    turns = tokens(session.turns, sessions, rng("session.turns"))
    total = int(turns.sum())
    sigma2 = math.log1p(session.gap_cv**2)
    normal = rng("session.gaps").standard_normal(total)
    return turns_of(
        turns,
        tokens(found.prompt_tokens, sessions, rng("lengths.prompt")),
        tokens(session.new_tokens, total, rng("session.new")),
        tokens(found.output_tokens, total, rng("lengths.output")),
        session.gap_s * np.exp(math.sqrt(sigma2) * normal - 0.5 * sigma2),
        session.max_context_tokens,
    )


def _mean_turns(name: str, found: RequestClass) -> float:
    """Mean turns of a session, those that do not fit its context left out.

    From a sample of its own (seed 0), so that the rate of sessions does not depend on the seed; its
    standard error is a percent or two of the mean.
    """
    if found.session is None:
        return 1.0
    return _turns(name, found, _SESSIONS_SAMPLED, 0).session.size / _SESSIONS_SAMPLED
