"""Robust least squares of an engine's constants, with simulations as the model.

With ``x`` the constants in widths of their priors from their centres (``plan.PRIORS``), the fit minimises

    Σ_i ρ( log(t_i(x) / measured_i) / s_i )  +  Σ_k x_k²

with ρ the soft-L1 loss [1]. ``s_i`` is the error a good model has, times √(n / 4) where a deployment has
n > 4 runs: errors of one deployment are alike, so that it counts as four runs however many it has. All
simulations of a run share its requests (common random numbers). Simulated times jump where a request moves
to the next step, so derivatives are taken over half a prior's width both ways. Around the last point times
are a formula, linear in overheads and in one over shares, whose optimum is simulated next. Leaving a
deployment out is done on the formula of the last round.

Fixed lengths move in waves, where a few milliseconds of front end decide how many steps a request waits and
there is no slope to follow; and the overhead of a step, that of its expert layers included, ends at 0. So
``front_s`` and ``c0_experts_s`` are searched for in the end, by simulation.

References:
    [1] P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35, 1964.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.engines.plan import PRIORS, FloatArray, Prior, deployment_of
from hwprofiles.param import Source
from simulator.engine_profiles import EngineProfile
from simulator.errors import InputError
from simulator.validation.serving.predict import Prediction, predict_all
from simulator.validation.serving.runs import MeasuredRun

SCALE = {"ttft": 0.1, "tpot": 0.05}
"""Relative error of a good prediction."""

INFERRED = 3.0
"""How much less TTFT says where the client was inferred; with fixed lengths it moves in waves, too."""

ALIKE = 4
"""Runs a deployment counts as, at most."""

STEP = 0.5
"""Change of a coordinate for a derivative, in widths of the prior."""

ROUNDS = 2
SEARCHED = ("c0_experts_s", "front_s")
SEARCH = (-2.0, -1.25, -0.5, 0.25, 1.0)
"""Coordinates at which these are tried in the end, beside that of the formula."""

LEAST = 0.05
"""Smallest ratio of a time to that at the last point."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Constant:
    """A fitted constant.

    Attributes:
        name: of the engine profile.
        value: in its unit.
        stderr: its standard error, prior included, in its unit.
        learned: share of the prior's variance that the runs took away.
    """

    name: str
    value: float
    stderr: float
    learned: float


@dataclass(frozen=True, slots=True)
class Miss:
    """A run and how far it is missed by constants that were fitted to other deployments.

    Attributes:
        row: of the file.
        deployment: its name.
        metric: ``ttft`` or ``tpot``.
        known: whether its client is documented.
        log: logarithm of predicted over measured with all deployments in the fit.
        left_out: the same with its own deployment left out.
    """

    row: int
    deployment: str
    metric: str
    known: bool
    log: float
    left_out: float


@dataclass(frozen=True, slots=True)
class Formula:
    """Log ratios of predicted to measured near a point.

    Attributes:
        priors: of the constants, in order.
        at: shape (k,): the point.
        logs: shape (n,): log ratios there.
        slopes: shape (n, k): relative change of a time by a change of what it is linear in.
    """

    priors: tuple[Prior, ...]
    at: FloatArray
    logs: FloatArray
    slopes: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Log ratios at ``x``."""
        return np.asarray(
            self.logs + np.log(np.maximum(1.0 + self.slopes @ self._change(x), LEAST))
        )

    def _change(self, x: FloatArray) -> FloatArray:
        here, there = self.drive(self.at), self.drive(x)
        return there - here

    def drive(self, x: FloatArray) -> FloatArray:
        """What times are linear in."""
        return np.array(
            [float(p.drive(np.asarray(v))) for p, v in zip(self.priors, x, strict=True)]
        )


class Problem:
    """The fit of a generation of an engine; simulations are remembered."""

    def __init__(
        self,
        runs: Sequence[MeasuredRun],
        engine: EngineProfile,
        names: Sequence[str],
        *,
        jobs: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.runs = tuple(runs)
        self.names = tuple(names)
        self.priors = tuple(PRIORS[name] for name in names)
        self._engine = replace(engine, versions=())
        self._jobs = jobs
        self._progress = progress
        self._known: dict[bytes, list[Prediction]] = {}
        names_of = [deployment_of(run) for run in self.runs]
        self.rows = [(i, metric) for i in range(len(self.runs)) for metric in SCALE]
        self.owner = [names_of[i] for i, _ in self.rows]
        self.scale = np.array(
            [
                SCALE[metric]
                * (INFERRED if metric == "ttft" and not self.runs[i].documented else 1.0)
                * math.sqrt(max(1.0, names_of.count(names_of[i]) / ALIKE))
                for i, metric in self.rows
            ]
        )
        self.top = np.array([p.top for p in self.priors])

    def profile(self, x: FloatArray, source: Source) -> EngineProfile:
        """The engine with the constants of ``x``."""
        values = {
            name: p.value(float(v)) for name, p, v in zip(self.names, self.priors, x, strict=True)
        }
        return self._engine.changed(source, **values)

    def logs(self, x: FloatArray) -> FloatArray:
        """Log ratios of predicted to measured, simulated; 0 where there is no prediction."""
        key = x.tobytes()
        if key not in self._known:
            engine = self.profile(x, Source("fitted", "a trial"))
            self._known[key] = predict_all(self.runs, {engine.name: engine}, jobs=self._jobs)
            if self._progress is not None:
                most = ROUNDS * (2 * len(self.names) + 1) + len(SEARCHED) * len(SEARCH) + 1
                self._progress(min(len(self._known), most), most)
        return np.array([self._log(i, metric, self._known[key][i]) for i, metric in self.rows])

    def _log(self, i: int, metric: str, found: Prediction) -> float:
        predicted, measured = (getattr(p, f"{metric}_ms") for p in (found, self.runs[i]))
        known = predicted > 0.0 and measured > 0.0
        return math.log(predicted / measured) if known else 0.0

    def formula(self, x: FloatArray) -> Formula:
        """The formula around ``x``: derivatives over ``STEP`` both ways, less where a share ends."""
        here = self.logs(x)
        slopes = np.empty((here.size, x.size))
        for k, prior in enumerate(self.priors):
            change, ratio = [], []
            for step in (STEP, -STEP):
                there = x.copy()
                there[k] = min(x[k] + step, self.top[k])
                moved = prior.drive(there[k : k + 1])[0] - prior.drive(x[k : k + 1])[0]
                if abs(moved) > 1e-6:
                    change.append(float(moved))
                    ratio.append(np.expm1(self.logs(there) - here))
            slopes[:, k] = np.asarray(change) @ np.stack(ratio) / float(np.square(change).sum())
        return Formula(self.priors, x, here, slopes)

    def solve(self, formula: Formula, kept: NDArray[np.bool_] | None = None) -> FloatArray:
        """Where the formula, or that of some of its rows, fits best."""
        use = np.ones(len(self.rows), dtype=np.bool_) if kept is None else kept

        def residuals(x: FloatArray) -> FloatArray:
            return np.concatenate([(formula(x) / self.scale)[use], x])

        found = least_squares(
            residuals,
            np.minimum(formula.at, self.top - 1e-6),
            bounds=(np.full(self.top.size, -6.0), self.top),
            loss=cast(Any, _loss(int(use.sum()))),  # the stub admits names only
        )
        return np.asarray(found.x, dtype=np.float64)

    def fit(self) -> tuple[FloatArray, Formula]:
        """The constants, and the formula of the last round.

        Raises:
            InputError: no run can be predicted.
        """
        x = np.zeros(len(self.names))
        if not np.any(self.logs(x)):
            raise InputError(
                "no run of the fitted deployments can be predicted; allowed: at least one."
            )
        for _ in range(ROUNDS):
            formula = self.formula(x)
            x = self.solve(formula)
        return self.searched(x), formula

    def searched(self, x: FloatArray) -> FloatArray:
        """``x`` with those constants of ``SEARCHED`` that simulations fit best with, one by one."""
        for name in SEARCHED:
            if name in self.names:
                here = np.arange(x.size) == self.names.index(name)
                x = min([x, *(np.where(here, at, x) for at in SEARCH)], key=self.loss)
        return x

    def loss(self, x: FloatArray) -> float:
        """What the fit minimises, simulated."""
        rows = self.logs(x) / self.scale
        return float((2.0 * (np.sqrt(1.0 + rows**2) - 1.0)).sum() + (x**2).sum())

    def constants(self, x: FloatArray, formula: Formula) -> list[Constant]:
        """Values with standard errors; errors are widened where residuals exceed their scale."""
        step = 1e-3
        slopes = np.stack(
            [(formula(x + step * e) - formula(x - step * e)) / (2 * step) for e in np.eye(x.size)],
            1,
        )
        rows = formula(x) / self.scale
        weight = 1.0 / np.sqrt(1.0 + rows**2)
        jacobian = slopes / self.scale[:, None]
        information = jacobian.T @ (weight[:, None] * jacobian)
        free = max(rows.size - x.size, 1)
        widened = max(1.0, float((weight * rows**2).sum()) / free)
        covariance = np.linalg.inv(information / widened + np.eye(x.size))
        found = []
        for k, prior in enumerate(self.priors):
            spread = math.sqrt(covariance[k, k])
            value = prior.value(float(x[k]))
            unit = prior.width if prior.shape == "linear" else prior.width * value
            learned = 1.0 - spread**2
            found.append(Constant(self.names[k], value, spread * unit, learned))
        return found

    def misses(self, x: FloatArray, formula: Formula) -> list[Miss]:
        """Every run, predicted with and without its own deployment in the fit."""
        with_it, near = self.logs(x), formula(self.solve(formula))
        without = with_it.copy()
        for name in dict.fromkeys(self.owner):
            inside = np.array([owner == name for owner in self.owner])
            change = formula(self.solve(formula, ~inside)) - near
            without[inside] += change[inside]
        return [
            Miss(
                self.runs[i].row,
                self.owner[j],
                metric,
                self.runs[i].documented,
                float(with_it[j]),
                float(without[j]),
            )
            for j, (i, metric) in enumerate(self.rows)
        ]


def _loss(data: int) -> Callable[[Any], Any]:
    """Soft L1 for the first ``data`` residuals, squares for the prior; of squared residuals."""

    def rho(z: Any) -> Any:
        root = np.sqrt(1.0 + z[:data])
        soft = np.stack([2.0 * (root - 1.0), 1.0 / root, -0.5 / root**3])
        prior = z[data:]
        plain = np.stack([prior, np.ones_like(prior), np.zeros_like(prior)])
        return np.concatenate([soft, plain], axis=1)

    return rho
