"""Measured runs beside their predictions: errors by group, worst rows, output rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from simulator.validation.rows import Row
from simulator.validation.serving.doubts import doubt
from simulator.validation.serving.predict import Prediction
from simulator.validation.serving.runs import MeasuredRun
from simulator.validation.serving.split import fitted

METRICS = ("ttft", "tpot", "latency", "throughput")


@dataclass(frozen=True, slots=True)
class Score:
    """Relative errors of a group of runs.

    Attributes:
        rows: runs with a prediction.
        median: median absolute relative error.
        mean: mean absolute relative error.
        bias: median relative error, positive where predictions are too large.
    """

    rows: int
    median: float
    mean: float
    bias: float


def joined(runs: Sequence[MeasuredRun], predictions: Sequence[Prediction]) -> pd.DataFrame:
    """One row a run: what it was, measured, predicted, relative errors (``*_error``), reason."""
    rows = [_joined(run, p) for run, p in zip(runs, predictions, strict=True)]
    return pd.DataFrame(rows)


def score(errors: pd.Series[Any]) -> Score:
    """Score of relative errors; NaN are left out."""
    found = errors.dropna().to_numpy(dtype=np.float64)
    if not len(found):
        return Score(0, math.nan, math.nan, math.nan)
    size = np.abs(found)
    return Score(len(found), float(np.median(size)), float(size.mean()), float(np.median(found)))


def barred(table: pd.DataFrame) -> pd.DataFrame:
    """The runs the bars are about: relevant, usable, not dominated by queueing."""
    return table.loc[table["relevant"] & table["usable"] & ~table["queue_dominated"]]


def worst(table: pd.DataFrame, metric: str, count: int = 10) -> pd.DataFrame:
    """The ``count`` runs with the largest absolute log ratio of a metric."""
    ratio = np.abs(np.log1p(table[f"{metric}_error"].to_numpy(dtype=np.float64)))
    found = np.argsort(-np.nan_to_num(ratio, nan=-1.0), kind="stable")[:count]
    return table.iloc[found]


def output_rows(
    table: str, runs: Sequence[MeasuredRun], predictions: Sequence[Prediction]
) -> list[Row]:
    """Two rows a run, TTFT and TPOT; what has no prediction gives its reason.

    Args:
        table: stem of the file.
        runs: the file's runs, in order.
        predictions: theirs.
    """
    rows = []
    for run, p in zip(runs, predictions, strict=True):
        note = p.reason or "; ".join(p.notes)
        extrapolated = any("borrowed" in text or "assumed" in text for text in p.notes)
        for metric, measured, predicted in (
            ("ttft_ms", run.ttft_ms, p.ttft_ms),
            ("tpot_ms", run.tpot_ms, p.tpot_ms),
        ):
            rows.append(Row(table, run.row, metric, measured, predicted, "ms", extrapolated, note))
    return rows


def _joined(run: MeasuredRun, p: Prediction) -> dict[str, Any]:
    measured = {
        "ttft": run.ttft_ms,
        "tpot": run.tpot_ms,
        "latency": run.latency_ms,
        # requests in flight over their latency: what a closed loop completes
        "throughput": 1e3 * run.concurrency * run.osl / run.latency_ms / run.gpus,
    }
    predicted = {
        "ttft": p.ttft_ms,
        "tpot": p.tpot_ms,
        "latency": p.latency_ms,
        "throughput": 1e3 * run.concurrency * run.osl / p.latency_ms / run.gpus,
    }
    row: dict[str, Any] = {
        "row": run.row,
        "model": run.model.rsplit("/", 1)[-1],
        "gpu": run.gpu,
        "engine": run.engine,
        "version": run.version,
        "mode": run.mode,
        "layout": run.layout,
        "isl": run.isl,
        "osl": run.osl,
        "concurrency": run.concurrency,
        "documented": run.documented,
        "fitted": fitted(run),
        "usable": run.usable,
        "relevant": run.relevant,
        "queue_dominated": run.queue_dominated,
        "reason": p.reason,
        "notes": "; ".join(p.notes),
        "doubt": doubt(run),
    }
    for name in METRICS:
        row[name] = measured[name]
        row[f"{name}_predicted"] = predicted[name]
        row[f"{name}_error"] = predicted[name] / measured[name] - 1.0
    return row
