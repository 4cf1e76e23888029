"""Moving an engine's constants until simulated runs agree with measured ones.

With ``x`` the logarithms of the constants, the fit minimises

    Σ_i  ρ( r_i(x) )  +  Σ_k  ( (x_k − x0_k) / s_k )²

where ``r_i`` is the log ratio of a predicted to a measured time over the error a good model has
(``SCALE``), ``ρ`` the soft-L1 loss [1], and the second sum a Gaussian prior around the engine's
profile with the widths of ``WIDTH``. Mean and median of a metric share the weight of one residual.
Every prediction is a simulation; all simulations of a run share its requests (common random
numbers), so differences come from the constants alone. Derivatives are differences over
``STEP``.

Intervals are quantiles of what constants may be given the runs and the prior, sampled on a formula for
the simulated times (``surrogate``), and widened where residuals are larger than ``SCALE`` says [2]. They
assume that errors of different runs are independent; an error that all share, such as that of a kernel's
fit, goes into the constants unseen.

References:
    [1] P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35, 1964; the
        loss used is its smooth form.
    [2] R. T. Birge, "The calculation of errors by the method of least squares", Phys. Rev. 40, 1932.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import truncnorm

from calibration.overhead.replay import Replay, Times, predict_all
from calibration.overhead.results import STATS
from calibration.overhead.surrogate import Surrogate, posterior
from simulator.engine_profiles import EngineProfile
from simulator.errors import InputError, suggest
from simulator.validation.serving import overheads

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

WIDTH: Mapping[str, float] = {**overheads.PRIOR_LOG, "host_s": 1.5}
"""How far the profile may be off before any file is seen: standard deviation of the logarithm.

Those of the fit of the bundled engines; a host loop, which their profiles have none of, may be anything.
"""

SCALE: Mapping[str, float] = {name: overheads.SCALE[name] for name in ("ttft", "tpot")}
"""Relative error of a good prediction, and the metrics that are fitted."""

WAVES = 3.0
"""How much less the TTFT of a run that moves in waves counts."""

LEAST: Mapping[str, float] = {"c0_s": 1e-4, "c1_s": 5e-6, "host_s": 1e-3, "front_s": 5e-3}
"""Where the prior of a constant lies that is smaller, or 0, in the profile [s]."""

STEP = 0.5
"""Change of a logarithm for a derivative, in widths of the prior.

Times of a simulated run jump when a request moves to the next step, so small changes show the grain of
the schedule instead of its slope.
"""

ROUNDS = 8
"""Most steps of the fit."""

INTERVAL = (0.05, 0.95)
"""Ends of the 90 % interval."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One fitted constant.

    Attributes:
        name: of the engine profile.
        prior: its value there.
        width: of the prior, standard deviation of the logarithm within its bounds.
        value: fitted; where the verdict is ``prior`` nothing but the prior with some noise, and the
            profile stays as it was.
        spread: standard error of the logarithm.
        low: lower end of the 90 % interval.
        high: its upper end.
    """

    name: str
    prior: float
    width: float
    value: float
    spread: float
    low: float
    high: float

    @property
    def learned(self) -> float:
        """Share of the prior's variance that the runs took away, 0 to 1."""
        return max(0.0, 1.0 - (self.spread / self.width) ** 2)

    @property
    def verdict(self) -> str:
        """``data``: the runs determine it; ``both``; ``prior``: they hardly say anything."""
        if self.learned > 0.75:
            return "data"
        return "both" if self.learned > 0.2 else "prior"

    @property
    def stderr(self) -> float:
        """Standard error, in the constant's unit."""
        return self.value * self.spread


@dataclass(frozen=True, slots=True)
class Refit:
    """What a refit found.

    Attributes:
        replays: the runs.
        constants: the fitted constants.
        before: predictions with the engine's profile.
        after: predictions with the fitted constants, those the prior decides left as they were.
        left_out: prediction of each run with the constants that all other files give; empty with
            fewer than three files.
        widened: factor by which standard errors were widened, at least 1.
        simulations: how many runs were simulated.
    """

    replays: tuple[Replay, ...]
    constants: tuple[Constant, ...]
    before: tuple[Times, ...]
    after: tuple[Times, ...]
    left_out: tuple[Times, ...]
    widened: float
    simulations: int


def chosen(replays: Sequence[Replay], names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the constants to fit.

    Args:
        replays: the runs, all of one setup.
        names: as the user gave them; None: overheads, front end and the prefill efficiency in use.

    Raises:
        InputError: an unknown name, or one without effect.
    """
    setup = replays[0].setup
    usual = ["c0_s", "c1_s", "front_s", setup.sustained]
    if setup.experts:
        usual.append("sustained_experts")
    allowed = [*usual, "host_s"]
    if names is None:
        return tuple(usual)
    found = []
    for name in names:
        if name not in allowed:
            raise InputError(f"--constants: found '{name}'; {suggest(name, allowed)}")
        if name not in found:
            found.append(name)
    return tuple(found)


def refit(
    replays: Sequence[Replay],
    engine: EngineProfile,
    names: Sequence[str],
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Refit:
    """Fit constants of an engine to measured runs.

    Args:
        replays: the runs.
        engine: starting values and prior.
        names: constants to fit.
        jobs: processes.
        progress: called as ``progress(what, done, all)``.
    """
    fit = _Problem(tuple(replays), engine, tuple(names), jobs, progress)
    before = fit.simulate_with({})
    best = fit.solve()
    near = fit.surrogate(best, careful=True)
    covariance, widened = _covariance(near.rows, near.jacobian(), fit.width)
    draws = posterior(near, fit.start, fit.width, (fit.bottom, fit.top), covariance, widened)
    ends = np.exp(np.quantile(draws, INTERVAL, axis=0))
    free = _free_spread(fit.start, fit.width, fit.top)
    constants = tuple(
        Constant(
            name,
            prior=math.exp(fit.start[k]),
            width=float(free[k]),
            value=math.exp(best[k]),
            spread=float(draws[:, k].std()),
            low=min(float(ends[0, k]), math.exp(best[k])),
            high=max(float(ends[1, k]), math.exp(best[k])),
        )
        for k, name in enumerate(names)
    )
    left_out = fit.leave_out(near)
    decided = {c.name: c.value for c in constants if c.verdict != "prior"}
    after = fit.simulate_with(decided)
    return Refit(
        tuple(replays), constants, tuple(before), tuple(after), left_out, widened, fit.count
    )


class _Problem:
    """The least-squares problem of some runs; simulations are remembered."""

    def __init__(
        self,
        replays: tuple[Replay, ...],
        engine: EngineProfile,
        names: tuple[str, ...],
        jobs: int,
        progress: Progress | None,
    ) -> None:
        self.replays = replays
        self.names = names
        self.jobs = jobs
        self.progress = progress
        self.count = 0
        self.start = np.log([max(engine[n], LEAST.get(n, 1e-6)) for n in names])
        self.width = np.array([WIDTH[n] for n in names])
        self.power = np.array([-1.0 if n.startswith("sustained") else 1.0 for n in names])
        self.top = np.array([0.0 if n.startswith("sustained") else np.inf for n in names])
        self.bottom = np.array([np.log(engine_floor(n)) for n in names])
        self._known: dict[bytes, list[Times]] = {}

    def simulate(self, x: FloatArray) -> list[Times]:
        """Predictions of all runs."""
        key = x.tobytes()
        if key not in self._known:
            self._known[key] = self.simulate_with(self._values(x))
            if self.progress is not None:
                most = (ROUNDS + 1) * (len(self.names) + 1)
                self.progress("simulating", min(len(self._known), most), most)
        return self._known[key]

    def simulate_with(self, values: Mapping[str, float]) -> list[Times]:
        """Predictions of all runs with these constants, the others as in the profile."""
        self.count += len(self.replays)
        return predict_all(self.replays, values, self.jobs)

    def _values(self, x: FloatArray) -> dict[str, float]:
        return dict(zip(self.names, np.exp(np.minimum(x, self.top)).tolist(), strict=True))

    def residuals(self, x: FloatArray) -> FloatArray:
        """Residuals of the runs, in the order of ``_rows``."""
        found = self.simulate(x)
        rows = [
            math.log(found[i][key] / self.replays[i].result.measured[key]) / scale
            for i, key, scale in self._rows()
        ]
        return np.array(rows)

    def surrogate(self, x: FloatArray, *, careful: bool = False) -> Surrogate:
        """A formula for the residuals near ``x``.

        Args:
            x: where.
            careful: two simulations a constant instead of one, and rows scaled by what the formula
                misses there, the grain of the schedule, in addition to ``SCALE``.
        """
        here = self.residuals(x)
        scale = np.array([scale for _, _, scale in self._rows()])
        slopes = np.empty((here.size, x.size))
        missed = []
        for k in range(x.size):
            step = STEP * self.width[k]
            steps = (step, -step) if x[k] + step <= self.top[k] else (-step, -0.5 * step)
            there = [self._moved(x, k, h) for h in (steps if careful else steps[:1])]
            change = np.expm1(self.power[k] * np.array(steps[: len(there)]))
            ratio = np.exp((np.stack(there) - here) * scale) - 1.0
            slopes[:, k] = change @ ratio / float(change @ change)
            formula = np.log(np.maximum(1.0 + np.outer(change, slopes[:, k]), 0.05)) / scale
            missed.append(((np.stack(there) - here - formula) ** 2).mean(axis=0))
        grain = np.sqrt(1.0 + np.mean(missed, axis=0))
        return Surrogate(x, self.power, here / grain, scale * grain, slopes)

    def _moved(self, x: FloatArray, k: int, step: float) -> FloatArray:
        """Residuals with one logarithm changed."""
        there = x.copy()
        there[k] += step
        return self.residuals(there)

    def solve(self) -> FloatArray:
        """The best logarithms."""
        prior = np.diag(1.0 / self.width)

        def residuals(x: FloatArray) -> FloatArray:
            return np.concatenate([self.residuals(x), (x - self.start) / self.width])

        def jacobian(x: FloatArray) -> FloatArray:
            return np.concatenate([self.surrogate(x).jacobian(), prior])

        found = least_squares(
            residuals,
            np.clip(self.start, self.bottom + 1e-3, self.top - 1e-3),
            jac=jacobian,
            bounds=(self.bottom, self.top),
            loss=cast(Any, self._loss),  # the stub admits names only
            x_scale=self.width,
            max_nfev=ROUNDS,
            xtol=1e-3,
            ftol=1e-3,
            gtol=1e-3,
        )
        return np.asarray(found.x, dtype=np.float64)

    def leave_out(self, near: Surrogate) -> tuple[Times, ...]:
        """Each run predicted by the others: fitted to the formula, then simulated."""
        files = [replay.result.entry.file for replay in self.replays]
        if len(set(files)) < 3:
            return ()
        owner = np.array([i for i, _, _ in self._rows()])
        found: list[Times] = [{} for _ in self.replays]
        for file in dict.fromkeys(files):
            inside = np.array([f == file for f in files])
            x = self._nearby(near.only(~inside[owner]))
            for i in np.flatnonzero(inside):
                found[i] = self.replays[i].predict(self._values(x))
                self.count += 1
        return tuple(found)

    def _nearby(self, near: Surrogate) -> FloatArray:
        def residuals(x: FloatArray) -> FloatArray:
            return np.concatenate([near.residuals(x), (x - self.start) / self.width])

        found = least_squares(
            residuals,
            np.clip(near.best, self.bottom + 1e-3, self.top - 1e-3),
            bounds=(self.bottom, self.top),
            loss=cast(Any, self._loss),  # the stub admits names only
            x_scale=self.width,
        )
        return np.asarray(found.x, dtype=np.float64)

    def _loss(self, z: Any) -> Any:
        """Soft L1 for the runs, squares for the prior; ``z`` are squared residuals."""
        data = z.size - len(self.names)
        root = np.sqrt(1.0 + z[:data])
        soft = np.stack([2.0 * (root - 1.0), 1.0 / root, -0.5 / root**3])
        plain = np.stack([z[data:], np.ones(len(self.names)), np.zeros(len(self.names))])
        return np.concatenate([soft, plain], axis=1)

    def _rows(self) -> list[tuple[int, tuple[str, str], float]]:
        """Run, metric and statistic, and scale of each residual."""
        found = []
        first = self.simulate(self.start)
        for i, replay in enumerate(self.replays):
            for metric, scale in SCALE.items():
                keys = [
                    (metric, stat)
                    for stat in STATS
                    if (metric, stat) in replay.result.measured and (metric, stat) in first[i]
                ]
                wide = WAVES if metric == "ttft" and replay.waves else 1.0
                found += [(i, key, scale * wide * math.sqrt(len(keys))) for key in keys]
        return found


def _free_spread(start: FloatArray, width: FloatArray, top: FloatArray) -> FloatArray:
    """Standard deviation of the prior, which a share of at most 1 cuts."""
    return np.asarray(truncnorm.std(-np.inf, (top - start) / width, scale=width))


def engine_floor(name: str) -> float:
    """Smallest value a constant may take."""
    return 0.05 if name.startswith("sustained") else 1e-7


def _covariance(
    rows: FloatArray, jacobian: FloatArray, width: FloatArray
) -> tuple[FloatArray, float]:
    """Covariance of the logarithms, and the factor errors were widened by."""
    weight = 1.0 / np.sqrt(1.0 + rows**2)
    information = jacobian.T @ (weight[:, None] * jacobian)
    prior = np.diag(1.0 / width**2)
    used = float(np.trace(np.linalg.solve(information + prior, information)))
    free = max(rows.size - used, 1.0)
    widened = max(1.0, math.sqrt(float((weight * rows**2).sum()) / free))
    covariance = np.linalg.inv(information / widened**2 + prior)
    return np.asarray(covariance, dtype=np.float64), widened
