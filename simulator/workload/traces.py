"""Reading a request trace from a file; the format is told by its first bytes and its header.

============  ==========================================  =====================================
format        columns (any order, others are ignored)     arrivals
============  ==========================================  =====================================
``azure``     ``TIMESTAMP, ContextTokens,                 CSV of the Azure LLM inference traces:
              GeneratedTokens``                           dates, taken relative to the earliest
``csv``       ``arrival_s, prompt_tokens,                 seconds from 0
              output_tokens``
``parquet``   as ``csv``, and ``hash_ids`` (optional)     seconds from 0
``burstgpt``  ``Timestamp, Request tokens,                CSV of the BurstGPT traces: seconds
              Response tokens``                           from 0
============  ==========================================  =====================================

JSON formats (Mooncake, AIPerf, results of the vLLM and SGLang clients) are in ``trace_json``.

A dated (``azure``) trace whose rows are out of order is sorted, stably, and a note says so: the
dates leave no doubt about the order. Seconds that go backwards are refused: two files glued
together and a wrong column look just like that. A request needs at least one prompt token and one
output token; a row with zero (a request that failed or was cancelled where the trace was taken) is
refused with its line, because dropping it or making it 1 would change the load unseen. BurstGPT and
benchmark results record their failures as such (no output tokens, an error); those are left out, and a
note says how many.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from simulator.errors import TraceError
from simulator.workload.blocks import Blocks
from simulator.workload.lengths import MAX_TOKENS
from simulator.workload.requests import LATEST_ARRIVAL_S, Requests
from simulator.workload.trace_json import TOKENS_ALLOWED, TraceFile, read_json

TraceFormat = Literal[
    "auto", "azure", "csv", "parquet", "burstgpt", "mooncake", "aiperf", "vllm", "sglang"
]
JSON_FORMATS = ("mooncake", "aiperf", "vllm", "sglang")

AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
PLAIN_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens")
BURSTGPT_COLUMNS = ("Timestamp", "Request tokens", "Response tokens")
_BURSTGPT_OTHERS = ("Session ID", "Elapsed time", "Model", "Total tokens", "Log Type")

_HEADERS = (
    f"{','.join(AZURE_COLUMNS)} (azure), {','.join(PLAIN_COLUMNS)} (csv) or "
    f"{','.join(BURSTGPT_COLUMNS)} (burstgpt)"
)
_PARQUET_MAGIC = b"PAR1"
_SECONDS_ALLOWED = f"a number of seconds from 0 to {LATEST_ARRIVAL_S:g}"
_DATE_ALLOWED = "a date and time such as 2023-11-16 18:17:03.9799600"


@dataclass(frozen=True, slots=True)
class _Table:
    """Three columns of a trace, still as written.

    Attributes:
        path: the file.
        names: names of the columns, in the order of ``PLAIN_COLUMNS``.
        columns: their values; text from CSV, anything from Parquet.
        unit: ``"line"`` or ``"row"``.
        numbers: 1-based line or row number of each value.
        ignored: other columns of the file.
        blocks: shared prompt blocks, where the file has them.
        notes: what was left out.
    """

    path: Path
    names: tuple[str, ...]
    columns: tuple[Sequence[Any], ...]
    unit: str
    numbers: Sequence[int]
    ignored: tuple[str, ...]
    blocks: Blocks | None = None
    notes: tuple[str, ...] = ()

    def bad(self, column: int, row: int, allowed: str) -> TraceError:
        """The error of one value that cannot be used."""
        found = self.columns[column][row]
        shown = repr(found) if isinstance(found, str) else str(found)
        shown = "nothing" if found is None or found == "" else shown
        return TraceError(
            f"{self.path}: {self.unit} {self.numbers[row]}, column {self.names[column]}: found "
            f"{shown}; allowed: {allowed}."
        )


def read_trace(path: Path, format: TraceFormat = "auto") -> Requests:
    """Read all requests of a trace.

    Args:
        path: the file.
        format: what it must be; ``"auto"`` accepts any format listed above.

    Returns:
        The requests, not stationary; ``notes`` tells of sorting, of requests left out and of ignored
        columns.

    Raises:
        TraceError: the file is missing, unreadable, empty or of another format, a value is malformed
            (the sentence names file, line, column, what was found and what is allowed), or it does
            not say when requests arrived.
    """
    found = read_trace_file(path, format)
    if not found.arrivals_known:
        raise TraceError(
            f"{path}: holds no start_times, so arrivals are not known; allowed: its lengths "
            "(workload.lengths.trace) with arrivals or a closed_loop of your own."
        )
    return found.requests


def read_trace_file(path: Path, format: TraceFormat = "auto") -> TraceFile:
    """The same, also for a file that does not say when requests arrived.

    Raises:
        TraceError: as ``read_trace``, but for arrivals that are not known.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(64)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such trace file.") from None
    except IsADirectoryError:
        raise TraceError(f"{path}: is a directory; allowed: a trace file.") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}).") from None
    if not magic:
        raise TraceError(f"{path}: the file is empty; allowed: a header {_HEADERS} and requests.")
    is_parquet = magic[:4] == _PARQUET_MAGIC
    if magic.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{":
        if format != "auto" and format not in JSON_FORMATS:
            raise TraceError(f"{path}: found JSON; allowed with format '{format}': that format.")
        return read_json(path, format)
    if format != "auto" and is_parquet != (format == "parquet"):
        found = "a Parquet file" if is_parquet else "not a Parquet file"
        raise TraceError(f"{path}: found {found}; allowed with format '{format}': that format.")
    if format in JSON_FORMATS:
        raise TraceError(f"{path}: found no JSON; allowed with format '{format}': that format.")
    table = _parquet_table(path) if is_parquet else _csv_table(path, format)
    if not len(table.numbers):
        raise TraceError(f"{path}: the trace holds no request; allowed: at least one.")
    told = {AZURE_COLUMNS[0]: "azure", BURSTGPT_COLUMNS[0]: "burstgpt"}.get(table.names[0], "csv")
    return TraceFile(_requests(table), "parquet" if is_parquet else told)


def _requests(table: _Table) -> Requests:
    notes: list[str] = []
    if table.names == BURSTGPT_COLUMNS:
        table = _without_failures(table)
    notes += table.notes
    if table.ignored:
        notes.append(f"{table.path.name}: ignored columns {', '.join(table.ignored)}.")
    prompt, output = _tokens(table, 1), _tokens(table, 2)
    if table.names == AZURE_COLUMNS:
        arrival = _dates(table)
        if (np.diff(arrival) < 0).any():
            order = np.argsort(arrival, kind="stable")
            arrival, prompt, output = arrival[order], prompt[order], output[order]
            notes.append(f"{table.path.name}: rows were not in order of time and were sorted.")
    else:
        arrival = _seconds(table)
    return Requests(
        arrival,
        prompt,
        output,
        source=table.path.name,
        stationary=False,
        notes=tuple(notes),
        blocks=table.blocks,
    )


def _without_failures(table: _Table) -> _Table:
    """A BurstGPT table without its failed requests, which have no tokens."""
    zero = (_numeric(table.columns[1]) == 0) | (_numeric(table.columns[2]) == 0)
    failed = int(zero.sum())
    if not failed:
        return table
    if failed == zero.size:
        raise TraceError(f"{table.path}: all {failed} requests failed; allowed: some with tokens.")
    keep = np.flatnonzero(~zero).tolist()
    note = (
        f"{table.path.name}: {failed} of {zero.size} requests failed (no tokens) and were left out; "
        "the load is lower by so much."
    )
    return replace(
        table,
        columns=tuple([column[i] for i in keep] for column in table.columns),
        numbers=[table.numbers[i] for i in keep],
        notes=(note,),
    )


# --- values -------------------------------------------------------------------------------------


def _numeric(values: Sequence[Any]) -> NDArray[np.float64]:
    """Values as floats, NaN where they are no number."""
    if isinstance(values, list):
        try:
            return np.fromiter(map(float, values), np.float64, len(values))
        except ValueError:
            pass  # some value is no number: the slower way below tells which
    number = pd.to_numeric(pd.Series(values), errors="coerce")
    floats: NDArray[np.float64] = number.to_numpy(dtype=np.float64, na_value=np.nan)
    return floats


def _tokens(table: _Table, column: int) -> NDArray[np.int64]:
    number = _numeric(table.columns[column])
    ok = (number >= 1) & (number <= MAX_TOKENS) & (number == np.floor(number))
    if not ok.all():
        raise table.bad(column, int(np.argmin(ok)), TOKENS_ALLOWED)
    return number.astype(np.int64)


def _seconds(table: _Table) -> NDArray[np.float64]:
    arrival = _numeric(table.columns[0])
    ok = (arrival >= 0) & (arrival <= LATEST_ARRIVAL_S)
    if not ok.all():
        raise table.bad(0, int(np.argmin(ok)), _SECONDS_ALLOWED)
    ok[1:] = np.diff(arrival) >= 0
    if not ok.all():
        row = int(np.argmin(ok))
        raise table.bad(0, row, f"at least {arrival[row - 1]:g}, the arrival before it")
    return arrival


def _dates(table: _Table) -> NDArray[np.float64]:
    """Dates as seconds after the earliest, to the nanosecond."""
    when = pd.to_datetime(
        pd.Series(table.columns[0], dtype=object), format="ISO8601", utc=True, errors="coerce"
    )
    if when.isna().any():
        raise table.bad(0, int(when.isna().to_numpy().argmax()), _DATE_ALLOWED)
    instants = when.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    seconds: NDArray[np.float64] = (instants - instants.min()) / 1e9
    return seconds


# --- files --------------------------------------------------------------------------------------


def _csv_table(path: Path, format: TraceFormat) -> _Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            names = _csv_names(path, header, format)
            first, second, third = (header.index(name) for name in names)
            columns: tuple[list[str], ...] = ([], [], [])
            put_first, put_second, put_third = (values.append for values in columns)
            lines: list[int] = []
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise TraceError(
                        f"{path}: line {reader.line_num}: found {len(row)} values; allowed: "
                        f"{len(header)}, one for each column of the header."
                    )
                put_first(row[first])
                put_second(row[second])
                put_third(row[third])
                lines.append(reader.line_num)
    except UnicodeDecodeError:
        raise TraceError(f"{path}: is not text; allowed: CSV in UTF-8, or Parquet.") from None
    except csv.Error as error:
        raise TraceError(f"{path}: line {reader.line_num}: malformed CSV ({error}).") from None
    expected = names if names != BURSTGPT_COLUMNS else (*names, *_BURSTGPT_OTHERS)
    ignored = tuple(name for name in header if name not in expected)
    return _Table(path, names, columns, "line", lines, ignored)


def _csv_names(path: Path, header: list[str], format: TraceFormat) -> tuple[str, ...]:
    """Which three columns to read, told from the header."""
    known = {"azure": AZURE_COLUMNS, "csv": PLAIN_COLUMNS, "burstgpt": BURSTGPT_COLUMNS}
    allowed = known if format == "auto" else {format: known[format]}
    for names in allowed.values():
        if all(header.count(name) == 1 for name in names):
            return names
    wanted = _HEADERS if format == "auto" else f"{','.join(known[format])} ({format})"
    raise TraceError(
        f"{path}: line 1: found the header {','.join(header)!r}; allowed: a header with each of "
        f"{wanted} once."
    )


def _parquet_table(path: Path) -> _Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TraceError(f"{path}: is not a readable Parquet file ({reason}).") from None
    missing = [name for name in PLAIN_COLUMNS if name not in table.column_names]
    if missing:
        raise TraceError(
            f"{path}: found the columns {', '.join(table.column_names) or 'none'}; allowed: "
            f"{', '.join(PLAIN_COLUMNS)} must all be there."
        )
    for name in PLAIN_COLUMNS:
        kind = table.schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise TraceError(f"{path}: column {name}: found type {kind}; allowed: numbers.")
    columns = tuple(table.column(name).to_pandas() for name in PLAIN_COLUMNS)
    blocks = _blocks(path, table) if "hash_ids" in table.column_names else None
    expected = (*PLAIN_COLUMNS, "hash_ids")
    ignored = tuple(name for name in table.column_names if name not in expected)
    numbers = range(1, table.num_rows + 1)
    return _Table(path, PLAIN_COLUMNS, columns, "row", numbers, ignored, blocks)


def _blocks(path: Path, table: pa.Table) -> Blocks:
    """Ids of the prompts' blocks."""
    column = table.column("hash_ids").combine_chunks()
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (is_list and pa.types.is_integer(kind.value_type)) or column.null_count:
        raise TraceError(
            f"{path}: column hash_ids: found type {kind}; allowed: a list of whole numbers in every "
            "row."
        )
    starts = column.offsets.to_numpy().astype(np.int64)
    ids = column.flatten().to_numpy(zero_copy_only=False)
    return Blocks(ids, starts - starts[0])
