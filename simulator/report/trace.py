"""What ``xpyd trace`` shows: a workload file in tables, figures and one page; and its plain form."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

import scenarios
from simulator.errors import InputError, TraceError, suggest
from simulator.report import html, style
from simulator.report.block import Block, Verdict
from simulator.report.files import json_text
from simulator.report.terminal import print_verdicts, table
from simulator.report.text import MISSING, count, number, percent, plural, seconds, short_seconds
from simulator.report.trace_figures import lengths_figure, rate_figure
from simulator.version import VERSION
from simulator.workload import TraceFile, TraceFormat, read_trace_file
from simulator.workload.describe import Description, describe
from simulator.workload.traces import PLAIN_COLUMNS

SCHEMA = 1
_STATISTICS = ("mean", "min", "p50", "p90", "p95", "p99", "max")


@dataclass(frozen=True, slots=True)
class TraceReport:
    """A trace that was read, and its description.

    Attributes:
        name: bundled name or file name.
        file: what was read.
        found: its numbers.
    """

    name: str
    file: TraceFile
    found: Description

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``xpyd trace --json``; a missing value is None."""
        out: dict[str, Any] = {"schema": SCHEMA, "trace": self.name, "format": self.file.format}
        out["arrivals_known"] = self.file.arrivals_known
        out |= asdict(self.found)
        return {**out, "notes": list(self.file.requests.notes)}


def trace_report(name_or_path: str, format: TraceFormat = "auto") -> TraceReport:
    """Read and describe a trace.

    Args:
        name_or_path: a bundled trace, or a file.
        format: what the file must be.

    Raises:
        TraceError: there is none, or it cannot be read.
    """
    names = scenarios.trace_names()
    path = Path(name_or_path)
    if name_or_path in names:
        path = scenarios.trace_path(name_or_path)
    elif not path.exists() and len(path.parts) < 2 and not path.suffix:
        raise TraceError(
            f"{name_or_path!r} is no file and no bundled trace; {suggest(name_or_path, names)}"
        )
    file = read_trace_file(path, format)
    found = describe(file.requests, arrivals_known=file.arrivals_known)
    return TraceReport(name_or_path if name_or_path in names else path.name, file, found)


# --- words --------------------------------------------------------------------------------------


def blocks(report: TraceReport) -> tuple[Block, ...]:
    """All tables of a trace, in reading order."""
    found = report.found
    tables = [_facts(report), _lengths(found)]
    if found.windows:
        tables.append(_windows(found))
    return tuple(tables)


def _facts(report: TraceReport) -> Block:
    found = report.found
    rows = [("format", report.file.format), ("requests", count(found.requests))]
    if not report.file.arrivals_known:
        rows.append(("arrivals", "not in the file: only its lengths can be used"))
    else:
        rows += [
            ("span", seconds(found.span_s)),
            ("rate", number(found.rate_rps, "requests/s on average")),
            ("gaps between arrivals", f"cv {number(found.gap_cv)} (a Poisson process has 1)"),
        ]
    if found.same_instant:
        rows.append(("at the instant of the one before", percent(found.same_instant)))
    ranks = f"rank correlation {number(found.rank_correlation)}"
    rows.append(("prompt and output length", f"correlation {number(found.correlation)}, {ranks}"))
    tokens = found.prompt_tokens["mean"] / found.output_tokens["mean"]
    rows.append(("prompt tokens per output token", number(tokens)))
    if found.sharing is not None:
        share = found.sharing
        rows.append(
            (
                "shared prefixes",
                f"{percent(share.hit_rate)} of prompt tokens in an ideal prefix cache; "
                f"{count(share.distinct)} of {count(share.blocks)} blocks of "
                f"{share.block_tokens} tokens differ",
            )
        )
    return Block("Trace", (), tuple(rows))


def _lengths(found: Description) -> Block:
    rows = tuple(
        (name, *(count(tokens[s]) for s in _STATISTICS))
        for name, tokens in (("prompt", found.prompt_tokens), ("output", found.output_tokens))
    )
    return Block("Tokens", ("length", *_STATISTICS), rows)


def _windows(found: Description) -> Block:
    rows = tuple(
        (
            short_seconds(w.length_s),
            number(w.peak_rps, "/s"),
            number(w.peak_to_mean),
            number(w.dispersion),
        )
        for w in found.windows
    )
    header = ("window", "busiest", "over the mean", "index of dispersion")
    note = (
        "Index of dispersion: variance over mean of the counts; 1 for a Poisson process, and growing "
        "with the window where the rate itself changes."
    )
    return Block("Burstiness", header, rows, note)


def headline(report: TraceReport) -> str:
    """Name and size on one line."""
    found = report.found
    rate = MISSING if found.rate_rps is None else number(found.rate_rps, "requests/s")
    return f"{report.name} · {plural(found.requests, 'request')} · {rate}"


def print_trace(out: Console, report: TraceReport) -> None:
    """Print all tables of a trace, then what was changed while reading."""
    out.print(Text(headline(report), style="bold"))
    for block in blocks(report):
        out.print(table(block))
    print_verdicts(out, (), report.file.requests.notes)


# --- files --------------------------------------------------------------------------------------


def write_trace_report(folder: Path, report: TraceReport) -> list[str]:
    """Write ``trace.json``, the figures and ``trace.html`` into a folder.

    Returns:
        Names of the files.

    Raises:
        OSError: a file cannot be written.
    """
    requests = report.file.requests
    drawn = {"lengths.png": style.png_bytes(lengths_figure(requests, report.name))}
    if report.found.rate_rps is not None:
        drawn = {"rate.png": style.png_bytes(rate_figure(requests, report.name)), **drawn}
    for name, png in drawn.items():
        (folder / name).write_bytes(png)
    (folder / "trace.json").write_text(json_text(report.to_dict()), encoding="utf-8")
    (folder / "trace.html").write_text(_page(report, drawn), encoding="utf-8")
    return [*drawn, "trace.json", "trace.html"]


_ALT = {"rate.png": "Arrival rate over time", "lengths.png": "Prompt and output lengths"}


def _page(report: TraceReport, drawn: Mapping[str, bytes]) -> str:
    facts, lengths, *bursts = (html.table(block) for block in blocks(report))
    pictures = {name: html.image(png, _ALT[name]) for name, png in drawn.items()}
    none: tuple[Verdict, ...] = ()
    sections = (facts, pictures.get("rate.png", ""), *bursts, lengths, pictures["lengths.png"])
    return html.page(
        headline(report),
        verdicts=none,
        warnings=report.file.requests.notes,
        sections=sections,
        footer=f"xpyd {VERSION or '(not installed)'}",
    )


def plain_form(report: TraceReport, suffix: str) -> tuple[bytes, str]:
    """The trace as a plain file: ``arrival_s, prompt_tokens, output_tokens`` and, if known, block ids.

    Args:
        report: the trace.
        suffix: ``.parquet`` or ``.csv``; CSV has no place for block ids.

    Returns:
        The bytes of the file, and a sentence on what it leaves out, or nothing.

    Raises:
        InputError: another suffix, or a trace without arrivals.
    """
    if suffix not in (".parquet", ".csv"):
        raise InputError(f"--convert: found the ending {suffix!r}; allowed: .parquet or .csv.")
    if not report.file.arrivals_known:
        raise InputError(
            f"--convert: {report.name} does not say when requests arrived; allowed: a trace that does."
        )
    requests = report.file.requests
    values = (requests.arrival_s, requests.prompt_tokens, requests.output_tokens)
    frame = pd.DataFrame(dict(zip(PLAIN_COLUMNS, values, strict=True)))
    if suffix == ".csv":
        left = "CSV has no place for the block ids." if requests.blocks is not None else ""
        return frame.to_csv(index=False).encode(), left
    return _parquet(frame, report), ""


def _parquet(frame: pd.DataFrame, report: TraceReport) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    shared = report.file.requests.blocks
    if shared is not None:
        starts = pa.array(shared.starts.astype(np.int32))
        out = out.append_column("hash_ids", pa.ListArray.from_arrays(starts, pa.array(shared.ids)))
    buffer = io.BytesIO()
    pq.write_table(out, buffer, compression="zstd", version="2.6")
    return buffer.getvalue()
