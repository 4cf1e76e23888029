"""From the workload section to requests."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.scenario.arrival_schema import (
    Diurnal,
    OnOff,
    Process,
    Profile,
    is_profile,
    process_name,
)
from simulator.scenario.class_schema import RequestClass, TraceLengths
from simulator.scenario.length_schema import (
    FixedTokens,
    Lengths,
    LognormalTokens,
    UniformTokens,
)
from simulator.scenario.names import trace_file
from simulator.scenario.problem import Problem, at
from simulator.scenario.workload_schema import Trace, Workload
from simulator.workload import (
    ClosedLoop,
    Requests,
    TraceFile,
    TraceFormat,
    arrivals,
    read_trace,
    read_trace_file,
    stream,
)
from simulator.workload import lengths as draw
from simulator.workload import rates as rated
from simulator.workload.lengths import MAX_TOKENS

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def draw_requests(workload: Workload, seed: int) -> Requests:
    """The requests of a resolved workload.

    Arrivals, prompt lengths and output lengths come from streams of their own, so changing one
    leaves the others as they were.

    Args:
        workload: resolved section.
        seed: experiment seed; a trace does not depend on it.

    Raises:
        Problem: the trace cannot be read or cut as asked, or no request arrives.
    """
    with at("workload"):
        if workload.trace is not None:
            return _replay(workload.trace)
        if workload.classes is not None:
            from simulator.scenario.mixture import draw_classes

            return draw_classes(workload, seed)
        return _draw(workload, seed)


def _draw(workload: Workload, seed: int) -> Requests:
    client = workload.closed_loop
    if client is not None:
        assert client.requests is not None  # filled in by resolve
        arrival_s = np.zeros(client.requests)
        source = f"closed loop, {client.concurrency} in flight"
    else:
        arrival_s = instants(workload, workload.requests, seed, "arrivals")
        source = described(workload)
    prompt, output = token_counts(workload, arrival_s.size, seed, "", ("workload",))
    if workload.lengths is not None:
        source += f", lengths of {workload.lengths.trace.rpartition('/')[2]}"
    return Requests(
        arrival_s,
        prompt,
        output,
        source=source,
        stationary=is_stationary(workload.arrivals),
        closed_loop=None if client is None else ClosedLoop(client.concurrency),
    )


# --- arrivals -----------------------------------------------------------------------------------


def is_stationary(process: str | Process | None) -> bool:
    """Whether the law of a process is the same at all times."""
    return not (is_profile(process) or isinstance(process, Diurnal))


def described(source: Workload | RequestClass) -> str:
    """A resolved process in words."""
    text = f"{process_name(source.arrivals)}, {source.rate_rps:.4g} requests/s"
    return text if source.cv is None else f"{text}, cv {source.cv:g}"


def instants(
    source: Workload | RequestClass, n: int | None, seed: int, name: str, scale: float = 1.0
) -> FloatArray:
    """Arrival instants [s] of a resolved process.

    Args:
        source: what says the process, its rate and cv.
        n: how many; not needed where the process ends by itself.
        seed: experiment seed.
        name: of the random stream.
        scale: the rate is multiplied by this.

    Raises:
        Problem: no request arrives at all.
    """
    rng, process = stream(seed, name), source.arrivals
    assert source.rate_rps is not None  # filled in by resolve
    rate = source.rate_rps * scale
    if isinstance(process, Profile):
        rates = process.rates()
        found = rated.follow(rates.times(rate / rates.mean_rps), rng)
        if not found.size:
            raise Problem(
                ("workload", "arrivals"),
                f"no request arrives in {rates.span_s:g} s; allowed: rates that bring some.",
            )
        return found
    assert n is not None  # required by the schema
    if isinstance(process, Diurnal):
        return rated.diurnal(n, rate, process.period_s, process.peak_to_mean, rng)
    if isinstance(process, OnOff):
        by = rate / process.mean_rps
        phases = stream(seed, f"{name}.phases")
        pair = (process.on_rps * by, process.off_rps * by)
        return rated.on_off(n, *pair, process.on_s, process.off_s, rng, phases)
    if process == "constant":
        return arrivals.constant(n, rate)
    if process == "gamma":
        assert source.cv is not None  # required by the schema
        return arrivals.gamma(n, rate, source.cv, rng)
    return arrivals.poisson(n, rate, rng)


# --- lengths ------------------------------------------------------------------------------------


def token_counts(
    source: Workload | RequestClass, n: int, seed: int, prefix: str, path: tuple[str, ...]
) -> tuple[IntArray, IntArray]:
    """Prompt and output lengths [tokens] of ``n`` requests.

    Args:
        source: what says the lengths.
        n: how many.
        seed: experiment seed.
        prefix: of the names of the random streams.
        path: where ``source`` stands in the scenario.
    """
    if source.lengths is not None:
        trace = trace_of(source.lengths, path)
        rows = stream(seed, f"{prefix}lengths.joint").integers(0, len(trace), size=n)
        return trace.prompt_tokens[rows], trace.output_tokens[rows]
    assert source.prompt_tokens is not None  # required by the schema, or by resolve
    assert source.output_tokens is not None
    return (
        tokens(source.prompt_tokens, n, stream(seed, f"{prefix}lengths.prompt")),
        tokens(source.output_tokens, n, stream(seed, f"{prefix}lengths.output")),
    )


def tokens(lengths: Lengths, n: int, rng: np.random.Generator) -> IntArray:
    """Lengths [tokens] of ``n`` requests."""
    if isinstance(lengths, FixedTokens):
        return draw.fixed(n, lengths.tokens)
    if isinstance(lengths, UniformTokens):
        return draw.uniform(n, lengths.low, lengths.high, rng)
    if isinstance(lengths, LognormalTokens):
        high = lengths.max or MAX_TOKENS
        return draw.lognormal(n, lengths.mean, lengths.cv, rng, lengths.min, high)
    return draw.uniform_ratio(n, lengths.max, lengths.ratio, rng)


def trace_of(lengths: TraceLengths, path: tuple[str, ...]) -> Requests:
    """The requests whose lengths are drawn.

    Raises:
        Problem: the trace cannot be read.
    """
    where = (*path, "lengths", "trace")
    with at(*where):
        return _read_cached(trace_file(lengths.trace, where), "auto").requests


def longest_prompt(workload: Workload) -> int | None:
    """Upper bound of the prompt lengths [tokens] for any seed; None if there is no bound.

    Raises:
        Problem: the trace cannot be read or cut as asked.
    """
    if workload.trace is not None:
        return int(_replay(workload.trace).prompt_tokens.max())
    if workload.classes is None:
        return _longest(workload, ("workload",))
    bounds = [_longest(c, ("workload", "classes", n)) for n, c in workload.classes.items()]
    known = [bound for bound in bounds if bound is not None]
    return max(known) if len(known) == len(bounds) else None


def _longest(source: Workload | RequestClass, path: tuple[str, ...]) -> int | None:
    if source.lengths is not None:
        return int(trace_of(source.lengths, path).prompt_tokens.max())
    if isinstance(source, RequestClass) and source.session is not None:
        return source.session.max_context_tokens
    lengths = source.prompt_tokens
    if isinstance(lengths, FixedTokens):
        return lengths.tokens
    if isinstance(lengths, UniformTokens):
        return lengths.high
    return lengths.max if lengths is not None else None


# --- traces -------------------------------------------------------------------------------------


def _replay(trace: Trace) -> Requests:
    """The trace, cut and then made faster."""
    path = trace_file(trace.path)
    with at("workload", "trace"):
        found = _read_cached(path, trace.format)
        # without arrivals this is refused, in the sentence of the reader
        requests = found.requests if found.arrivals_known else read_trace(path, trace.format)
        if trace.start_s is not None or trace.end_s is not None:
            end_s = float("inf") if trace.end_s is None else trace.end_s
            requests = requests.between(trace.start_s or 0.0, end_s)
        if trace.max_requests is not None:
            requests = requests.head(trace.max_requests)
        return requests if trace.rate_scale == 1.0 else requests.faster(trace.rate_scale)


def _read_cached(path: Path, format: TraceFormat) -> TraceFile:
    try:
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size)
    except OSError:
        version = (0, 0)  # read_trace says what is wrong
    return _read(path, format, version)


@lru_cache(maxsize=4)
def _read(path: Path, format: TraceFormat, version: tuple[int, int]) -> TraceFile:
    """A trace file; many candidates replay one trace, and ``version`` changes with the file."""
    return read_trace_file(path, format)


def check_trace_files(workload: Workload) -> None:
    """Refuse traces whose files are not there, without reading them.

    Raises:
        Problem: neither a bundled name nor a file.
    """
    named: list[tuple[tuple[str, ...], str]] = []
    if workload.trace is not None:
        named.append((("workload", "trace", "path"), workload.trace.path))
    if workload.lengths is not None:
        named.append((("workload", "lengths", "trace"), workload.lengths.trace))
    for name, found in (workload.classes or {}).items():
        if found.lengths is not None:
            path = ("workload", "classes", name, "lengths", "trace")
            named.append((path, found.lengths.trace))
    for place, text in named:
        path_ = trace_file(text, place)
        if not path_.exists():
            raise Problem(place, f"{path_}: no such trace file.")
