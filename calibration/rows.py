"""Measured rows as a table: one file for all operators, in the columns of the operator tables.

``read_rows`` reads what ``bench`` wrote. ``table`` cuts out one operator with just the columns its
table has, so that whatever reads the public tables reads a user's rows too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from calibration.case import Case
from calibration.clocks import Clocks
from calibration.machine import Machine
from calibration.timing import Timing
from simulator.errors import InputError, suggest

_HEAD = ("framework", "version", "kernel")
_ATTENTION = ("n_heads", "n_kv_heads", "head_dim", "window")
TABLES: dict[str, tuple[str, ...]] = {
    "gemm": (*_HEAD, "dtype", "m", "n", "k", "latency_us", "n_meas", "l2_warm"),
    "attn_prefill": (
        *_HEAD,
        *("attn_dtype", "kv_dtype", "batch", "isl", "step"),
        *_ATTENTION,
        *("latency_us", "n_meas"),
    ),
    "attn_decode": (
        *_HEAD,
        *("attn_dtype", "kv_dtype", "batch", "kv_len"),
        *_ATTENTION,
        *("latency_us", "n_meas", "l2_warm"),
    ),
    "comm": (*_HEAD, "op", "dtype", "n_gpus", "elements", "bytes", "latency_us", "n_meas"),
    "moe": (
        *_HEAD,
        *("dtype", "tokens", "hidden", "width", "topk", "experts"),
        *("latency_us", "n_meas", "l2_warm"),
    ),
    "elementwise": (*_HEAD, "dtype", "bytes", "latency_us", "n_meas", "l2_warm"),
    "copy": (*_HEAD, "op", "dtype", "bytes", "latency_us", "n_meas", "l2_warm"),
    "launch": (*_HEAD, "latency_us", "n_meas"),
}
"""Columns of each operator's table; those of the first four are the public tables' own."""

PUBLIC = ("gemm", "attn_prefill", "attn_decode", "comm")
"""Operators whose tables ``xpyd validate --operators`` reads."""

MACHINE = (
    *("gpu", "kind", "driver", "cuda", "torch", "devices"),
    *("memory_bytes", "cache_bytes", "sms", "capability"),
)
SEEN = (
    *("timing", "calls", "copies", "spread", "sm_mhz", "memory_mhz", "power_w", "temperature_c"),
    *("date",),
)

COLUMNS = tuple(
    dict.fromkeys(
        ["operator", "case", *(c for columns in TABLES.values() for c in columns), *MACHINE, *SEEN]
    )
)
_TEXT = ("operator", "case", *_HEAD, "dtype", "attn_dtype", "kv_dtype", "op", "gpu", "kind")
_TEXTS = (*_TEXT, "driver", "cuda", "torch", "timing", "date")
_FLOATS = ("latency_us", "spread", "sm_mhz", "memory_mhz", "power_w", "temperature_c")


def row(
    case: Case,
    timing: Timing,
    machine: Machine,
    *,
    how: str,
    copies: int,
    l2_warm: bool,
    clocks: Clocks,
    date: str,
) -> dict[str, Any]:
    """One measurement as a row; what its operator has no use for is absent."""
    found: dict[str, Any] = {
        "operator": case.operator,
        "case": case.key,
        "framework": "torch",
        "version": machine.torch,
        "kernel": case.kernel,
        **case.sizes,
        "latency_us": 1e6 * timing.call_s,
        "n_meas": timing.blocks,
        "l2_warm": l2_warm,
        **machine.to_dict(),
        "timing": how,
        "calls": timing.calls,
        "copies": copies,
        "spread": timing.spread,
        "date": date,
    }
    if case.operator.startswith("attn_"):
        found |= {"attn_dtype": case.dtype, "kv_dtype": case.dtype, "window": 0}
        if case.operator == "attn_prefill":
            found["step"] = 0
    else:
        found["dtype"] = case.dtype
    for name in ("sm_mhz", "memory_mhz", "power_w", "temperature_c"):
        value = getattr(clocks, name)
        if value == value:  # not NaN, which JSON does not have
            found[name] = value
    return {name: value for name, value in found.items() if name in COLUMNS}


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with every column, in a fixed order and with fixed types."""
    data = pd.DataFrame(list(rows), columns=list(COLUMNS))
    for name in COLUMNS:
        if name in _TEXTS:
            data[name] = data[name].astype("string")
        elif name in _FLOATS:
            data[name] = data[name].astype("float64")
        elif name == "l2_warm":
            data[name] = data[name].astype("boolean")
        else:
            data[name] = data[name].astype("Int64")
    return data


def write_rows(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write the rows as Parquet, whole or not at all.

    Raises:
        InputError: ``out`` cannot be written.
    """
    from simulator.report.files import output_file

    with output_file(out, "--out") as file:
        frame(rows).to_parquet(file, index=False)


def read_rows(path: Path) -> pd.DataFrame:
    """Rows that ``calibrate bench`` wrote.

    Raises:
        InputError: there is no such file, it is no Parquet, lacks columns or has no rows.
    """
    if not path.is_file():
        raise InputError(
            f"file '{path}' does not exist; xpyd calibrate bench --out {path} makes it."
        )
    try:
        data = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among these
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{path} cannot be read as Parquet: {first}.") from None
    for name in COLUMNS:
        if name not in data.columns:
            raise InputError(
                f"{path}: column '{name}' is missing; expected rows that xpyd calibrate bench wrote."
            )
    if data.empty:
        raise InputError(f"{path} has no rows.")
    _check_values(data, path)
    return data


def _check_values(data: pd.DataFrame, path: Path) -> None:
    known = set(TABLES)
    for operator in data["operator"].dropna().unique():
        if operator not in known:
            raise InputError(
                f"{path}: operator '{operator}' is unknown; {suggest(operator, known)}"
            )
    latency = pd.to_numeric(data["latency_us"], errors="coerce")
    bad = ~(latency > 0.0) | (latency == float("inf"))
    if bad.any():
        place = int(bad.to_numpy().nonzero()[0][0])
        raise InputError(
            f"{path} row {place}: latency_us is {data['latency_us'].iloc[place]}; allowed: a "
            "positive number."
        )
    for name in ("gpu", "torch"):
        if len(data[name].unique()) != 1:
            found = ", ".join(str(value) for value in data[name].unique()[:3])
            raise InputError(
                f"{path}: rows of more than one {name} ({found}); fit them one by one."
            )


def table(data: pd.DataFrame, operator: str) -> pd.DataFrame:
    """The rows of one operator with just the columns of its table, ready for any of its readers."""
    found = data.loc[data["operator"] == operator, list(TABLES[operator])].reset_index(drop=True)
    return found.convert_dtypes(dtype_backend="numpy_nullable").astype(
        {
            name: "int64"
            for name in found.columns
            if str(data[name].dtype) == "Int64" and found[name].notna().all()
        }
    )


def write_tables(data: pd.DataFrame, gpu: str, folder: Path) -> list[str]:
    """Write the operators that have a public table as ``GPU_OPERATOR.parquet``.

    Args:
        data: rows, as ``read_rows`` returns them.
        gpu: the name in the files' names: whose profile predicts them.
        folder: an existing folder.

    Returns:
        Names of the files.

    Raises:
        InputError: none of these operators was measured.
        OSError: a file cannot be written.
    """
    found = {name: table(data, name) for name in PUBLIC}
    names = [f"{gpu}_{name}.parquet" for name, rows in found.items() if not rows.empty]
    if not names:
        raise InputError(f"no rows of {', '.join(PUBLIC)}; only these have tables.")
    for name, rows in found.items():
        if not rows.empty:
            rows.to_parquet(folder / f"{gpu}_{name}.parquet", index=False)
    return names
