"""Arrival rates that change with time, and Poisson processes that follow them exactly.

A Poisson process of rate λ(t) is a unit-rate one seen on another clock: if ``u`` are the instants of
the unit-rate process and Λ(t) = ∫λ, then Λ⁻¹(u) are those wanted [1]. The inversion here is exact
(no thinning), so with one stream two rates see the same sequence on two clocks (common random
numbers), and a longer draw begins with the shorter one.

References:
    [1] E. Çinlar, Introduction to stochastic processes, Prentice-Hall, 1975, section 4.7
        (time change of a Poisson process).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError
from simulator.workload.requests import LATEST_ARRIVAL_S

FloatArray = NDArray[np.float64]

MOST_ARRIVALS = 1e8
"""Mean number of arrivals a rate may stand for."""

_JUMP_S = 1e-9
"""A rise over less time than this is a jump [s]."""

_GRID = 512
_NEWTON = 3
_SETTLED = 1e-14
_HALVINGS = 45


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """A rate that is linear between points, from time 0 to the last of them.

    Attributes:
        t_s: instants [s], shape (n,) with n ≥ 2, the first 0, not decreasing; an instant given twice
            is a jump.
        rate_rps: rate there [1/s], shape (n,), not negative, somewhere positive.

    Raises:
        InputError: if the points break a rule above.
    """

    t_s: FloatArray
    rate_rps: FloatArray

    def __post_init__(self) -> None:
        t, rate = (np.array(v, dtype=np.float64) for v in (self.t_s, self.rate_rps))
        _check(t, rate)
        for name, values in (("t_s", t), ("rate_rps", rate)):
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if not 0.0 < self.total <= MOST_ARRIVALS:
            raise InputError(
                f"the rates stand for {self.total:g} arrivals; allowed: more than 0, at most "
                f"{MOST_ARRIVALS:g}."
            )

    @classmethod
    def steps(cls, rate_rps: Sequence[float], length_s: Sequence[float]) -> Rates:
        """Constant rates one after another, each for its length [s]."""
        edges = np.concatenate([[0.0], np.cumsum(length_s)])
        return cls(np.repeat(edges, 2)[1:-1], np.repeat(rate_rps, 2))

    @property
    def span_s(self) -> float:
        """How long the rates last [s]."""
        return float(self.t_s[-1])

    @property
    def total(self) -> float:
        """Mean number of arrivals, Λ(span)."""
        return float(self._sums()[-1])

    @property
    def mean_rps(self) -> float:
        """Mean rate over the span [1/s]."""
        return self.total / self.span_s

    def times(self, factor: float) -> Rates:
        """The same rates, ``factor`` times as high."""
        return Rates(self.t_s, self.rate_rps * factor)

    def expected(self, t_s: FloatArray) -> FloatArray:
        """Mean number of arrivals until ``t_s``, Λ(t); constant outside the span."""
        t = np.clip(t_s, 0.0, self.span_s)
        i = np.clip(np.searchsorted(self.t_s, t, side="right") - 1, 0, self.t_s.size - 2)
        past = t - self.t_s[i]
        return np.asarray(
            self._sums()[i] + past * (self.rate_rps[i] + 0.5 * self._slopes()[i] * past)
        )

    def at(self, arrivals: FloatArray) -> FloatArray:
        """Instants [s] at which Λ reaches ``arrivals``, each from 0 to ``total``: Λ⁻¹.

        Within a piece Λ is a parabola; its root is written so that nothing cancels.
        """
        sums = self._sums()
        i = np.clip(np.searchsorted(sums, arrivals, side="left") - 1, 0, self.t_s.size - 2)
        need = np.maximum(arrivals - sums[i], 0.0)
        rate, slope = self.rate_rps[i], self._slopes()[i]
        root = np.sqrt(np.maximum(rate * rate + 2.0 * slope * need, 0.0))
        below = rate + root
        past = np.divide(2.0 * need, below, out=np.zeros_like(need), where=below > 0.0)
        return np.minimum(self.t_s[i] + past, self.t_s[i + 1])

    def _slopes(self) -> FloatArray:
        rise, run = np.diff(self.rate_rps), np.diff(self.t_s)
        return np.divide(rise, run, out=np.zeros_like(rise), where=run > _JUMP_S)

    def _sums(self) -> FloatArray:
        """Λ at the points."""
        areas = np.diff(self.t_s) * 0.5 * (self.rate_rps[1:] + self.rate_rps[:-1])
        return np.concatenate([[0.0], np.cumsum(areas)])


def _check(t: FloatArray, rate: FloatArray) -> None:
    if t.ndim != 1 or t.shape != rate.shape or t.size < 2:
        raise InputError("rates need at least two points, each an instant and a rate.")
    if not (np.isfinite(t).all() and np.isfinite(rate).all()):
        raise InputError("rates hold a value that is not finite.")
    if t[0] != 0.0 or (np.diff(t) < 0).any() or not 0.0 < t[-1] <= LATEST_ARRIVAL_S:
        raise InputError(
            f"the instants of rates must begin at 0, not decrease, and end between 0 and "
            f"{LATEST_ARRIVAL_S:g} s, found {t[0]:g} to {t[-1]:g} s."
        )
    if rate.min() < 0.0:
        raise InputError(f"a rate is {rate.min():g} requests/s; allowed: at least 0.")


def follow(rates: Rates, rng: np.random.Generator) -> FloatArray:
    """All arrivals [s] of a Poisson process with these rates, from 0 to the end of their span.

    Args:
        rates: the rates.
        rng: the stream ``"arrivals"``.

    Returns:
        Instants [s]; how many there are is random, with mean and variance ``rates.total``.
    """
    unit: list[FloatArray] = []
    last = 0.0
    while last <= rates.total:
        block = last + np.cumsum(rng.standard_exponential(4096))
        unit.append(block)
        last = float(block[-1])
    all_ = np.concatenate(unit)
    return rates.at(all_[all_ <= rates.total])


def diurnal(
    n: int, rate_rps: float, period_s: float, peak_to_mean: float, rng: np.random.Generator
) -> FloatArray:
    """Poisson process with the rate of a day: ``m·(1 − (p − 1)·cos(2πt/T))``.

    It starts in the trough (at night) and peaks half a period later.

    Args:
        n: how many requests.
        rate_rps: mean rate m over a whole period [1/s].
        period_s: T [s].
        peak_to_mean: p, from 1 (constant) to 2 (no arrivals in the trough).
        rng: the stream ``"arrivals"``.

    Returns:
        Instants [s], shape (n,).
    """
    # in units of periods and of arrivals per period: x - (p - 1)·sin(2πx)/2π = y
    y = np.cumsum(rng.standard_exponential(n)) / (rate_rps * period_s)
    whole, part = np.divmod(y, 1.0)
    return np.asarray((whole + _phase(part, peak_to_mean - 1.0)) * period_s)


def _phase(part: FloatArray, swing: float) -> FloatArray:
    """The phase x in 0..1 at which ``x − swing·sin(2πx)/2π`` is ``part``.

    Newton's method in the cell of a grid that holds the root. The few that do not settle, near a
    trough without arrivals where the slope vanishes, are halved.
    """
    turn = 2.0 * math.pi
    by = swing / turn
    grid = np.linspace(0.0, 1.0, _GRID + 1)
    values = grid - by * np.sin(turn * grid)
    cell = np.clip(np.searchsorted(values, part, side="right") - 1, 0, _GRID - 1)
    low, high = grid[cell], grid[cell + 1]
    x = low + (high - low) * (part - values[cell]) / (values[cell + 1] - values[cell])
    for _ in range(_NEWTON):
        slope = np.maximum(1.0 - swing * np.cos(turn * x), 1e-12)
        x = np.clip(x - (x - by * np.sin(turn * x) - part) / slope, low, high)
    left = np.flatnonzero(np.abs(x - by * np.sin(turn * x) - part) > _SETTLED)
    a, b, wanted = low[left], high[left], part[left]
    for _ in range(_HALVINGS):
        middle = 0.5 * (a + b)
        over = middle - by * np.sin(turn * middle) > wanted
        a, b = np.where(over, a, middle), np.where(over, middle, b)
    x[left] = 0.5 * (a + b)
    return np.asarray(x)


def on_off(
    n: int,
    on_rps: float,
    off_rps: float,
    on_s: float,
    off_s: float,
    rng: np.random.Generator,
    phases: np.random.Generator,
) -> FloatArray:
    """Markov-modulated Poisson process with two phases, on and off [1].

    Phases last exponential times, the first one is on with its long-run share, so the process is
    stationary. Its mean rate is ``(on_rps·on_s + off_rps·off_s)/(on_s + off_s)``, and the index of
    dispersion of its counts tends to ``1 + 2·(on_rps − off_rps)²·p·q/((r + s)·mean rate)`` with
    r = 1/on_s, s = 1/off_s, p = s/(r + s), q = r/(r + s).

    Args:
        n: how many requests.
        on_rps: rate during on phases [1/s].
        off_rps: rate during off phases [1/s]; one of the two is positive.
        on_s: mean length of on phases [s].
        off_s: mean length of off phases [s].
        rng: the stream ``"arrivals"``.
        phases: the stream ``"arrivals.phases"``.

    Returns:
        Instants [s], shape (n,).

    References:
        [1] W. Fischer, K. Meier-Hellstern, The Markov-modulated Poisson process (MMPP) cookbook,
            Performance Evaluation 18(2), 1993.
    """
    unit = np.cumsum(rng.standard_exponential(n))
    starts_on = phases.random() < on_s / (on_s + off_s)
    rate = (on_rps, off_rps) if starts_on else (off_rps, on_rps)
    length = (on_s, off_s) if starts_on else (off_s, on_s)
    t: list[FloatArray] = [np.zeros(1)]
    count: list[FloatArray] = [np.zeros(1)]
    while count[-1][-1] < unit[-1]:
        lengths = phases.standard_exponential((2048, 2)) * length
        t.append(t[-1][-1] + np.cumsum(lengths))
        count.append(count[-1][-1] + np.cumsum(lengths * rate))
    # Λ is linear within a phase; where it is flat (a rate of 0) no arrival falls
    return np.asarray(np.interp(unit, np.concatenate(count), np.concatenate(t)))
