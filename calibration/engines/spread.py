"""How wide bands of measured runs must be: ``python -m calibration.engines.spread FILE MISSES...``.

The fit leaves each fitted deployment out in turn and predicts it with the others' constants (``fit.misses``):
errors with what a deployment nobody measured adds. A band has what kernels and engine constants may be off
by (``simulator.uncertainty``), and beside that a spread that is chosen here: the smallest with which a share (1 + 1/n) · 90 % of left-out errors
lie inside, the conformal level for the next of n deployments, which count alike however many runs they have.
Of TPOT it is the
spread of a whole step; of TTFT what then is missing, apart for clients that are documented and that are not.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import ndtri

from calibration.engines.plan import FloatArray, thinned
from simulator.uncertainty import LEVEL, SPREAD
from simulator.validation.serving.bands import run_bands, spread_in
from simulator.validation.serving.predict import predict_all
from simulator.validation.serving.runs import MeasuredRun, read_runs

DRAWS = 8
MOST, BUDGET = 4, 70_000.0


def needed(logs: FloatArray, known: FloatArray, weight: FloatArray, level: float = LEVEL) -> float:
    """The smallest further spread with which a share of errors lies inside their bands.

    Args:
        logs: shape (n,): logarithms of predicted over measured.
        known: shape (n,): standard deviations that bands have already.
        weight: shape (n,): of each error.
        level: the share.
    """
    reach = float(ndtri(0.5 + 0.5 * LEVEL))
    each = np.sqrt(np.maximum((np.abs(logs) / reach) ** 2 - known**2, 0.0))
    order = np.argsort(each)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(each[order][np.searchsorted(share, level - 1e-9)])


def main() -> None:
    """Print the spreads that the left-out errors of a fit ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("misses", nargs="+")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    misses = pd.concat([pd.read_parquet(name) for name in args.misses], ignore_index=True)
    runs = {run.row: run for run in read_runs(args.file)}
    chosen = thinned([runs[row] for row in dict.fromkeys(misses["row"])], MOST, BUDGET)
    table = misses.merge(_known(chosen, args.jobs), on=["row", "metric"])
    table["weight"] = 1.0 / table.groupby(["deployment", "metric"])["row"].transform("size")
    steps = table[table["metric"] == "tpot"]
    level = conformal(steps["deployment"].nunique())
    step = _asked(steps, level)
    print(f"step: {step:.3f} over {steps['deployment'].nunique()} deployments")
    for documented in (True, False):
        some = table[(table["metric"] == "ttft") & (table["known"] == documented)]
        some = some.assign(sigma=np.hypot(some["sigma"], step))
        name = "documented" if documented else "inferred"
        print(
            f"client, {name}: {_asked(some, level):.3f} over {some['deployment'].nunique()} deployments"
        )
    print(table.groupby(["metric", "deployment"])[["left_out", "sigma"]].agg(_size).round(3))


def _known(runs: list[MeasuredRun], jobs: int) -> pd.DataFrame:
    """What bands have without the spreads that are asked for."""
    bands = run_bands(
        runs, predict_all(runs, jobs=jobs), draws=DRAWS, spread=replace(SPREAD, step=0.0), jobs=jobs
    )
    return pd.DataFrame(
        [
            {"row": band.row, "metric": metric, "sigma": spread_in(logs)}
            for band in bands
            for metric, logs in (band.logs or {}).items()
        ]
    )


def conformal(deployments: int) -> float:
    """Share of the errors of so many deployments whose bound holds 90 % of another's."""
    return min(1.0, LEVEL * (1.0 + 1.0 / deployments))


def _asked(table: pd.DataFrame, level: float) -> float:
    logs, known, weight = (
        table[name].to_numpy(dtype=np.float64) for name in ("left_out", "sigma", "weight")
    )
    return needed(logs, known, weight, level)


def _size(values: pd.Series[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


if __name__ == "__main__":
    main()
