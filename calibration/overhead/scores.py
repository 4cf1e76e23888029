"""Errors of a refit: before, after, and of runs left out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from calibration.overhead.refit import SCALE, Refit
from calibration.overhead.replay import Replay, Times

STAGES = ("before", "after", "left_out")


def errors(
    replays: Sequence[Replay], predicted: Sequence[Times], metric: str, stat: str = "mean"
) -> list[float]:
    """Relative error of each run; NaN where it was not measured or not predicted."""
    found = []
    for replay, times in zip(replays, predicted, strict=True):
        measured = replay.result.measured.get((metric, stat), math.nan)
        found.append(times.get((metric, stat), math.nan) / measured - 1.0)
    return found


def stages(found: Refit) -> dict[str, tuple[Times, ...]]:
    """Predictions by stage, those there are."""
    known = {"before": found.before, "after": found.after, "left_out": found.left_out}
    return {name: times for name, times in known.items() if times}


def mean_error(found: Refit, stage: str, metric: str) -> float:
    """Mean absolute relative error of the mean of a metric; NaN without one."""
    times = stages(found).get(stage)
    if times is None:
        return math.nan
    size = np.abs(errors(found.replays, times, metric))
    kept = size[~np.isnan(size)]
    return float(kept.mean()) if kept.size else math.nan


def score_text(found: Refit) -> str:
    """Errors before and after in words."""
    parts = []
    for metric in SCALE:
        before, after = (mean_error(found, stage, metric) for stage in ("before", "after"))
        if not math.isnan(after):
            out = mean_error(found, "left_out", metric)
            left = "" if math.isnan(out) else f", {100 * out:.1f} % left out"
            parts.append(f"{metric.upper()} {100 * before:.1f} → {100 * after:.1f} %{left}")
    return "mean absolute error " + ", ".join(parts)
