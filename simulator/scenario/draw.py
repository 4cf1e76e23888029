"""From the workload section to requests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.scenario.length_schema import (
    FixedTokens,
    Lengths,
    LognormalTokens,
    UniformTokens,
)
from simulator.scenario.names import trace_file
from simulator.scenario.problem import Problem, at
from simulator.scenario.workload_schema import Trace, Workload
from simulator.workload import ClosedLoop, Requests, TraceFormat, arrivals, read_trace, stream
from simulator.workload import lengths as draw
from simulator.workload.lengths import MAX_TOKENS


def draw_requests(workload: Workload, seed: int) -> Requests:
    """The requests of a resolved workload.

    Arrivals, prompt lengths and output lengths come from streams of their own, so changing one
    leaves the others as they were.

    Args:
        workload: resolved section.
        seed: experiment seed; a trace does not depend on it.

    Raises:
        Problem: the trace cannot be read or cut as asked.
    """
    with at("workload"):
        return _replay(workload.trace) if workload.trace is not None else _draw(workload, seed)


def _draw(workload: Workload, seed: int) -> Requests:
    prompt, output = workload.prompt_tokens, workload.output_tokens
    assert prompt is not None  # the schema refuses a workload without lengths
    assert output is not None
    n = _count(workload)
    arrival_s, source, client = _arrivals(workload, n, seed)
    return Requests(
        arrival_s,
        _lengths(prompt, n, stream(seed, "lengths.prompt")),
        _lengths(output, n, stream(seed, "lengths.output")),
        source=source,
        closed_loop=client,
    )


def longest_prompt(workload: Workload) -> int | None:
    """Upper bound of the prompt lengths [tokens] for any seed; None if there is no bound.

    Raises:
        Problem: the trace cannot be read or cut as asked.
    """
    if workload.trace is not None:
        return int(_replay(workload.trace).prompt_tokens.max())
    lengths = workload.prompt_tokens
    if isinstance(lengths, FixedTokens):
        return lengths.tokens
    if isinstance(lengths, UniformTokens):
        return lengths.high
    return lengths.max if lengths is not None else None


def _count(workload: Workload) -> int:
    n = workload.requests if workload.closed_loop is None else workload.closed_loop.requests
    assert n is not None  # required by the schema, or filled in by resolve
    return n


def _arrivals(
    workload: Workload, n: int, seed: int
) -> tuple[NDArray[np.float64], str, ClosedLoop | None]:
    """Arrival instants [s], what to call them, and the client if there is a closed loop."""
    if workload.closed_loop is not None:
        client = ClosedLoop(workload.closed_loop.concurrency)
        return np.zeros(n), f"closed loop, {client.concurrency} in flight", client
    rate, rng = workload.rate_rps, stream(seed, "arrivals")
    assert rate is not None  # required by the schema
    name = f"{workload.arrivals}, {rate:g} requests/s"
    if workload.arrivals == "constant":
        return arrivals.constant(n, rate), name, None
    if workload.arrivals == "gamma":
        assert workload.cv is not None  # required by the schema
        return arrivals.gamma(n, rate, workload.cv, rng), f"{name}, cv {workload.cv:g}", None
    return arrivals.poisson(n, rate, rng), name, None


def _lengths(lengths: Lengths, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Lengths [tokens] of ``n`` requests."""
    if isinstance(lengths, FixedTokens):
        return draw.fixed(n, lengths.tokens)
    if isinstance(lengths, UniformTokens):
        return draw.uniform(n, lengths.low, lengths.high, rng)
    if isinstance(lengths, LognormalTokens):
        high = lengths.max or MAX_TOKENS
        return draw.lognormal(n, lengths.mean, lengths.cv, rng, lengths.min, high)
    return draw.uniform_ratio(n, lengths.max, lengths.ratio, rng)


def _replay(trace: Trace) -> Requests:
    """The trace, cut and then made faster."""
    path = trace_file(trace.path)
    with at("workload", "trace"):
        try:
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            version = (0, 0)  # read_trace says what is wrong
        requests = _read(path, trace.format, version)
        if trace.start_s is not None or trace.end_s is not None:
            end_s = float("inf") if trace.end_s is None else trace.end_s
            requests = requests.between(trace.start_s or 0.0, end_s)
        if trace.max_requests is not None:
            requests = requests.head(trace.max_requests)
        return requests if trace.rate_scale == 1.0 else requests.faster(trace.rate_scale)


@lru_cache(maxsize=2)
def _read(path: Path, format: TraceFormat, version: tuple[int, int]) -> Requests:
    """A trace file; many candidates replay one trace, and ``version`` changes with the file."""
    return read_trace(path, format)


def check_trace_file(trace: Trace) -> None:
    """Refuse a trace whose file is not there, without reading it.

    Raises:
        Problem: neither a bundled name nor a file.
    """
    path = trace_file(trace.path)
    if not path.exists():
        raise Problem(("workload", "trace", "path"), f"{path}: no such trace file.")
