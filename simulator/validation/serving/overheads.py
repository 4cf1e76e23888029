"""Refitting an engine's overheads to measured runs, with what its profile says as the prior.

Every evaluation simulates the runs, so that queueing, mixed steps and the client stay out of the
parameters. Parameters are positive and vary in their logarithm; a residual is the log ratio of
predicted to measured over the error a good model has.

References:
    [1] P. J. Huber, "Robust estimation of a location parameter", Ann. Math. Statist. 35, 1964: the
        loss is quadratic near zero and linear far out, so that one bad run does not decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from hwprofiles.param import Source
from simulator.engine_profiles import EngineProfile
from simulator.errors import InputError
from simulator.validation.serving.predict import Prediction, predict_all
from simulator.validation.serving.runs import MeasuredRun

FREE = ("c0_s", "c1_s", "front_s", "sustained_fp8")
"""What is fitted unless something else is asked for."""

PRIOR_LOG: Mapping[str, float] = {
    "c0_s": 0.7,
    "c0_experts_s": 1.0,
    "c0_experts_bf16_s": 1.0,
    "c1_s": 0.7,
    "host_s": 0.7,
    "front_s": 1.0,
    "front_gpu_s": 1.0,
    "sustained_bf16": 0.2,
    "sustained_fp8": 0.25,
    "sustained_experts": 0.5,
    "sustained_experts_fp8": 0.5,
}
"""How far the profile's values may be off before data: standard deviation of their logarithm."""

SCALE = {"tpot": 0.05, "ttft": 0.10}
"""Relative error of a good prediction, by metric: residuals are in units of it [1]."""

_LEAST = {
    "c0_s": 1e-5,
    "c1_s": 1e-7,
    "host_s": 1e-5,
    "front_s": 1e-4,
    "c0_experts_s": 1e-6,
    "front_gpu_s": 1e-4,
}
_STEP = 0.05
"""Change of the logarithm of a parameter for a derivative: above the grain of a simulation."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a refit found.

    Attributes:
        engine: the profile with the new values.
        names: the parameters fitted.
        stderr: standard error of each value's logarithm, prior included: relative, roughly.
        before: predictions with the profile as it was.
        after: predictions with the new values.
    """

    engine: EngineProfile
    names: tuple[str, ...]
    stderr: tuple[float, ...]
    before: tuple[Prediction, ...]
    after: tuple[Prediction, ...]


def fit_overheads(
    runs: Sequence[MeasuredRun],
    engine: EngineProfile,
    free: Sequence[str] = FREE,
    *,
    jobs: int = 1,
    rounds: int = 8,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Refit overheads of an engine to measured runs.

    Args:
        runs: measured runs of this engine.
        engine: its profile: starting values and prior.
        free: names of the parameters to fit.
        jobs: processes.
        rounds: most iterations; each simulates every run once for each parameter.
        source: what the new values' source says; default: the number of runs.
        progress: called as ``progress(rounds done, rounds)``, at most.

    Raises:
        InputError: no run can be predicted.
    """
    start = np.log([max(engine[name], _LEAST.get(name, 1e-6)) for name in free])
    origin = Source("fitted", source or f"{len(runs)} measured runs")
    before = predict_all(runs, {engine.name: engine}, jobs=jobs)
    kept = [run for run, p in zip(runs, before, strict=True) if not p.reason]
    if not kept:
        raise InputError(f"no run can be predicted: {before[0].reason if before else 'none given'}")
    spread = np.array([PRIOR_LOG[name] for name in free])
    seen = 0

    def changed(x: npt.NDArray[np.float64]) -> EngineProfile:
        values = {n: float(v) for n, v in zip(free, np.exp(x), strict=True)}
        return engine.changed(origin, **_capped(values))

    def residuals(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        nonlocal seen
        seen += 1
        if progress is not None:
            most = rounds * (len(free) + 1)
            progress(min(seen, most), most)
        found = predict_all(kept, {engine.name: changed(x)}, jobs=jobs)
        return np.concatenate([_log_ratios(kept, found), (x - start) / spread])

    result = least_squares(
        residuals,
        start,
        loss="soft_l1",
        diff_step=_STEP / np.maximum(np.abs(start), 1e-3),
        max_nfev=rounds,
        x_scale=spread,
        xtol=1e-3,
        ftol=1e-3,
    )
    jacobian = np.asarray(result.jac, dtype=np.float64)
    covariance = np.linalg.pinv(jacobian.T @ jacobian)
    fitted_engine = changed(result.x)
    after = predict_all(runs, {engine.name: fitted_engine}, jobs=jobs)
    return Fitted(
        engine=fitted_engine,
        names=tuple(free),
        stderr=tuple(float(math.sqrt(v)) for v in np.diag(covariance)),
        before=tuple(before),
        after=tuple(after),
    )


def _capped(values: dict[str, float]) -> dict[str, float]:
    """Shares stay at most 1."""
    return {n: min(v, 1.0) if n.startswith("sustained") else v for n, v in values.items()}


def _log_ratios(
    runs: Sequence[MeasuredRun], found: Sequence[Prediction]
) -> npt.NDArray[np.float64]:
    """Log ratios of predicted to measured over ``SCALE``; runs without a prediction count 0."""
    out = []
    for run, p in zip(runs, found, strict=True):
        for name, predicted, measured in (
            ("tpot", p.tpot_ms, run.tpot_ms),
            ("ttft", p.ttft_ms, run.ttft_ms),
        ):
            known = predicted > 0.0 and measured > 0.0
            out.append(math.log(predicted / measured) / SCALE[name] if known else 0.0)
    return np.array(out)
