"""What every validation writes: one row per measured row and metric."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

import pandas as pd


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement beside its prediction.

    Attributes:
        table: stem of the file measured.
        row: position of the row in it.
        metric: ``latency_us``, ``ttft_ms`` or ``tpot_ms``.
        measured: what was measured, in ``unit``.
        predicted: what is predicted; NaN where there is no prediction.
        unit: of both.
        extrapolated: whether the prediction leaves what its parameters were measured on.
        note: what was assumed, or why there is no prediction.
    """

    table: str
    row: int
    metric: str
    measured: float
    predicted: float
    unit: str
    extrapolated: bool = False
    note: str = ""


COLUMNS = tuple(field.name for field in fields(Row))


def rows_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a table, in the order of ``COLUMNS``."""
    return pd.DataFrame([astuple(row) for row in rows], columns=list(COLUMNS)).astype(
        {"row": "int64", "measured": "float64", "predicted": "float64", "extrapolated": "bool"}
    )
