"""A refit in tables, sentences, JSON and rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from calibration.overhead.fit import Overhead
from calibration.overhead.refit import SCALE, Constant
from calibration.overhead.results import METRICS, STATS
from calibration.overhead.scores import STAGES, errors, mean_error, score_text, stages
from simulator.report.block import Block, Verdict
from simulator.validation.rows import COLUMNS, Row, rows_table

_WORDS = {
    "c0_s": "overhead of a step",
    "c1_s": "overhead of a sequence",
    "host_s": "shortest step of the host",
    "front_s": "front end of a request",
    "sustained_bf16": "prefill efficiency, bf16",
    "sustained_fp8": "prefill efficiency, fp8",
    "sustained_experts": "prefill efficiency, experts",
}
_FROM = {"data": "the runs", "both": "runs and prior", "prior": "the prior"}


def blocks(found: Overhead) -> list[Block]:
    """Tables: each run before and after, by metric, and the constants."""
    tables = [_runs(found, metric) for metric in SCALE]
    return [
        *(block for block in tables if block.rows),
        _constants(found.refit.constants, found.setup.engine.name),
    ]


def _runs(found: Overhead, metric: str) -> Block:
    """One metric of each run: measured, and errors of predictions."""
    refit = found.refit
    known = stages(refit)
    wrong = {stage: errors(refit.replays, times, metric) for stage, times in known.items()}
    rows = []
    for i, replay in enumerate(refit.replays):
        measured = replay.result.measured.get((metric, "mean"))
        if measured is not None:
            cells = (replay.client, f"{len(replay.requests):,}", f"{1e3 * measured:,.4g} ms")
            rows.append((replay.result.label, *cells, *(_percent(wrong[s][i]) for s in known)))
    if len(rows) > 1:
        means = (_percent(mean_error(refit, stage, metric), sign="") for stage in known)
        rows.append(("mean absolute error", "", "", "", *means))
    names = {"before": "before", "after": "after", "left_out": "left out"}
    header = ("run", "client", "requests", "measured", *(names[stage] for stage in known))
    note = "Means over all requests; errors of predictions, +: predicted slower than measured."
    if "left_out" in known:
        note += " Left out: with constants fitted to the other files only."
    return Block(f"{metric.upper()} on {found.setup.text}", header, tuple(rows), note)


def _constants(constants: Sequence[Constant], engine: str) -> Block:
    rows = tuple(
        (
            _WORDS[c.name],
            c.name,
            _value(c.name, c.prior),
            "–" if c.verdict == "prior" else _value(c.name, c.value),
            _interval(c),
            f"{100 * c.learned:.0f} %",
            _FROM[c.verdict],
        )
        for c in constants
    )
    header = ("constant", "key", engine, "fitted", "90 % interval", "learned", "decided by")
    note = (
        "Learned: share of the prior's variance that the runs took away. Constants decided by the "
        "prior stay as they are in the profile."
    )
    return Block("Constants", header, rows, note)


def verdicts(found: Overhead) -> list[Verdict]:
    """What the refit achieved, and how sure it is."""
    refit = found.refit
    better = all(not mean_error(refit, "after", m) > mean_error(refit, "before", m) for m in SCALE)
    text = score_text(refit)
    sentences = [Verdict(better, f"{text[0].upper()}{text[1:]}.")]
    by = {kind: [c.name for c in refit.constants if c.verdict == kind] for kind in _FROM}
    if by["data"]:
        sentences.append(Verdict(True, f"The runs determine {', '.join(by['data'])}."))
    if by["both"]:
        sentences.append(Verdict(None, f"Runs and prior decide {', '.join(by['both'])} together."))
    if by["prior"]:
        sentences.append(
            Verdict(
                None, f"The runs say next to nothing of {', '.join(by['prior'])}: the prior stays."
            )
        )
    if not refit.left_out:
        sentences.append(Verdict(None, "Fewer than three files: no error on runs left out."))
    if refit.widened > 1.5:
        sentences.append(
            Verdict(
                None,
                f"Residuals are {refit.widened:.1f} times what a good model leaves: check model, "
                "precision, parallelism and lengths; standard errors are widened by that.",
            )
        )
    return sentences


def notes(found: Overhead) -> list[str]:
    """What was assumed of each run."""
    by_text: dict[str, list[str]] = {}
    for replay in found.refit.replays:
        for note in replay.notes:
            by_text.setdefault(note, []).append(replay.result.label)
    return [f"{', '.join(labels)}: {text}." for text, labels in by_text.items()]


def to_dict(found: Overhead) -> dict[str, Any]:
    """The refit for ``--json`` (``docs/json.md``)."""
    refit = found.refit
    known = stages(refit)
    return {
        "schema": 1,
        "engine": found.engine.name,
        "prior": found.setup.engine.name,
        "deployment": found.setup.text,
        "constants": {
            c.name: {
                "prior": c.prior,
                "value": c.value,
                "stderr": c.stderr,
                "low": c.low,
                "high": c.high,
                "learned": c.learned,
                "decided_by": c.verdict,
            }
            for c in refit.constants
        },
        "errors": {
            stage: {f"{m}_s": mean_error(refit, stage, m) for m in SCALE} for stage in STAGES
        },
        "runs": [
            {
                "run": replay.result.label,
                "client": replay.result.client,
                "replayed": replay.client,
                "requests": len(replay.requests),
                "measured_s": _nested(replay.result.measured),
                **{f"{stage}_s": _nested(times[i]) for stage, times in known.items()},
                "notes": list(replay.notes),
            }
            for i, replay in enumerate(refit.replays)
        ],
        "widened": refit.widened,
        "simulations": refit.simulations,
    }


def output_rows(found: Overhead) -> pd.DataFrame:
    """A row for each run, metric and statistic: as ``validate --rows``, and what came before.

    ``predicted`` is with the fitted constants, ``before`` with the profile, ``left_out`` with
    constants fitted to the other files (NaN with fewer than three).
    """
    refit = found.refit
    rows, before, left_out = [], [], []
    for i, replay in enumerate(refit.replays):
        result = replay.result
        note = "; ".join((replay.client, *replay.notes))
        for metric in METRICS:
            for stat in STATS:
                key = (metric, stat)
                if key not in result.measured or key not in refit.after[i]:
                    continue
                name = f"{metric}_ms" if stat == "mean" else f"{metric}_{stat}_ms"
                measured, predicted = 1e3 * result.measured[key], 1e3 * refit.after[i][key]
                rows.append(
                    Row(result.entry.file.stem, i, name, measured, predicted, "ms", False, note)
                )
                before.append(1e3 * refit.before[i][key])
                left = refit.left_out[i].get(key, math.nan) if refit.left_out else math.nan
                left_out.append(1e3 * left)
    return rows_table(rows)[list(COLUMNS)].assign(before=before, left_out=left_out)


def _nested(times: Any) -> dict[str, dict[str, float]]:
    """Times by metric, then statistic [s]."""
    return {
        metric: {stat: times[metric, stat] for stat in STATS if (metric, stat) in times}
        for metric in METRICS
        if any((metric, stat) in times for stat in STATS)
    }


def _value(name: str, value: float) -> str:
    if name.startswith("sustained"):
        return f"{value:.2f}"
    return f"{1e6 * value:.3g} µs" if value < 1e-3 else f"{1e3 * value:.3g} ms"


def _interval(constant: Constant) -> str:
    """Both ends in one unit."""
    if constant.name.startswith("sustained"):
        return f"{constant.low:.2f} to {constant.high:.2f}"
    unit, scale = ("µs", 1e6) if constant.high < 1e-3 else ("ms", 1e3)
    return f"{scale * constant.low:.2g} to {scale * constant.high:.2g} {unit}"


def _percent(share: float, sign: str = "+") -> str:
    return "–" if math.isnan(share) else f"{100 * share:{sign}.1f} %"
