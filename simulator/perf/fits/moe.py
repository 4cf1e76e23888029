"""Fit of ``forms.moe_gemm_s``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split

WEIGHT_BYTES = {
    "bfloat16": 2.0,
    "float16": 2.0,
    "float32": 4.0,
    "fp8": 1.0,
    "fp8_block": 1.0 + 4.0 / 128**2,
    "int4_wo": 0.5 + 2.0 / 32.0,
}
"""Bytes of an expert's weight, scales included, by type of the tables [bytes]."""

COLD = 1.5
"""As for GEMMs: weights of a rank's experts in L2 caches [1]."""


def _load(rows: pd.DataFrame) -> tuple[Array, Array, Array]:
    """(token, expert) pairs of the rank, experts they visit, pairs of all ranks.

    ``balanced`` rows send every expert as many tokens as the next; others route uniformly at random.
    """
    tokens, per_token = column(rows, "tokens"), column(rows, "topk")
    experts = column(rows, "experts")
    ep = column(rows, "ep") if "ep" in rows.columns else np.ones(len(rows))
    pairs = tokens * per_token
    own = np.maximum(pairs / ep, 1.0)
    even = np.minimum(experts / ep, own)
    random = forms.uniform_experts(tokens, local=experts / ep, experts=experts, per_token=per_token)
    if "balanced" not in rows.columns:
        return own, random, pairs
    return own, np.where(rows["balanced"].to_numpy(np.bool_), even, random), pairs


def moe_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``moe`` rows [s]."""
    own, touched, pairs = _load(rows)
    return forms.moe_gemm_s(
        own,
        touched,
        pairs,
        hidden=column(rows, "hidden"),
        width=column(rows, "width"),
        t0_s=values["t0_s"],
        expert_s=values["expert_s"],
        peak_flops=sheet.peak_flops,
        bandwidth=sheet.bandwidth,
        compute_eff=values["compute_eff"],
        memory_eff=values["memory_eff"],
        p=values["p"],
        tile_rows=values["tile_rows"],
        own_passes=values["own_passes"],
        all_passes=values["all_passes"],
        weight_bytes=rows["dtype"].astype(str).map(WEIGHT_BYTES).to_numpy(np.float64),  # type: ignore[arg-type]
    )


def cold_experts(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows whose rank holds more weights than the cache."""
    ep = column(rows, "ep") if "ep" in rows.columns else np.ones(len(rows))
    size = rows["dtype"].astype(str).map(WEIGHT_BYTES).to_numpy(np.float64)
    held = 3.0 * column(rows, "experts") / ep * column(rows, "hidden") * column(rows, "width")
    return np.asarray(held * size > COLD * sheet.l2_bytes)


MOE = Kernel(
    "moe",
    (
        Bound("t0_s", 3e-5, 0.0, 1e-3, "s"),
        Bound("expert_s", 1e-8, 0.0, 1e-5, "s"),
        Bound("compute_eff", 0.6, 0.02, 1.0),
        Bound("memory_eff", 0.9, 0.02, 1.3),
        Bound("p", 3.0, 1.0, 8.0),
        Bound("tile_rows", 40.0, 0.0, 256.0),
        Bound("own_passes", 0.5, 0.0, 20.0),
        Bound("all_passes", 1.0, 0.0, 20.0),
    ),
    ("hidden", "width", "topk", "experts", "ep"),
    ("tokens", "hidden", "width", "topk", "experts"),
    moe_seconds,
    cold_experts,
)


def fit_moe_gemm(rows: pd.DataFrame | Split, sheet: Sheet) -> FitResult:
    """Fit ``forms.moe_gemm_s`` to rows of one GPU, kernel family and type.

    Args:
        rows: ``dtype, tokens, hidden, width, topk, experts, latency_us`` and, where experts are
            spread or loads even, ``ep`` and ``balanced``; held out by shape.
        sheet: the GPU, with the peak of the compute type.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    if isinstance(rows, pd.DataFrame) and "ep" not in rows.columns:
        rows = rows.assign(ep=1)
    return fit_kernel(MOE, rows, sheet)
