"""From files to measured runs; the client is told by the keys of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from calibration.overhead.clients import is_client, read_client
from calibration.overhead.entry import Entry, read_entries
from calibration.overhead.exports import (
    is_record,
    is_stage,
    is_summary,
    read_records,
    read_stage,
    read_summary,
)
from calibration.overhead.results import Result
from simulator.errors import InputError

_ALLOWED = (
    "a result of vllm bench serve, sglang.bench_serving, AIPerf, genai-perf or a stage of "
    "inference-perf"
)


def read_results(files: Sequence[Path]) -> list[Result]:
    """The measured runs of several files, in order.

    Raises:
        InputError: a file cannot be read, is of none of the clients, or holds neither TTFT nor TPOT.
    """
    found: list[Result] = []
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"{file}: is given twice; allowed: each file once.")
        seen.add(file.resolve())
        found += _read(file)
    labels = [result.label for result in found]
    if len(set(labels)) < len(labels):  # one name in several folders
        found = [_named(result) for result in found]
    return found


def _read(file: Path) -> list[Result]:
    entries = read_entries(file)
    if is_record(entries[0]):
        return [_checked(read_records(entries))]
    return [_checked(_one(entry)) for entry in entries]


def _one(entry: Entry) -> Result:
    for told, read in (
        (is_client, read_client),
        (is_stage, read_stage),
        (is_summary, read_summary),
    ):
        if told(entry):
            return read(entry)
    keys = ", ".join(list(entry.value)[:6]) or "none"
    line = f" line {entry.line}:" if entry.line else ""
    raise InputError(f"{entry.file}:{line} found the keys {keys}; allowed: {_ALLOWED}.")


def _checked(result: Result) -> Result:
    if not any(metric in ("ttft", "tpot") for metric, _ in result.measured):
        line = f" line {result.entry.line}:" if result.entry.line else ""
        raise InputError(
            f"{result.entry.file}:{line} holds neither TTFT nor TPOT; allowed: a run of a streaming "
            "endpoint with at least one of them."
        )
    return result


def _named(result: Result) -> Result:
    """The same with its folder in its label."""
    return replace(result, name=f"{result.entry.file.parent.name}/{result.entry.label}")
