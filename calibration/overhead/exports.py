"""Exports of AIPerf, genai-perf and inference-perf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibration.overhead.clients import NATIVE, refuse_failures, said
from calibration.overhead.entry import Entry, read_entries
from calibration.overhead.results import Lengths, Result, Said, recorded
from simulator.errors import InputError

UNITS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_BLOCKS = {
    "ttft": "time_to_first_token",
    "tpot": "inter_token_latency",  # both tools mean (latency - TTFT) / (tokens - 1) of a request
    "e2e": "request_latency",
}
_STAT_KEYS = {"mean": ("avg", "mean"), "median": ("p50", "median")}
_PROBABILITIES = {
    "min": 0.0, "p1": 0.01, "p5": 0.05, "p10": 0.1, "p25": 0.25, "p50": 0.5, "median": 0.5,
    "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0,
}  # fmt: skip
_CONFIG = "input_config"
_CONCURRENCY = (
    f"{_CONFIG}.loadgen.concurrency",
    f"{_CONFIG}.perf_analyzer.stimulus.concurrency",
    f"{_CONFIG}.concurrency",
)
_RATE = (
    f"{_CONFIG}.loadgen.request_rate",
    f"{_CONFIG}.perf_analyzer.stimulus.request_rate",
    f"{_CONFIG}.request_rate",
)
_MODEL = (
    f"{_CONFIG}.endpoint.model_names",
    f"{_CONFIG}.model_names",
    f"{_CONFIG}.formatted_model_name",
    f"{_CONFIG}.model",
)


# --- summaries of AIPerf and genai-perf ---------------------------------------------------------


def is_summary(entry: Entry) -> bool:
    """Whether this is a summary of AIPerf or genai-perf."""
    return isinstance(entry.get("request_latency"), Mapping)


def read_summary(entry: Entry) -> Result:
    """The run of a summary.

    Raises:
        InputError: a value is missing or cannot be used.
    """
    aiperf = any(entry.get(k) is not None for k in (f"{_CONFIG}.loadgen", "schema_version"))
    requests = entry.count("request_count.avg")
    concurrency = entry.count(*_CONCURRENCY)
    notes: list[str] = []
    if requests is None:
        if concurrency is None:
            raise entry.bad("request_count.avg", None, "how many requests completed")
        requests = 10 * concurrency
        notes.append(f"the number of requests is not recorded; {requests} assumed")
    failed = int(entry.number("error_request_count.avg") or 0)
    refuse_failures(entry, failed, requests + failed)
    backend = NATIVE.get(entry.text(f"{_CONFIG}.backend", f"{_CONFIG}.endpoint.backend").lower())
    return Result(
        entry=entry,
        client="aiperf" if aiperf else "genai-perf",
        requests=requests,
        prompt=_spread(entry, "input_sequence_length"),
        output=_spread(entry, "output_sequence_length"),
        measured=_blocks(entry, "", _BLOCKS),
        concurrency=concurrency,
        rate_rps=entry.rate(*_RATE),
        model=said(entry, *_MODEL),
        engine=None if backend is None else Said(f"{_CONFIG}.backend", backend),
        version="",
        date=entry.text("start_time"),
        notes=tuple(notes),
    )


def _blocks(
    entry: Entry, prefix: str, names: Mapping[str, str], unit: str = ""
) -> dict[tuple[str, str], float]:
    """Mean and median of each metric that is there [s]."""
    found: dict[tuple[str, str], float] = {}
    for metric, name in names.items():
        scale = unit or entry.text(f"{prefix}{name}.unit") or "ms"
        if isinstance(entry.get(f"{prefix}{name}"), Mapping) and scale not in UNITS:
            raise entry.bad(f"{prefix}{name}.unit", scale, ", ".join(UNITS))
        for stat, keys in _STAT_KEYS.items():
            value = entry.number(*(f"{prefix}{name}.{key}" for key in keys))
            if value:
                found[metric, stat] = value * UNITS[scale]
    return found


def _spread(entry: Entry, key: str) -> Lengths:
    """Lengths by their mean and quantiles."""
    mean = entry.number(f"{key}.avg", f"{key}.mean")
    if mean is None or mean < 1.0:
        raise entry.bad(f"{key}.avg", mean, "a mean length of at least 1 token")
    points: dict[float, float] = {}
    for name, probability in _PROBABILITIES.items():
        value = entry.number(f"{key}.{name}")
        if value is not None:
            points.setdefault(probability, value)
    quantiles = sorted(points.items())
    tokens = [value for _, value in quantiles]
    if tokens != sorted(tokens):
        raise entry.bad(key, entry.get(key), "quantiles in ascending order")
    if len(quantiles) < 2:
        return Lengths(mean)
    return Lengths(mean, quantiles=tuple(quantiles), said="the file's quantiles")


# --- records of AIPerf --------------------------------------------------------------------------


def is_record(entry: Entry) -> bool:
    """Whether this is a line of AIPerf's records."""
    return isinstance(entry.get("metadata"), Mapping) and entry.get("metrics") is not None


def read_records(entries: Sequence[Entry]) -> Result:
    """The run of a file of records; the load is in the summary that AIPerf writes beside it.

    Raises:
        InputError: a value is missing or cannot be used.
    """
    kept, failed = [], 0
    for entry in entries:
        if entry.text("metadata.benchmark_phase") not in ("", "profiling"):
            continue
        if entry.get("error") is not None or entry.get("metadata.was_cancelled"):
            failed += 1
        else:
            kept.append(entry)
    first = Entry(entries[0].file, 0, entries[0].value)
    refuse_failures(first, failed, len(kept) + failed)
    if not kept:
        raise InputError(f"{first.file}: holds no request; allowed: at least one that completed.")
    start = [_needed(e, "metadata.request_start_ns") / 1e9 for e in kept]
    kept = [kept[i] for i in np.argsort(start, kind="stable")]
    lengths = [
        recorded([_tokens(e, f"metrics.{key}.value") for e in kept])
        for key in ("input_sequence_length", "output_sequence_length")
    ]
    measured: dict[tuple[str, str], float] = {}
    for metric, name in _BLOCKS.items():
        values = [v for e in kept if (v := _seconds(e, f"metrics.{name}")) is not None]
        if values:
            measured[metric, "mean"] = float(np.mean(values))
            measured[metric, "median"] = float(np.median(values))
    beside = _beside(first)
    return Result(
        entry=first,
        client="aiperf",
        requests=len(kept),
        prompt=lengths[0],
        output=lengths[1],
        measured=measured,
        concurrency=None if beside is None else beside.count(*_CONCURRENCY),
        rate_rps=None if beside is None else beside.rate(*_RATE),
        start_s=np.sort(np.array(start)) - min(start),
        model=None if beside is None else said(beside, *_MODEL),
        date="" if beside is None else beside.text("start_time"),
        notes=(f"{failed} of {len(kept) + failed} requests failed and were left out",)
        if failed
        else (),
    )


def _needed(entry: Entry, key: str) -> float:
    value = entry.number(key)
    if value is None:
        raise entry.bad(key, None, "a number of at least 0")
    return value


def _tokens(entry: Entry, key: str) -> int:
    value = entry.count(key)
    if value is None:
        raise entry.bad(key, None, "a whole number of at least 1")
    return value


def _seconds(entry: Entry, key: str) -> float | None:
    value = entry.number(f"{key}.value")
    unit = entry.text(f"{key}.unit") or "ms"
    if value is not None and unit not in UNITS:
        raise entry.bad(f"{key}.unit", unit, ", ".join(UNITS))
    return None if value is None else value * UNITS[unit]


def _beside(entry: Entry) -> Entry | None:
    """The summary in the folder of a file of records, if there is one."""
    file = entry.file.with_name("profile_export_aiperf.json")
    return read_entries(file)[0] if file.is_file() and file != entry.file else None


# --- inference-perf -----------------------------------------------------------------------------

_STAGE = {
    "ttft": "time_to_first_token",
    "tpot": "time_per_output_token",
    "itl": "inter_token_latency",
    "e2e": "request_latency",
}


def is_stage(entry: Entry) -> bool:
    """Whether this is a report of inference-perf."""
    return entry.get("load_summary") is not None and entry.get("successes") is not None


def read_stage(entry: Entry) -> Result:
    """The run of a report of one stage.

    Raises:
        InputError: a value is missing or cannot be used.
    """
    requests = entry.count("successes.count")
    if requests is None:
        raise entry.bad("successes.count", None, "how many requests completed")
    failed = int(entry.number("failures.count") or 0)
    refuse_failures(entry, failed, requests + failed)
    concurrency = entry.count("load_summary.concurrency")
    rate: Any = entry.rate("load_summary.requested_rate") if concurrency is None else None
    return Result(
        entry=entry,
        client="inference-perf",
        requests=requests,
        prompt=_spread(entry, "successes.prompt_len"),
        output=_spread(entry, "successes.output_len"),
        measured=_blocks(entry, "successes.latency.", _STAGE, unit="s"),
        concurrency=concurrency,
        rate_rps=rate,
        notes=(f"{failed} of {requests + failed} requests failed and were left out",)
        if failed
        else (),
    )
