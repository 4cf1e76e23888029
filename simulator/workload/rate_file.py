"""Reading a table of arrival rates: CSV with the columns ``t_s, rate_rps``."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from simulator.errors import InputError, TraceError
from simulator.workload.rates import Rates

COLUMNS = ("t_s", "rate_rps")


def read_rates(path: Path) -> Rates:
    """The rates of a file, linear between its rows.

    Args:
        path: CSV with a header that has ``t_s`` [s] and ``rate_rps`` [1/s].

    Raises:
        TraceError: the file cannot be read, or a value is malformed; the sentence names file, line,
            what was found and what is allowed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if sorted(header) != sorted(COLUMNS):
                raise TraceError(
                    f"{path}: line 1: found the header {','.join(header)!r}; allowed: "
                    f"{','.join(COLUMNS)}."
                )
            rows = [_row(path, reader.line_num, header, row) for row in reader if row]
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file of rates.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: is not a readable CSV file ({error}).") from None
    points = np.array(rows, dtype=np.float64).reshape(-1, 2)
    try:
        return Rates(points[:, 0], points[:, 1])
    except InputError as error:
        raise TraceError(f"{path}: {error}") from None


def _row(path: Path, line: int, header: list[str], row: list[str]) -> list[float]:
    if len(row) != len(header):
        raise TraceError(f"{path}: line {line}: found {len(row)} values; allowed: {len(header)}.")
    found: dict[str, float] = {}
    for name, text in zip(header, row, strict=True):
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not (math.isfinite(found[name]) and found[name] >= 0.0):
            raise TraceError(
                f"{path}: line {line}, column {name}: found {text!r}; allowed: a number of at "
                "least 0."
            )
    return [found[name] for name in COLUMNS]
