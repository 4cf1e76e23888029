"""The stability test: does the deployment keep up with what arrives?

Three questions, in this order; the first that fails decides.

1. *Load*: does the closed form offer some pool or link more than it can do (load > 1)?
2. *Backlog slope* (stationary workloads): does the number in system still rise over the last half
   of the arrival window? The mean number per bin is regressed on time. It rises if all hold:
   t > 3, where the standard error is robust to autocorrelation (Newey-West [1]) and is never taken
   below that of a random walk with the same increments and no drift, because that is what the
   backlog of a system at its very limit does [2]; the rise over the half exceeds 20 % of the mean,
   and 1 % of the requests that arrived in it, and 5 requests. The last two make it a rise that
   matters: arrivals outrun departures by more than 1 %.
3. *Drain* (workloads that are not stationary): once arrivals stop, how long does anyone still wait?
   Longer than ten median service times and 2 % of the arrival window means that the backlog did not
   clear. Windows that are overloaded in passing are a warning, not instability.

A closed loop never has more in flight than its concurrency, so it is always stable. A half that
holds too few requests, or is short against the time requests spend in service (the system is still
filling then), gives no answer: the slope is not used and ``conclusive`` is False.

References:
    [1] W. K. Newey, K. D. West, A simple, positive semi-definite, heteroskedasticity and
        autocorrelation consistent covariance matrix, Econometrica 55(3), 1987.
    [2] W. Whitt, Stochastic-Process Limits, Springer, 2002, chapter 5: at load 1 the queue is a
        reflected Brownian motion. A random walk of n increments of variance v has an OLS slope of
        variance 6v/(5n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.analysis import Bounds
from simulator.metrics.latency import FloatArray, column, in_service
from simulator.metrics.timelines import mean_number
from simulator.request import State
from simulator.run import Run

T_LIMIT = 3.0
RISE_OF_MEAN = 0.2
RISE_OF_ARRIVALS = 0.01
RISE_REQUESTS = 5.0
BINS = 50
LEAST_BINS = 16
ARRIVALS_PER_BIN = 8
SERVICE_TIMES = 2.0
DRAIN_SERVICE_TIMES = 10.0
DRAIN_OF_WINDOW = 0.02


@dataclass(frozen=True, slots=True)
class Backlog:
    """Trend of the number in system over a window.

    Attributes:
        slope_per_s: OLS slope [requests/s].
        t: slope over its robust standard error.
        rise: slope × window [requests].
        mean: mean number in system [requests].
        arrivals: requests that arrived in the window.
    """

    slope_per_s: float
    t: float
    rise: float
    mean: float
    arrivals: int

    @property
    def grows(self) -> bool:
        """Whether the rise is both significant and large enough to matter."""
        least = max(
            RISE_REQUESTS, RISE_OF_MEAN * self.mean, RISE_OF_ARRIVALS * float(self.arrivals)
        )
        return self.t > T_LIMIT and self.rise > least


@dataclass(frozen=True, slots=True)
class Stability:
    """The verdict and what it rests on.

    Attributes:
        stable: whether the deployment keeps up.
        conclusive: False if the run is too short to see a trend, or the load is too close to 1.
        reason: one sentence.
        load: highest load of the closed form, None if unknown.
        backlog: the trend, where it was tested.
        drain_s: time for which requests still waited after the last arrival [s], where tested.
    """

    stable: bool
    conclusive: bool
    reason: str
    load: float | None = None
    backlog: Backlog | None = None
    drain_s: float | None = None


def stability(run: Run, bounds: Bounds) -> Stability:
    """Whether the deployment keeps up with the workload (see the module's text)."""
    if run.workload.closed_loop is not None:
        return Stability(True, True, "A closed loop cannot overload.")
    load = bounds.load
    if load is not None and load > 1.0:
        return Stability(False, not bounds.too_close_to_call, bounds.verdict, load)
    if not run.workload.stationary:
        return _drains(run, load)
    inside, left = _stay(run)
    backlog = backlog_trend(inside, left, _typical_service_s(run, 0.9))
    if backlog is None:
        return Stability(True, False, "The run is too short to see whether a backlog grows.", load)
    if backlog.grows:
        reason = (
            f"The backlog grows by {backlog.slope_per_s:.3g} requests/s over the last half of the "
            f"arrivals (t = {backlog.t:.1f})."
        )
        return Stability(False, True, reason, load, backlog)
    if bounds.too_close_to_call:
        return Stability(True, False, bounds.verdict, load, backlog)
    return Stability(True, True, "No load exceeds 1 and no backlog grows.", load, backlog)


def backlog_trend(
    arrival_s: FloatArray, departure_s: FloatArray, service_s: float
) -> Backlog | None:
    """Trend of the number in system over the last half of the arrival window.

    Args:
        arrival_s: arrivals [s].
        departure_s: departures, in the same order [s].
        service_s: time requests typically spend in service [s].

    Returns:
        None if the half holds too few arrivals, or fewer than two such service times.
    """
    if not arrival_s.size:
        return None
    first, last = float(arrival_s.min()), float(arrival_s.max())
    middle = 0.5 * (first + last)
    arrivals = int(np.count_nonzero(arrival_s > middle))
    bins = min(BINS, arrivals // ARRIVALS_PER_BIN)
    if bins < LEAST_BINS or last - middle < SERVICE_TIMES * service_s:
        return None
    edges = np.linspace(middle, last, bins + 1)
    number = mean_number(arrival_s, departure_s, edges)
    x = np.arange(bins) - 0.5 * (bins - 1)
    slope = float(x @ number / (x @ x))
    residual = number - number.mean() - slope * x
    variance = max(
        long_run_variance(x * residual, lags=round(bins**0.5)) * bins / float(x @ x) ** 2,
        1.2 * long_run_variance(_increments(arrival_s, departure_s, edges), lags=4) / bins,
    )
    width = (last - middle) / bins
    return Backlog(
        slope_per_s=slope / width,
        t=slope / variance**0.5 if variance > 0.0 else float("inf") * (slope > 0.0),
        rise=slope * bins,
        mean=float(number.mean()),
        arrivals=arrivals,
    )


def long_run_variance(series: FloatArray, lags: int) -> float:
    """Newey-West estimate of lim n·Var(mean): Bartlett-weighted sum of autocovariances [1]."""
    d = series - series.mean()
    n = d.size
    total = float(d @ d) / n
    for k in range(1, min(lags, n - 1) + 1):
        total += 2.0 * (1.0 - k / (lags + 1.0)) * float(d[k:] @ d[:-k]) / n
    return float(max(total, 0.0))


def _increments(arrival_s: FloatArray, departure_s: FloatArray, edges: FloatArray) -> FloatArray:
    came, _ = np.histogram(arrival_s, edges)
    went, _ = np.histogram(departure_s[np.isfinite(departure_s)], edges)
    return np.asarray(came - went, dtype=np.float64)


def _stay(run: Run) -> tuple[FloatArray, FloatArray]:
    """Arrival and departure of every request that was let in; ``inf`` for one that never left.

    Requests rejected, cancelled or failed leave no departure time and are left out.
    """
    state = run.requests["state"].to_numpy()
    gone = np.isin(state, (State.REJECTED, State.CANCELLED, State.FAILED))
    arrival, last = column(run, "arrival_s")[~gone], column(run, "last_token_s")[~gone]
    return arrival, np.where(np.isnan(last), np.inf, last)


def _typical_service_s(run: Run, q: float) -> float:
    served = in_service(run)
    served = served[~np.isnan(served)]
    return float(np.quantile(served, q)) if served.size else 0.0


def _drains(run: Run, load: float | None) -> Stability:
    arrival = column(run, "arrival_s")
    starts = np.concatenate([column(run, "prefill_start_s"), column(run, "decode_start_s")])
    starts = starts[~np.isnan(starts)]
    last = float(arrival.max())
    drain = max(0.0, float(starts.max()) - last) if starts.size else 0.0
    allowed = max(
        DRAIN_SERVICE_TIMES * _typical_service_s(run, 0.5),
        DRAIN_OF_WINDOW * (last - float(arrival.min())),
    )
    if drain > allowed:
        reason = (
            f"The backlog does not clear: requests wait for {drain:.0f} s after the last arrival."
        )
        return Stability(False, True, reason, load, drain_s=drain)
    reason = (
        f"Overall load is at most 1 and the backlog clears {drain:.1f} s after the last arrival."
    )
    return Stability(True, True, reason, load, drain_s=drain)
