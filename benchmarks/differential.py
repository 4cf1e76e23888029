"""Measured runs predicted twice: by simulating them, and by an independent estimator.

The estimator is NVIDIA's aiconfigurator, if it is installed (`pip install aiconfigurator`, Apache-2.0);
nothing of the project needs it. Both predict the same deployments in the same run, and their errors
stand in one table. A run that one of them refuses is left out for both, and counted.

    python benchmarks/differential.py [FILE] [--jobs N]

FILE is a table of measured runs (``xpyd validate --serving``); default: the bundled ones.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.errors import InputError
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.mapping import model_of, precision_of
from simulator.validation.serving.predict import Prediction, predict_all
from simulator.validation.serving.runs import MeasuredRun, read_runs
from simulator.validation.serving.scores import score
from simulator.validation.serving.split import fitted

MISSING = (
    "differential.py compares with aiconfigurator, which is not installed; install it with "
    "'pip install aiconfigurator' (Apache-2.0) and run this again."
)

QUANTISATION = {"fp8": "fp8_block", "": None}
"""Name of an estimator's GEMM mode by the label of a run that names none; None: its own choice."""

REPORT = Path(__file__).with_suffix(".md")

HEAD = """# Against an independent estimator

Written by `python benchmarks/differential.py --write`: measured serving runs predicted by simulating
them and by aiconfigurator 0.12.0 (its point estimate, from its own measured tables), the same
deployments in one run. *Fitted*: deployments that engine profiles were fitted on here; the estimator
fits nothing. It answers for a steady state; these runs open with a burst, and TTFT is mostly that.

"""

KV = {"fp8": "fp8", "bf16": "bfloat16"}
"""The estimator's name of a KV format."""

Estimator = Callable[[MeasuredRun], tuple[float, float]]
"""Mean TTFT and TPOT of a run [ms]; raises whatever it raises where it has no answer."""


@dataclass(frozen=True)
class Pair:
    """One run, predicted by both; NaN and a reason where one has no prediction."""

    run: MeasuredRun
    ours: Prediction
    theirs: tuple[float, float]
    reason: str = ""


def load_estimator() -> Estimator:
    """Aiconfigurator's point estimate.

    Raises:
        InputError: it is not installed, or its interface is not the one known here.
    """
    try:
        estimate = importlib.import_module("aiconfigurator.cli.api").cli_estimate
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "aiconfigurator":
            raise InputError(f"aiconfigurator cannot be imported: {error}.") from None
        raise InputError(MISSING) from None
    except AttributeError:
        raise InputError(
            "aiconfigurator has no cli_estimate; allowed: a version with aiconfigurator.cli.api.cli_estimate."
        ) from None

    def of(run: MeasuredRun) -> tuple[float, float]:
        try:
            found = estimate(run.model, run.gpu, **arguments(run))
        except Exception as error:
            if "download" not in type(error).__name__.lower():
                raise
            # a model it knows only by name: hand it the configuration bundled here
            with tempfile.TemporaryDirectory() as folder:
                found = estimate(str(checkpoint(run, Path(folder))), run.gpu, **arguments(run))
        return float(found.ttft), float(found.tpot)

    return of


def checkpoint(run: MeasuredRun, folder: Path) -> Path:
    """A folder with the ``config.json`` of the run's model, as a checkpoint has one."""
    text = (resources.files("simulator") / "models" / f"{model_of(run.model)}.json").read_text()
    (folder / "config.json").write_text(text)
    return folder


def arguments(run: MeasuredRun) -> dict[str, Any]:
    """What the estimator is asked for a run, besides model and GPU."""
    each = run.workers
    asked: dict[str, Any] = {
        "backend_name": run.engine,
        "isl": run.isl,
        "osl": run.osl,
        "tp_size": each.tp,
        "pp_size": each.pp,
        "attention_dp_size": each.attention_dp,
        "moe_ep_size": each.ep,
        "moe_tp_size": each.tp * each.attention_dp // each.ep,
    }
    mode = run.gemm or QUANTISATION.get(run.precision, run.precision)
    if mode and "gpt-oss" not in run.model:  # its checkpoint has one format, whatever the label
        asked["gemm_quant_mode"] = mode
    if kv := KV.get(str(precision_of(run).get("kv"))):  # as the simulation takes it
        asked["kvcache_quant_mode"] = kv
    if run.prefill is None:
        # requests in flight on one rank of one instance
        share = each.instances * each.attention_dp
        return asked | {"mode": "agg", "batch_size": max(1, round(run.concurrency / share))}
    first, ranks = run.prefill, each.instances * each.attention_dp
    return asked | {
        "mode": "disagg",
        "prefill_tp_size": first.tp,
        "prefill_pp_size": first.pp,
        "prefill_attention_dp_size": first.attention_dp,
        "prefill_moe_ep_size": first.ep,
        "prefill_moe_tp_size": first.tp * first.attention_dp // first.ep,
        "prefill_batch_size": 1,
        "prefill_num_workers": first.instances,
        "decode_batch_size": max(1, round(run.concurrency / ranks)),
        "decode_num_workers": each.instances,
    }


def compared(
    runs: Sequence[MeasuredRun], predictions: Sequence[Prediction], estimator: Estimator
) -> list[Pair]:
    """Every run with both predictions."""
    found = []
    for run, ours in zip(runs, predictions, strict=True):
        nan = (float("nan"), float("nan"))
        if ours.reason:
            found.append(Pair(run, ours, nan, f"not simulated: {short(ours.reason)}"))
            continue
        try:
            theirs = estimator(run)
        except Exception as error:
            found.append(Pair(run, ours, nan, f"not estimated: {short(str(error))}"))
        else:
            found.append(Pair(run, ours, theirs))
    return found


def short(reason: str) -> str:
    """The first sentence of a reason, without the row and the file it speaks of."""
    first = reason.splitlines()[0] if reason else "no reason given"
    first = re.sub(r"^row \S+: ", "", first)
    return re.sub(r"'/[^']*'", "it", re.split(r" at /|\{|\. |\(", first)[0]).strip()


def table(pairs: Iterable[Pair]) -> pd.DataFrame:
    """Relative errors of both, one row a run that both predict."""
    return pd.DataFrame(
        {
            "group": f"{p.run.engine} {p.run.mode}, {'fitted' if fitted(p.run) else 'never fitted'}",
            "ttft": p.ours.ttft_ms / p.run.ttft_ms - 1.0,
            "tpot": p.ours.tpot_ms / p.run.tpot_ms - 1.0,
            "ttft_estimator": p.theirs[0] / p.run.ttft_ms - 1.0,
            "tpot_estimator": p.theirs[1] / p.run.tpot_ms - 1.0,
        }
        for p in pairs
        if not p.reason
    )


def lines(errors: pd.DataFrame) -> list[str]:
    """The table as Markdown: median / mean absolute relative error [%]."""
    names = ("ttft", "ttft_estimator", "tpot", "tpot_estimator")
    out = [
        "| runs | | TTFT, xpyd | TTFT, estimator | TPOT, xpyd | TPOT, estimator |",
        "|---|---|---|---|---|---|",
    ]
    groups = [*errors.groupby("group"), ("all", errors)] if len(errors) else []
    for name, part in groups:
        scores = [score(part[n]) for n in names]
        cells = [f"{100 * s.median:.0f} / {100 * s.mean:.0f}" for s in scores]
        out.append(f"| {name} | {len(part)} | {' | '.join(cells)} |")
    return out


def report(pairs: Sequence[Pair]) -> str:
    """The table, and what it leaves out."""
    left_out = Counter(p.reason for p in pairs if p.reason).most_common()
    return "\n".join(
        [
            *lines(table(pairs)),
            "",
            "Median / mean absolute relative error [%].",
            *(["", "Left out of both:", ""] if left_out else []),
            *(f"- {count} runs {reason}" for reason, count in left_out),
        ]
    )


def main(arguments_: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measured runs predicted twice.")
    parser.add_argument("file", nargs="?", type=Path, help="measured runs; default: the bundled")
    parser.add_argument("--jobs", type=int, default=1, help="processes of the simulations")
    parser.add_argument("--write", action="store_true", help="also write differential.md")
    asked = parser.parse_args(arguments_)
    logging.disable(logging.WARNING)  # the estimator names every table it loads
    try:
        estimator = load_estimator()
        runs = [run for run in read_runs(asked.file or bundled_runs()) if run.usable]
    except InputError as error:
        print(f"differential: {error}", file=sys.stderr)
        return 2
    pairs = compared(runs, predict_all(runs, jobs=asked.jobs), estimator)
    text = report(pairs)
    print(text)
    if asked.write:
        REPORT.write_text(HEAD + text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
