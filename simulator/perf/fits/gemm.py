"""Fit of ``forms.gemm_s``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split

WEIGHT_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0, "fp8_block": 1.0}
"""Bytes of a weight and of an input as the kernel reads it, by type of the tables [bytes]."""

COLD = 1.5
"""Weights of so many times the L2 cache are read from memory in every call of a benchmark that
rotates over few copies of them [1]."""

_BASE = (
    Bound("t0_s", 4e-6, 0.0, 2e-5, "s"),
    Bound("compute_eff", 0.8, 0.05, 1.0),
    Bound("memory_eff", 0.8, 0.05, 1.5),
    Bound("p", 3.0, 1.0, 8.0),
)
_QUANT = (Bound("quant_eff", 0.8, 0.05, 8.0),)
_RAMP = (Bound("k_ramp", 200.0, 0.0, 3000.0),)
_WAVES = (Bound("wave_exponent", 0.3, 0.0, 1.0),)
_SPLIT = (Bound("wave_limit", 2.0, 1.0, 50.0),)
NO_LIMIT = 1000.0
"""``wave_limit`` of kernels that do not split k [1]."""


def gemm_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``gemm`` rows [s]."""
    size = rows["dtype"].astype(str).map(WEIGHT_BYTES).to_numpy(np.float64)
    return forms.gemm_s(
        column(rows, "m"),
        column(rows, "n"),
        column(rows, "k"),
        t0_s=values["t0_s"],
        peak_flops=sheet.peak_flops,
        bandwidth=sheet.bandwidth,
        compute_eff=values["compute_eff"],
        memory_eff=values["memory_eff"],
        p=values["p"],
        weight_bytes=size,  # type: ignore[arg-type]  # an array broadcasts
        input_bytes=size,  # type: ignore[arg-type]
        quant_eff=values.get("quant_eff"),
        k_ramp=values.get("k_ramp", 0.0),
        wave_exponent=values.get("wave_exponent", 0.0),
        wave_limit=values.get("wave_limit", 1.0),
        row_tile=values.get("row_tile", 0.0),
        sms=sheet.sms,
    )


def cold_weights(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows in the region fits and scores are about: n, k 1k-60k, m up to 8192, weights cold."""
    m, n, k = (column(rows, name) for name in ("m", "n", "k"))
    size = rows["dtype"].astype(str).map(WEIGHT_BYTES).to_numpy(np.float64)
    wide = (np.minimum(n, k) >= 1000.0) & (np.maximum(n, k) <= 60_000.0) & (m <= 8192.0)
    return np.asarray(wide & (n * k * size > COLD * sheet.l2_bytes))


GEMM = Kernel("gemm", _BASE, ("n", "k"), ("m", "n", "k"), gemm_seconds, cold_weights)


def fit_gemm(
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    quantised: bool = False,
    ramp: bool = False,
    waves: bool = False,
    split_k: bool = False,
    row_tile: float = 0.0,
    everything: bool = False,
) -> FitResult:
    """Fit ``forms.gemm_s`` to rows of one GPU, kernel family and type.

    Args:
        rows: ``dtype, m, n, k, latency_us``; held out by weight shape.
        sheet: the GPU, with the peak of the compute type.
        quantised: the rows include the quantisation of their inputs.
        ramp: fit what short inner sizes cost, too.
        waves: fit what the last wave of tiles costs, too.
        split_k: fit how far the kernel splits k to fill a wave; else it does not.
        row_tile: rows of the kernel's largest tile; not fitted [1].
        everything: fit to all rows, not only those of wide, cold weights (small machines).

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    bounds = _BASE + (_QUANT if quantised else ())
    bounds += (_RAMP if ramp else ()) + (_WAVES if waves else ()) + (_SPLIT if split_k else ())
    fixed = {"row_tile": row_tile} if row_tile else {}
    if waves and not split_k:
        fixed["wave_limit"] = NO_LIMIT
    kernel = replace(GEMM, bounds=(_fixed_cost(rows), *bounds[1:]))
    if everything:
        kernel = replace(kernel, usable=lambda r, _: np.ones(len(r), dtype=np.bool_))
    return fit_kernel(kernel, rows, sheet, fixed=fixed)


def _fixed_cost(rows: pd.DataFrame | Split) -> Bound:
    """Bound of ``t0_s``: no fixed cost exceeds what the fastest of all rows takes in all.

    Wide shapes alone hardly tell it from a lower bandwidth.
    """
    table = rows.train if isinstance(rows, Split) else rows
    times = column(table, "latency_us")
    low = _BASE[0].low
    fastest = float(np.nanmin(times, initial=_BASE[0].high * 1e6)) * 1e-6
    return replace(_BASE[0], high=max(fastest, low + 1e-9))
