"""What a fit of one operator leaves: parameters for the profile, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from hwprofiles.joint import Correlations
from hwprofiles.param import Param


@dataclass(frozen=True, slots=True)
class Fitted:
    """One operator's parameters.

    Attributes:
        path: where they go below the kernel family, e.g. ``("gemm", "bf16")``.
        params: by field of the profile's schema.
        kernel: what was measured; empty where nothing was.
        rows: rows fitted to.
        held_out: mean absolute relative error on shapes left out of the fit; None: not measured.
        points: one row a measurement: ``measured_s``, ``predicted_s``, ``intensity`` [FLOP/byte].
        note: what the reader should know besides.
        ranges: (size, smallest, largest) of the rows fitted.
        correlations: of the errors of parameters that have a standard error.
    """

    path: tuple[str, ...]
    params: dict[str, Param]
    kernel: str = ""
    rows: int = 0
    held_out: float | None = None
    points: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""
    ranges: tuple[tuple[str, float, float], ...] = ()
    correlations: Correlations = ()

    @property
    def name(self) -> str:
        """In words, e.g. ``gemm bf16``."""
        return " ".join(self.path).replace("_", " ")

    @property
    def bias(self) -> float | None:
        """Mean of predicted over measured, minus 1, on the rows fitted."""
        if self.points.empty:
            return None
        return float((self.points["predicted_s"] / self.points["measured_s"]).mean() - 1.0)

    @property
    def fit_error(self) -> float | None:
        """Mean absolute relative error on the rows fitted."""
        if self.points.empty:
            return None
        ratio = self.points["predicted_s"] / self.points["measured_s"]
        return float((ratio - 1.0).abs().mean())
