"""The metrics of a run by request class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from simulator.metrics.attainment import Targets, arrival_window_s, attainment, attains
from simulator.metrics.latency import PARTS, completed, e2e, statistics, tpot, ttft, waterfall
from simulator.request import State
from simulator.run import Run

Statistics = dict[str, float | None]

_ENDS = {
    "completed": State.DONE,
    "rejected": State.REJECTED,
    "cancelled": State.CANCELLED,
    "failed": State.FAILED,
}


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """Metrics of the requests of one class, with the meanings they have for all requests.

    Inter-token latencies, throughput, pools, cost and energy belong to the whole run: requests of
    all classes share its steps.

    Attributes:
        requests: how many ``arrived`` and ended ``completed``, ``rejected``, ``cancelled``,
            ``failed``.
        slo: the targets the class is held to, ``ttft_s`` and ``tpot_s`` [s]; None for no target.
        ttft_s: time to first token, over completed requests [s].
        tpot_s: time per output token, over completed requests with two tokens or more [s].
        e2e_s: end-to-end latency, over completed requests [s].
        waterfall_s: mean parts of TTFT, over completed requests [s].
        slo_attainment: share of the class's arrived requests that met every target of theirs.
        goodput_rps: how many did, per second of the whole run's arrival window [1/s]; those of all
            classes add up to the goodput.
    """

    requests: Mapping[str, int]
    slo: Mapping[str, float | None]
    ttft_s: Statistics
    tpot_s: Statistics
    e2e_s: Statistics
    waterfall_s: Statistics
    slo_attainment: float | None
    goodput_rps: float | None


def counts(run: Run) -> dict[str, int]:
    """How many requests arrived, and how they ended."""
    state = run.requests["state"].to_numpy()
    ended = {name: int(np.count_nonzero(state == end)) for name, end in _ENDS.items()}
    return {"arrived": len(state), **ended}


def mean_parts(run: Run) -> Statistics:
    """Mean parts of TTFT over completed requests [s]; None if none completed."""
    done = completed(run)
    parts = waterfall(run)
    return {
        name: float(parts[name].to_numpy()[done].mean()) if done.any() else None for name in PARTS
    }


def by_class(run: Run) -> Iterator[tuple[str, Run]]:
    """The run cut to the requests of each class, in the order of the workload's classes."""
    if "class" not in run.requests:
        return
    column = run.requests["class"]
    for name in column.cat.categories:
        yield str(name), replace(run, requests=run.requests[(column == name).to_numpy()])


def class_summaries(run: Run, slo: Targets | None) -> dict[str, ClassSummary]:
    """Metrics of every class; empty for a workload without classes.

    Args:
        run: a finished simulation.
        slo: latency targets, with those of classes where they have their own.
    """
    return {name: _summary(run, part, name, slo) for name, part in by_class(run)}


def _summary(run: Run, part: Run, name: str, slo: Targets | None) -> ClassSummary:
    done = completed(part)
    own = None if slo is None else getattr(slo, "classes", {}).get(name, slo)
    window = arrival_window_s(run)
    good = None
    if slo is not None and window > 0.0:
        good = float(attains(part, slo).sum()) / window
    return ClassSummary(
        requests=counts(part),
        slo={key: getattr(own, key, None) for key in ("ttft_s", "tpot_s")},
        ttft_s=statistics(ttft(part)[done]),
        tpot_s=statistics(tpot(part)[done]),
        e2e_s=statistics(e2e(part)[done]),
        waterfall_s=mean_parts(part),
        slo_attainment=None if slo is None else attainment(part, slo),
        goodput_rps=good,
    )
