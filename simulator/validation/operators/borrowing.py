"""What it costs to predict a GPU with the efficiencies of another: leave one GPU out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from hwprofiles import GpuProfile, as_borrower
from simulator.validation.operators.predict import predict
from simulator.validation.operators.tables import Table

COLUMNS = ["gpu", "lender", "operator", "rows", "mape", "bias", "own_mape"]


def borrowing(tables: Sequence[Table], framework: str = "vllm") -> pd.DataFrame:
    """Errors of every calibrated GPU when nobody had measured it.

    Args:
        tables: measured kernels of several GPUs.
        framework: whose kernels.

    Returns:
        ``COLUMNS``, bf16 rows of the cold region: mean relative error with the lender's
        efficiencies on the GPU's own data sheet, median signed error, and mean relative error with
        its own parameters [1].
    """
    gpus = {table.gpu.name: table.gpu for table in tables}
    rows = []
    for table in tables:
        part = table.frame[
            (table.frame["framework"].astype(str) == framework) & _bf16(table.frame)
        ].reset_index(drop=True)
        if part.empty:
            continue
        own = _errors(replace(table, frame=part))
        for name, lender in sorted(gpus.items()):
            if name == table.gpu.name:
                continue
            borrower = as_borrower(table.gpu, lender)
            if table.operator == "comm" and _own_fabric(borrower, table.gpu):
                continue
            found = _errors(replace(table, frame=part, gpu=borrower))
            if len(found):
                rows.append(
                    (
                        table.gpu.name,
                        name,
                        table.operator,
                        len(found),
                        float(found.abs().mean()),
                        float(found.median()),
                        float(own.abs().mean()),
                    )
                )
    return pd.DataFrame(rows, columns=COLUMNS).sort_values(["operator", "gpu", "lender"])


def _own_fabric(borrower: GpuProfile, gpu: GpuProfile) -> bool:
    """Whether the lender's links are of another kind, so that nothing could be borrowed."""
    return borrower.family().all_reduce == gpu.family().all_reduce


def _bf16(frame: pd.DataFrame) -> pd.Series:
    column = next((c for c in ("kv_dtype", "dtype") if c in frame), None)
    if column is None:
        return pd.Series(True, index=frame.index)
    return frame[column].astype(str).isin(["bfloat16", "half"])


def _errors(table: Table) -> pd.Series:
    found = predict(table)
    kept = found[(found["region"] == "cold") & found["predicted_us"].notna()]
    return kept["predicted_us"] / kept["latency_us"] - 1.0
