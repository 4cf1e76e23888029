"""``python -m calibration.engines [FILE] [--only NAME [--version V]] [--jobs N] [--write] [--misses OUT.parquet]``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import pandas as pd

import simulator.engine_profiles
from calibration.engines.fit import Miss, Problem
from calibration.engines.plan import GENERATIONS, Generation, thinned
from calibration.engines.write import write
from simulator.engine_profiles import load_engine
from simulator.errors import InputError
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.runs import MeasuredRun, read_runs

MOST, BUDGET = 12, 300_000.0
SOURCE = "fit"


def main() -> int:
    """Fit the engines that were asked for and print, or write, their constants."""
    parser = argparse.ArgumentParser(prog="python -m calibration.engines", description=__doc__)
    parser.add_argument("file", nargs="?", help="measured runs; default: the bundled ones")
    parser.add_argument("--only", help="one engine")
    parser.add_argument("--version", help="one generation of it, as in calibration/engines/plan.py")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--budget", type=float, default=BUDGET, help="output tokens in flight of a run"
    )
    parser.add_argument("--most", type=int, default=MOST, help="runs of a deployment")
    parser.add_argument("--write", action="store_true", help="into the bundled profiles")
    parser.add_argument(
        "--misses", type=Path, help="table of runs with and without their deployment"
    )
    args = parser.parse_args()
    try:
        runs = read_runs(args.file or bundled_runs())
        found: list[Miss] = []
        for one in GENERATIONS:
            if args.only in (None, one.engine) and args.version in (None, one.version):
                found += _fit(one, runs, args)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if args.misses:
        pd.DataFrame([asdict(miss) for miss in found]).to_parquet(args.misses)
    return 0


def _fit(one: Generation, runs: list[MeasuredRun], args: argparse.Namespace) -> list[Miss]:
    own = thinned(one.runs(runs), args.most, args.budget)
    name = f"{one.engine} {one.version}".strip()
    problem = Problem(
        own, load_engine(one.engine), one.constants, jobs=args.jobs, progress=_progress(name)
    )
    x, formula = problem.fit()
    constants = problem.constants(x, formula)
    print(f"\n{name}: {len(own)} runs of {len(set(problem.owner))} deployments")
    for c in constants:
        print(
            f"  {c.name:22s} {c.value:12.4g} ± {c.stderr:9.2g}   learned {100 * c.learned:3.0f} %"
        )
    misses = problem.misses(x, formula)
    for deployment in dict.fromkeys(problem.owner):
        print(
            "   ", deployment, *(_said(misses, deployment, metric) for metric in ("ttft", "tpot"))
        )
    if args.write:
        folder = Path(simulator.engine_profiles.__file__).parent
        write(folder / f"{one.engine}.yaml", constants, one.version, SOURCE)
    return misses


def _said(misses: list[Miss], deployment: str, metric: str) -> str:
    own = pd.DataFrame([m for m in misses if (m.deployment, m.metric) == (deployment, metric)])
    size = 100.0 * own[["log", "left_out"]].abs().median()
    bias = 100.0 * own["left_out"].median()
    return f"{metric} {size['log']:.0f} left out {size['left_out']:.0f} ({bias:+.0f})"


def _progress(name: str):  # type: ignore[no-untyped-def]
    def shown(done: int, most: int) -> None:
        print(f"\r{name}: {done}/{most} simulated", end="", file=sys.stderr, flush=True)

    return shown


if __name__ == "__main__":
    raise SystemExit(main())
