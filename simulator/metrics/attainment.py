"""Service-level objectives: who met every target, and how many per second did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.metrics.latency import BoolArray, FloatArray, completed, tpot, ttft
from simulator.run import Run


class Targets(Protocol):
    """Latency targets, such as ``simulator.scenario.SLO``; None: no such target."""

    @property
    def ttft_s(self) -> float | None:
        """Largest time to first token [s]."""
        ...

    @property
    def tpot_s(self) -> float | None:
        """Largest time per output token after the first [s]."""
        ...


def limits(
    slo: Targets, classes: Sequence[str], index: npt.NDArray[np.integer], n: int
) -> tuple[FloatArray, FloatArray]:
    """Targets of every request: its class's where the class has its own, else those of all.

    Args:
        slo: targets; those of classes are its ``classes``, by name, where it has any.
        classes: names of the classes; empty where there are none.
        index: class of each request as a position in ``classes``, shape (n,); not used without.
        n: how many requests.

    Returns:
        Largest TTFT and largest TPOT [s], each of shape (n,), ``inf`` where there is no target.
    """
    own: Mapping[str, Targets] = getattr(slo, "classes", {})
    if not classes or not own:
        return np.full(n, _limit(slo.ttft_s)), np.full(n, _limit(slo.tpot_s))
    targets = [own.get(name, slo) for name in classes]
    ttft_s = np.array([_limit(t.ttft_s) for t in targets])
    tpot_s = np.array([_limit(t.tpot_s) for t in targets])
    return ttft_s[index], tpot_s[index]


def _limit(target_s: float | None) -> float:
    return float("inf") if target_s is None else target_s


def run_limits(run: Run, slo: Targets) -> tuple[FloatArray, FloatArray]:
    """``limits`` of the requests of a run, in the order of its table."""
    table = run.requests
    if "class" not in table:
        return limits(slo, (), np.zeros(0, dtype=np.int64), len(table))
    column = table["class"].cat
    return limits(slo, list(column.categories), column.codes.to_numpy(), len(table))


def attains(run: Run, slo: Targets) -> BoolArray:
    """Requests that finished and met every target (joint attainment): their class's, or those of all.

    Requests that were rejected, cancelled, failed or did not finish are misses. A request with one
    output token has no TPOT and meets that target.
    """
    ttft_s, tpot_s = run_limits(run, slo)
    per_token = tpot(run)
    in_time = np.isinf(ttft_s) | (ttft(run) <= ttft_s)
    return np.asarray(completed(run) & in_time & ~(per_token > tpot_s), dtype=bool)


def attainment(run: Run, slo: Targets) -> float:
    """Share of all arrived requests that met every target; NaN if none arrived."""
    met = attains(run, slo)
    return float(met.mean()) if met.size else float("nan")


def arrival_window_s(run: Run) -> float:
    """From the first to the last arrival [s]; the makespan in a closed loop or for one instant."""
    arrival = run.requests["arrival_s"].to_numpy(dtype=np.float64)
    window = float(arrival.max() - arrival.min()) if arrival.size else 0.0
    if run.workload.closed_loop is not None or window <= 0.0:
        return makespan_s(run)
    return window


def makespan_s(run: Run) -> float:
    """From the first arrival to the last token [s]; 0 if no token was produced."""
    arrival = run.requests["arrival_s"].to_numpy(dtype=np.float64)
    return max(0.0, run.end_s - float(arrival.min())) if arrival.size else 0.0


def goodput(run: Run, slo: Targets) -> float:
    """Attaining requests per second of the arrival window; NaN if the window is empty [1/s]."""
    window = arrival_window_s(run)
    return float(attains(run, slo).sum()) / window if window > 0.0 else float("nan")
