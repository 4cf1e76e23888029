"""What a fit found, how sure it is, and how well it predicts what it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from hwprofiles import Param, Source
from hwprofiles.joint import Correlations, correlations_of
from simulator.errors import InputError, suggest

Array = npt.NDArray[np.float64]
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Score:
    """Relative errors of predictions, predicted/measured - 1 [1].

    Attributes:
        rows: how many.
        mape: mean of the absolute errors; NaN of no rows, as the others.
        median: median of the absolute errors.
        bias: mean of the signed errors.
        p90: 90th percentile of the absolute errors.
    """

    rows: int
    mape: float
    median: float
    bias: float
    p90: float

    @classmethod
    def of(cls, predicted: Array, measured: Array) -> Score:
        """Score predictions against measurements in the same unit."""
        if len(measured) == 0:
            return cls(0, float("nan"), float("nan"), float("nan"), float("nan"))
        error = predicted / measured - 1.0
        size = np.abs(error)
        return cls(
            rows=len(measured),
            mape=float(size.mean()),
            median=float(np.median(size)),
            bias=float(error.mean()),
            p90=float(np.quantile(size, 0.9)),
        )


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted parameter.

    Attributes:
        name: field of the profile.
        value: in ``unit``.
        stderr: standard error in ``unit``; None where the fit ended at a bound.
        unit: SI, or ``1``.
    """

    name: str
    value: float
    stderr: float | None
    unit: str


@dataclass(frozen=True)
class FitResult:
    """Parameters of one operator's form, fitted.

    Attributes:
        operator: e.g. ``gemm``.
        parameters: in the order of ``covariance``.
        covariance: of the parameters, 0 for those at a bound.
        groups: independent groups of rows behind it.
        fitted: error on the rows fitted.
        held_out: error on rows of groups never fitted.
        ranges: (size, smallest, largest) of the rows fitted.
        fixed: parameters given and not fitted.
    """

    operator: str
    parameters: tuple[Fitted, ...]
    covariance: Array
    groups: int
    fitted: Score
    held_out: Score
    ranges: tuple[tuple[str, float, float], ...]
    fixed: tuple[tuple[str, float], ...] = ()

    @property
    def correlations(self) -> Correlations:
        """Correlations of the errors of the parameters, as a profile keeps them."""
        return correlations_of([p.name for p in self.parameters], self.covariance)

    @property
    def rows(self) -> int:
        """Rows fitted."""
        return self.fitted.rows

    @property
    def numbers(self) -> dict[str, float]:
        """Value of each parameter, given ones included."""
        return {p.name: p.value for p in self.parameters} | dict(self.fixed)

    def __getitem__(self, name: str) -> Fitted:
        """A parameter by name.

        Raises:
            InputError: unknown name.
        """
        found = {p.name: p for p in self.parameters}
        if name not in found:
            raise InputError(
                f"{self.operator}: parameter '{name}' is unknown; {suggest(name, found)}"
            )
        return found[name]

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of a parameter; a point where the fit ended at a bound.

        Args:
            name: the parameter.
            level: of confidence.
        """
        parameter = self[name]
        free = max(self.groups - sum(p.stderr is not None for p in self.parameters), 1)
        half = float(student.ppf(0.5 + level / 2.0, free)) * (parameter.stderr or 0.0)
        return parameter.value - half, parameter.value + half

    def to_params(
        self, make: Callable[..., P], source: Source, fixed: Mapping[str, Param] | None = None
    ) -> P:
        """Parameters as a profile holds them, e.g. ``hwprofiles.GemmParams``.

        Args:
            make: the class.
            source: of every fitted number.
            fixed: parameters that were not fitted.
        """
        error = self.held_out.mape if self.held_out.rows else self.fitted.mape
        found: dict[str, Any] = {
            p.name: Param(p.value, p.unit, source, p.stderr) for p in self.parameters
        }
        names = {f.name for f in fields(make)}  # type: ignore[arg-type]  # a dataclass
        if "error" in names:
            found["error"] = Param(error, "1", source)
        if "ranges" in names:
            found["ranges"] = self.ranges
        if "correlations" in names:
            found["correlations"] = self.correlations
        return make(**found, **(fixed or {}))
