"""Fit of ``forms.elementwise_s``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split


def elementwise_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of rows that move ``bytes`` in one kernel [s]."""
    return forms.elementwise_s(
        column(rows, "bytes"),
        t0_s=values["t0_s"],
        memory_eff=values["memory_eff"],
        bandwidth=sheet.bandwidth,
    )


def cold_or_small(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows that no cache makes fast: larger than it, or bound by the launch."""
    size = column(rows, "bytes")
    return np.asarray((size < 1e5) | (size > 2.0 * sheet.l2_bytes))


ELEMENTWISE = Kernel(
    "elementwise",
    (Bound("t0_s", 3e-6, 0.0, 1e-3, "s"), Bound("memory_eff", 0.8, 0.01, 4.0)),
    ("bytes",),
    ("bytes",),
    elementwise_seconds,
    cold_or_small,
)


def fit_elementwise(rows: pd.DataFrame | Split, sheet: Sheet) -> FitResult:
    """Fit ``forms.elementwise_s``: a fixed cost and a share of the bandwidth.

    Args:
        rows: ``bytes, latency_us``, one kernel each; held out by size.
        sheet: the GPU.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    return fit_kernel(ELEMENTWISE, rows, sheet)
