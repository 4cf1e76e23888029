"""Errors of predicted kernels, by GPU, operator, type and whether the shapes were ever fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from simulator.validation.operators.predict import predict
from simulator.validation.operators.tables import Table, bundled_tables
from simulator.validation.rows import COLUMNS

Progress = Callable[[int, int], None]

KEYS: dict[str, tuple[str, ...]] = {
    "gemm": ("n", "k"),
    "attn_decode": ("n_heads", "n_kv_heads", "head_dim", "window"),
    "attn_prefill": ("n_heads", "n_kv_heads", "head_dim", "window"),
    "comm": ("n_gpus", "bytes"),
    "moe": ("hidden", "width", "topk", "experts"),
    "mla_decode": ("n_heads", "batch"),
    "mla_prefill": ("n_heads", "batch"),
}
"""What makes a shape *unseen*: no row with the same values of these was fitted."""

SCORES = ("rows", "mape", "median", "bias", "p90", "naive")
"""Columns of ``scores``: relative errors [1]; ``bias`` is the median signed error."""


def validate_tables(tables: Sequence[Table], progress: Progress | None = None) -> pd.DataFrame:
    """Predict every row of some tables.

    Returns:
        One row per measured row: ``table, row, gpu, operator, framework, dtype, region, fitted,
        measured_us, predicted_us, naive_us, extrapolated, note, error, naive_error``; errors are
        ``predicted/measured - 1``.
    """
    known = fitted_shapes()
    parts = []
    for i, table in enumerate(tables):
        found = predict(table)
        parts.append(
            pd.DataFrame(
                {
                    "table": table.stem,
                    "row": np.arange(len(found)),
                    "gpu": table.gpu.name,
                    "operator": table.operator,
                    "framework": found["framework"].astype(str).to_numpy(),
                    "dtype": found["dtype"].to_numpy(),
                    "region": found["region"].to_numpy(),
                    "fitted": _fitted(table, known),
                    "measured_us": found["latency_us"].to_numpy(dtype=np.float64),
                    "predicted_us": found["predicted_us"].to_numpy(),
                    "naive_us": found["naive_us"].to_numpy(),
                    "extrapolated": found["extrapolated"].to_numpy(),
                    "note": found["note"].to_numpy(),
                }
            )
        )
        if progress is not None:
            progress(i + 1, len(tables))
    out = pd.concat(parts, ignore_index=True)
    out["error"] = out["predicted_us"] / out["measured_us"] - 1.0
    out["naive_error"] = out["naive_us"] / out["measured_us"] - 1.0
    return out


def fitted_shapes() -> dict[tuple[str, str, str, str], set[tuple[int, ...]]]:
    """Shapes the bundled profiles were fitted to, by (GPU, operator, framework, type)."""
    known: dict[tuple[str, str, str, str], set[tuple[int, ...]]] = {}
    for table in bundled_tables():
        frame = table.frame[table.frame["part"] == "fit"] if "part" in table.frame else table.frame
        column = _type_column(table.operator)
        for (framework, dtype), rows in frame.groupby(["framework", column], observed=True):
            key = (table.gpu.name, table.operator, str(framework), str(dtype))
            known[key] = set(_shapes(rows, table.operator))
    return known


def _type_column(operator: str) -> str:
    return {"gemm": "dtype", "moe": "dtype", "comm": "op"}.get(operator, "kv_dtype")


def _shapes(rows: pd.DataFrame, operator: str) -> Iterator[tuple[int, ...]]:
    columns = [rows[c].to_numpy(dtype=np.int64).tolist() for c in KEYS[operator]]
    return zip(*columns, strict=True)


def _fitted(
    table: Table, known: dict[tuple[str, str, str, str], set[tuple[int, ...]]]
) -> list[bool]:
    frame = table.frame
    if "part" in frame:
        return (frame["part"] == "fit").tolist()
    columns = zip(
        frame["framework"].astype(str),
        frame[_type_column(table.operator)].astype(str),
        _shapes(frame, table.operator),
        strict=True,
    )
    none: set[tuple[int, ...]] = set()
    return [
        shape in known.get((table.gpu.name, table.operator, framework, dtype), none)
        for framework, dtype, shape in columns
    ]


def scores(found: pd.DataFrame) -> pd.DataFrame:
    """Errors of the cold region by GPU, operator, framework, type and fitted or not.

    Args:
        found: of ``validate_tables``.

    Returns:
        Index (gpu, operator, framework, dtype, fitted), columns ``SCORES``.
    """
    kept = found[(found["region"] == "cold") & found["predicted_us"].notna()]
    keys = ["gpu", "operator", "framework", "dtype", "fitted"]
    rows = {key: _score(part) for key, part in kept.groupby(keys, sort=True)}
    index = pd.MultiIndex.from_tuples(list(rows), names=keys)
    return pd.DataFrame(list(rows.values()), index=index, columns=list(SCORES))


def _score(part: pd.DataFrame) -> tuple[float, ...]:
    error = part["error"].to_numpy()
    size = np.abs(error)
    return (
        float(len(part)),
        float(size.mean()),
        float(np.median(size)),
        float(np.median(error)),
        float(np.quantile(size, 0.9)),
        float(np.abs(part["naive_error"].to_numpy()).mean()),
    )


def output_rows(found: pd.DataFrame) -> pd.DataFrame:
    """What ``validate --rows`` writes: ``rows.COLUMNS``, one row per measured row, in order."""
    out = found[["table", "row", "extrapolated", "note"]].copy()
    out["metric"] = "latency_us"
    out["unit"] = "us"
    out["measured"] = found["measured_us"]
    out["predicted"] = found["predicted_us"]
    return out[list(COLUMNS)]
