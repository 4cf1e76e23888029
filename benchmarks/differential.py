"""Two estimators on the same measured serving runs, both errors in one table from one run.

    python benchmarks/differential.py --other OTHER.parquet [RUNS.parquet]

``OTHER`` holds what an independent estimator predicts for the same file of runs, in the schema of
``xpyd validate --rows``: columns ``row``, ``metric`` (``ttft_ms`` or ``tpot_ms``) and ``predicted``;
rows it cannot predict are left out or NaN. aiconfigurator (PyPI) is one that can be installed beside
the project: ask it for the same model, system, backend, lengths, concurrency and parallelism, and write
its TTFT and TPOT. Runs without ``OTHER`` show the simulation against a naive reference that everybody
can check: one unloaded prefill, and one decode step of a full batch, on the data sheet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from hwprofiles import load_gpu
from simulator.errors import InputError
from simulator.model import load_model
from simulator.perf.step import Precision
from simulator.validation.rows import rows_table
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.mapping import Unpredictable, model_of, precision_of
from simulator.validation.serving.predict import predict_all
from simulator.validation.serving.runs import MeasuredRun, read_runs
from simulator.validation.serving.scores import output_rows


def naive_ms(run: MeasuredRun) -> tuple[float, float]:
    """TTFT and TPOT of a data-sheet roofline without a client, a scheduler or overheads [ms].

    Prefill: 2 FLOP per active weight and token at the bf16 peak. Decode: active weights and the KV of
    the whole batch read once.
    """
    try:
        model, gpu = load_model(model_of(run.model)), load_gpu(run.gpu)
        asked = precision_of(run)
    except (InputError, Unpredictable):
        return float("nan"), float("nan")
    gpus = run.workers.gpus // run.workers.instances
    kv = Precision(kv=asked.get("kv", "bf16")).kv_bytes
    weight_bytes = 1.0 if str(asked.get("weights", "")).startswith("fp8") else 2.0
    prefill = 2.0 * model.active_parameters * run.isl / (gpus * gpu.bf16_flops.value)
    context = run.isl + run.osl / 2.0
    read = weight_bytes * model.active_parameters
    read += run.concurrency / run.workers.instances * context * model.kv_bytes_per_token(kv)
    return 1e3 * prefill, 1e3 * read / (gpus * gpu.memory_bytes_per_s.value)


def naive_rows(runs: list[MeasuredRun]) -> pd.DataFrame:
    """The naive reference in the schema of ``OTHER``."""
    found = []
    for run in runs:
        ttft, tpot = naive_ms(run)
        found += [(run.row, "ttft_ms", ttft), (run.row, "tpot_ms", tpot)]
    return pd.DataFrame(found, columns=["row", "metric", "predicted"])


def errors(mine: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Median and mean absolute relative error of both, on the rows both predict, by metric.

    Args:
        mine: the table of ``xpyd validate --rows``.
        other: columns ``row``, ``metric``, ``predicted``.
    """
    both = mine.merge(
        other[["row", "metric", "predicted"]], on=["row", "metric"], suffixes=("", "_other")
    )
    both = both.dropna(subset=["predicted", "predicted_other", "measured"])
    out = []
    for metric, part in both.groupby("metric"):
        for name, column in (("xpyd", "predicted"), ("other", "predicted_other")):
            off = np.abs(part[column] / part["measured"] - 1.0)
            out.append((metric, name, len(part), 100 * off.median(), 100 * off.mean()))
    return pd.DataFrame(out, columns=["metric", "estimator", "rows", "median %", "mean %"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="?", type=Path, default=None)
    parser.add_argument("--other", type=Path, default=None)
    given = parser.parse_args()
    path = given.runs or bundled_runs()
    runs = [r for r in read_runs(path) if r.usable and r.relevant and not r.queue_dominated]
    mine = rows_table(output_rows(path.stem, runs, predict_all(runs, jobs=2)))
    other = naive_rows(runs) if given.other is None else pd.read_parquet(given.other)
    print(errors(mine, other).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
