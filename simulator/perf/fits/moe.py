"""Fit of ``forms.moe_gemm_s``.

A row's ``tuned`` column says whether the engine ships tiles for its shape (``tiles``), ``tile``
the rows of a tile it fills whole ones of; tables without are of kernels that choose otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
"""As for GEMMs: weights of the experts visited in L2 caches [1]."""


@dataclass(frozen=True, slots=True)
class _Load:
    """(token, expert) pairs of the rank, experts they visit, pairs of all ranks and of visitors."""

    rows: Array
    touched: Array
    pairs: Array
    slots: Array


def _load(rows: pd.DataFrame) -> _Load:
    """What a rank is given.

    ``balanced`` rows send every expert as many tokens as the next; others route uniformly at random.
    """
    tokens, per_token = column(rows, "tokens"), column(rows, "topk")
    experts = column(rows, "experts")
    ep = column(rows, "ep") if "ep" in rows.columns else np.ones(len(rows))
    pairs = tokens * per_token
    own = np.maximum(pairs / ep, 1.0)
    even = np.minimum(experts / ep, own)
    random = forms.uniform_experts(tokens, local=experts / ep, experts=experts, per_token=per_token)
    # even loads spread the experts of a token over the ranks before any rank gets a second one
    slots = pairs * np.minimum(1.0, per_token / ep)
    if "balanced" not in rows.columns:
        return _Load(own, random, pairs, slots)
    touched = np.where(rows["balanced"].to_numpy(np.bool_), even, random)
    return _Load(own, touched, pairs, slots)


def _untuned(rows: pd.DataFrame) -> Mask | bool:
    """Rows that run the default tile for many tokens."""
    if "tuned" not in rows.columns:
        return False
    local = column(rows, "experts") / column(rows, "ep")
    beyond = column(rows, "tokens") > local
    return np.asarray(~rows["tuned"].to_numpy(np.bool_) & beyond)


def _tile(rows: pd.DataFrame) -> Array | float:
    """Rows of the tile of kernels that fill whole ones; 0 without."""
    return column(rows, "tile") if "tile" in rows.columns else 0.0


def _even(rows: pd.DataFrame) -> Mask | bool:
    return rows["balanced"].to_numpy(np.bool_) if "balanced" in rows.columns else False


def moe_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``moe`` rows [s]."""
    load = _load(rows)
    return forms.moe_gemm_s(
        load.rows,
        load.touched,
        load.pairs,
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
        tile=_tile(rows),
        even=_even(rows),
        untuned=_untuned(rows),
        untuned_compute=values.get("untuned_compute", 1.0),
        untuned_memory=values.get("untuned_memory", 1.0),
        slots=load.slots,
        foreign_rows=values.get("foreign_rows", 0.0),
    )


def cold_experts(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows that read more weights than the cache holds: a replayed benchmark finds fewer in it."""
    size = rows["dtype"].astype(str).map(WEIGHT_BYTES).to_numpy(np.float64)
    read = 3.0 * _load(rows).touched * column(rows, "hidden") * column(rows, "width")
    return np.asarray(read * size > COLD * sheet.l2_bytes)


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


_TILES = (Bound("untuned_compute", 0.5, 0.05, 1.0), Bound("untuned_memory", 0.8, 0.05, 1.0))
_FOREIGN = (Bound("foreign_rows", 0.5, 0.0, 1.0),)


def fit_moe_gemm(
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    tiles: bool = False,
    foreign: bool = False,
    whole: bool = False,
) -> FitResult:
    """Fit ``forms.moe_gemm_s`` to rows of one GPU, kernel family and type.

    Args:
        rows: ``dtype, tokens, hidden, width, topk, experts, latency_us`` and, where experts are
            spread or loads even, ``ep`` and ``balanced``; held out by shape.
        sheet: the GPU, with the peak of the compute type.
        tiles: fit what shapes cost that the engine ships no tiles for; rows say which in ``tuned``.
        whole: experts fill whole tiles, which rows say in ``tile``: nothing else pads them.
        foreign: fit how much of other ranks' work the kernel does for tokens that visit.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    if isinstance(rows, pd.DataFrame) and "ep" not in rows.columns:
        rows = rows.assign(ep=1)
    bounds = MOE.bounds + (_TILES if tiles else ()) + (_FOREIGN if foreign else ())
    fixed = {"tile_rows": 0.0} if whole else {}
    return fit_kernel(replace(MOE, bounds=bounds), rows, sheet, fixed=fixed)
