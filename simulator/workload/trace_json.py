"""Traces in JSON: Mooncake, AIPerf, and the results that the vLLM and SGLang clients save.

============  =================================================  ==================================
format        content                                            arrivals
============  =================================================  ==================================
``mooncake``  a line a request: ``timestamp`` [ms],              milliseconds from 0
              ``input_length``, ``output_length``, ``hash_ids``
``aiperf``    a line a request: ``metadata.request_start_ns``,   nanoseconds, taken relative to the
              ``metrics.input_sequence_length.value``,           earliest
              ``metrics.output_sequence_length.value``
``vllm``      one object of lists: ``input_lens``,               seconds of ``start_times``, taken
              ``output_lens``, ``start_times``, ``errors``       relative to the earliest
``sglang``    the same                                           the same; many versions write none
============  =================================================  ==================================

References:
    [1] kvcache-ai/Mooncake, FAST25-release: trace format.
    [2] NVIDIA AIPerf documentation, "Working with profile export files".
    [3] vLLM, ``vllm bench serve --save-result --save-detailed``.
    [4] SGLang, ``python -m sglang.bench_serving --output-file F --output-details``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import TraceError
from simulator.workload.blocks import MOONCAKE_BLOCK_TOKENS, Blocks
from simulator.workload.lengths import MAX_TOKENS
from simulator.workload.requests import LATEST_ARRIVAL_S, Requests

TOKENS_ALLOWED = f"a whole number from 1 to {MAX_TOKENS}"

_MISSING = object()


@dataclass(frozen=True, slots=True)
class TraceFile:
    """What was read.

    Attributes:
        requests: the requests; all arrive at 0 where arrivals are not known.
        format: name of the format.
        arrivals_known: whether the file says when requests arrived.
    """

    requests: Requests
    format: str
    arrivals_known: bool = True


def read_json(path: Path, format: str) -> TraceFile:
    """Read a trace of one of the formats above.

    Args:
        path: the file, which begins with ``{``.
        format: what it must be, or ``"auto"``.

    Raises:
        TraceError: the file is of none of them, or a value is malformed; with line and key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TraceError(f"{path}: is not text; allowed: JSON in UTF-8.") from None
    rows = _rows(path, text)
    found = _told(path, rows[0][1])
    if format not in ("auto", found):
        raise TraceError(
            f"{path}: found a {found} file; allowed with format '{format}': that format."
        )
    if found == "mooncake":
        return TraceFile(_mooncake(path, rows), found)
    if found == "aiperf":
        return TraceFile(_aiperf(path, rows), found)
    if len(rows) > 1:
        raise TraceError(
            f"{path}: line {rows[1][0]}: found a second benchmark result; allowed: one a file, "
            "because a trace is one run."
        )
    return _client(path, rows[0][1], found)


def _rows(path: Path, text: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The objects of the file with the line each begins at: one a line, or one over many lines."""
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    try:
        json.loads(lines[0][1])
    except json.JSONDecodeError:
        lines = [(1, text)]
    return list(_objects(path, lines))


def _objects(
    path: Path, lines: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in lines:
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            at = number + error.lineno - 1
            raise TraceError(f"{path}: line {at}: is not JSON ({error.msg}).") from None
        if not isinstance(value, dict):
            raise TraceError(f"{path}: line {number}: found {_shown(value)}; allowed: an object.")
        yield number, value


def _told(path: Path, first: Mapping[str, Any]) -> str:
    """The format, by the keys of the first object."""
    if "input_length" in first:
        return "mooncake"
    if "metadata" in first and "metrics" in first:
        return "aiperf"
    if "input_lens" in first and "output_lens" in first:
        return "sglang" if str(first.get("backend", "")).startswith("sglang") else "vllm"
    if "experiments" in first:
        raise TraceError(
            f"{path}: is a profile of genai-perf, which holds texts and no token counts; allowed: "
            "the profile_export.jsonl of AIPerf."
        )
    if "total_input_tokens" in first:
        raise TraceError(
            f"{path}: is a benchmark result with totals only; allowed: one with a list entry for "
            "every request (vllm bench serve --save-detailed, sglang.bench_serving "
            "--output-details)."
        )
    keys = ", ".join(list(first)[:6]) or "none"
    raise TraceError(
        f"{path}: line 1: found the keys {keys}; allowed: those of a Mooncake trace (input_length), "
        "an AIPerf export (metadata, metrics), or a vLLM or SGLang result (input_lens, output_lens)."
    )


def _shown(value: object) -> str:
    if value is _MISSING:
        return "nothing"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bad(path: Path, where: str, key: str, found: object, allowed: str) -> TraceError:
    return TraceError(f"{path}: {where}, {key}: found {_shown(found)}; allowed: {allowed}.")


def _number(value: object) -> float:
    """A JSON number as a float, NaN for anything else."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good else math.nan  # type: ignore[arg-type]


def _tokens(path: Path, where: str, key: str, value: object) -> int:
    number = _number(value)
    if not (1 <= number <= MAX_TOKENS and number == int(number)):
        raise _bad(path, where, key, value, TOKENS_ALLOWED)
    return int(number)


# --- Mooncake -----------------------------------------------------------------------------------


def _mooncake(path: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Requests:
    arrival: list[float] = []
    prompt: list[int] = []
    output: list[int] = []
    ids: list[list[int]] = []
    before = 0.0
    shared = "hash_ids" in rows[0][1]
    for number, row in rows:
        where = f"line {number}"
        stamp = row.get("timestamp", _MISSING)
        ms = _number(stamp)
        if not before <= ms <= 1e3 * LATEST_ARRIVAL_S:
            allowed = f"milliseconds from {before:g} (the request before it) on"
            raise _bad(path, where, "timestamp", stamp, allowed)
        before = ms
        arrival.append(ms / 1e3)
        for key, values in (("input_length", prompt), ("output_length", output)):
            values.append(_tokens(path, where, key, row.get(key, _MISSING)))
        if shared:
            ids.append(_hash_ids(path, where, row.get("hash_ids", _MISSING)))
    return Requests(
        np.array(arrival),
        np.array(prompt),
        np.array(output),
        source=path.name,
        stationary=False,
        blocks=Blocks.of(ids, MOONCAKE_BLOCK_TOKENS) if shared else None,
    )


def _hash_ids(path: Path, where: str, value: object) -> list[int]:
    good = isinstance(value, list) and all(type(i) is int and abs(i) < 2**62 for i in value)
    if not good:
        raise _bad(path, where, "hash_ids", value, "a list of whole numbers")
    return value  # type: ignore[return-value]


# --- AIPerf -------------------------------------------------------------------------------------


def _aiperf(path: Path, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> Requests:
    start: list[int] = []
    prompt: list[int] = []
    output: list[int] = []
    failed = warming = 0
    for number, row in rows:
        where = f"line {number}"
        about, metrics = (_inner(path, where, row, key) for key in ("metadata", "metrics"))
        if about.get("benchmark_phase", "profiling") != "profiling":
            warming += 1
            continue
        if row.get("error") is not None or about.get("was_cancelled"):
            failed += 1
            continue
        value = about.get("request_start_ns", _MISSING)
        if not isinstance(value, int) or value < 0:
            raise _bad(path, where, "metadata.request_start_ns", value, "nanoseconds from 0 on")
        start.append(value)
        for key, values in (("input_sequence_length", prompt), ("output_sequence_length", output)):
            found = _inner(path, where, metrics, key).get("value", _MISSING)
            values.append(_tokens(path, where, f"metrics.{key}.value", found))
    notes = []
    if warming:
        notes.append(f"{path.name}: {warming} requests of the warm-up were left out.")
    return _relative(path, np.array(start, dtype=np.int64), prompt, output, failed, notes, 1e9)


def _inner(path: Path, where: str, row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = row.get(key, _MISSING)
    if not isinstance(found, dict):
        raise _bad(path, where, key, found, "an object")
    return found


def _relative(
    path: Path,
    start: NDArray[Any],
    prompt: Sequence[int],
    output: Sequence[int],
    failed: int,
    notes: list[str],
    per_s: float,
) -> Requests:
    """Requests from start instants on any clock, in order of time."""
    if failed:
        total = failed + start.size
        notes.append(
            f"{path.name}: {failed} of {total} requests failed and were left out; the load is lower "
            "by so much."
        )
    if not start.size:
        raise TraceError(f"{path}: the trace holds no request; allowed: at least one.")
    order = np.argsort(start, kind="stable")
    since = (start[order] - start.min()) / per_s
    return Requests(
        since,
        np.array(prompt)[order],
        np.array(output)[order],
        source=path.name,
        stationary=False,
        notes=tuple(notes),
    )


# --- results of benchmark clients ---------------------------------------------------------------


def _client(path: Path, result: Mapping[str, Any], format: str) -> TraceFile:
    prompt_list, output_list = (_listed(path, result, k) for k in ("input_lens", "output_lens"))
    n = len(prompt_list)
    errors = _listed(path, result, "errors", n) if result.get("errors") else [""] * n
    if len(output_list) != n:
        raise _bad(path, "line 1", "output_lens", output_list, f"{n} entries, as input_lens")
    known = bool(result.get("start_times"))
    start_list = _listed(path, result, "start_times", n) if known else [0.0] * n
    start: list[float] = []
    prompt: list[int] = []
    output: list[int] = []
    failed = 0
    for i, (first, a, b, error) in enumerate(
        zip(start_list, prompt_list, output_list, errors, strict=True)
    ):
        if error or b == 0:
            failed += 1
            continue
        where = f"request {i + 1}"
        if not math.isfinite(_number(first)):
            raise _bad(path, where, "start_times", first, "a number of seconds")
        start.append(_number(first))
        prompt.append(_tokens(path, where, "input_lens", a))
        output.append(_tokens(path, where, "output_lens", b))
    notes = []
    flight = result.get("max_concurrency")
    if known and flight:
        notes.append(
            f"{path.name}: the client kept at most {flight} requests in flight; a replay sends them "
            "at the recorded instants whatever the system does."
        )
    requests = _relative(path, np.array(start), prompt, output, failed, notes, 1.0)
    return TraceFile(requests, format, known)


def _listed(path: Path, result: Mapping[str, Any], key: str, n: int | None = None) -> list[Any]:
    found = result.get(key, _MISSING)
    if not isinstance(found, list) or (n is not None and len(found) != n):
        entries = "a list" if n is None else f"a list of {n} entries, as input_lens"
        raise _bad(path, "line 1", key, found, entries)
    return found
