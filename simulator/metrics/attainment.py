"""Service-level objectives: who met every target, and how many per second did."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from simulator.metrics.latency import BoolArray, completed, tpot, ttft
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


def attains(run: Run, slo: Targets) -> BoolArray:
    """Requests that finished and met every target (joint attainment).

    Requests that were rejected, cancelled, failed or did not finish are misses. A request with one
    output token has no TPOT and meets that target.
    """
    met = completed(run)
    if slo.ttft_s is not None:
        met &= ttft(run) <= slo.ttft_s
    if slo.tpot_s is not None:
        per_token = tpot(run)
        met &= np.isnan(per_token) | (per_token <= slo.tpot_s)
    return met


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
