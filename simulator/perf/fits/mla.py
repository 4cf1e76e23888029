"""Fits of ``forms.mla_decode_s`` and ``forms.mla_prefill_s``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.attention import CHAIN, COLD, KV_BYTES, SHORTEST, SMALL_KV_BYTES
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split

RANK, ROPE, NOPE, VALUE = 512.0, 64.0, 128.0, 128.0
"""Widths of the measured latent attention: DeepSeek-V3's [1]."""


def _kv_bytes(rows: pd.DataFrame) -> Array:
    return np.asarray(rows["kv_dtype"].astype(str).map(KV_BYTES), dtype=np.float64)


def mla_decode_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``mla_decode`` rows [s]."""
    batch = column(rows, "batch")
    return forms.mla_decode_s(
        batch,
        batch * column(rows, "kv_len"),
        heads=column(rows, "n_heads"),
        kv_lora_rank=RANK,
        qk_rope_head_dim=ROPE,
        t0_s=values["t0_s"],
        sequence_s=values["sequence_s"],
        compute_eff=values["compute_eff"],
        memory_eff=values["memory_eff"],
        p=values["p"],
        head_tile=values["head_tile"],
        peak_flops=sheet.peak_flops,
        bandwidth=sheet.bandwidth,
        kv_bytes=_kv_bytes(rows),  # type: ignore[arg-type]  # an array broadcasts
        head_s=values.get("head_s", 0.0),
    )


def cold_latent(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows whose latent is larger than the cache, or tiny; contexts of 128 tokens and more."""
    size = column(rows, "batch") * column(rows, "kv_len") * (RANK + ROPE) * _kv_bytes(rows)
    cold = (size < SMALL_KV_BYTES) | (size > COLD * sheet.l2_bytes)
    return np.asarray(cold & (column(rows, "kv_len") >= SHORTEST))


def mla_prefill_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``mla_prefill`` rows [s]."""
    batch, length = column(rows, "batch"), column(rows, "isl")
    return forms.mla_prefill_s(
        batch * length,
        0.5 * batch * length**2,
        batch * length,
        heads=column(rows, "n_heads"),
        qk_head_dim=NOPE + ROPE,
        v_head_dim=VALUE,
        t0_s=values["t0_s"],
        compute_eff=values["compute_eff"],
        memory_eff=values["memory_eff"],
        peak_flops=sheet.peak_flops,
        bandwidth=sheet.bandwidth,
        row_s=values.get("row_s", 0.0),
        longest=length,
        chain=values.get("chain", 0.0),
        sms=sheet.sms,
    )


def long_prompts(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Prompts of 128 tokens and more, as for other attention."""
    del sheet
    return np.asarray(column(rows, "isl") >= SHORTEST)


MLA_DECODE = Kernel(
    "mla_decode",
    (
        Bound("t0_s", 1.3e-5, 0.0, 1e-3, "s"),
        Bound("sequence_s", 3e-8, 0.0, 1e-5, "s"),
        Bound("compute_eff", 0.6, 0.01, 1.0),
        Bound("memory_eff", 0.85, 0.05, 1.3),
        Bound("p", 2.0, 1.0, 8.0),
        Bound("head_tile", 32.0, 0.0, 256.0),
        Bound("head_s", 1e-9, 0.0, 1e-5, "s"),
    ),
    ("n_heads", "batch"),
    ("batch", "kv_len", "n_heads"),
    mla_decode_seconds,
    cold_latent,
)
MLA_PREFILL = Kernel(
    "mla_prefill",
    (
        Bound("t0_s", 1.5e-5, 0.0, 1e-3, "s"),
        Bound("compute_eff", 0.5, 0.01, 1.0),
        Bound("memory_eff", 0.5, 0.01, 4.0),
        Bound("row_s", 1e-9, 0.0, 1e-6, "s"),
    ),
    ("n_heads", "batch"),
    ("batch", "isl", "n_heads"),
    mla_prefill_seconds,
    long_prompts,
)


def fit_mla_decode(rows: pd.DataFrame | Split, sheet: Sheet) -> FitResult:
    """Fit ``forms.mla_decode_s`` to rows of one GPU, kernel family and KV type.

    Args:
        rows: ``kv_dtype, batch, kv_len, n_heads, latency_us``, DeepSeek-V3's widths; held out by
            heads and batch.
        sheet: the GPU, with the bf16 peak.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    return fit_kernel(MLA_DECODE, rows, sheet)


def fit_mla_prefill(rows: pd.DataFrame | Split, sheet: Sheet, *, chain: bool = False) -> FitResult:
    """Fit ``forms.mla_prefill_s`` to rows of one GPU, kernel family and KV type.

    Args:
        rows: ``kv_dtype, batch, isl, n_heads, latency_us``, DeepSeek-V3's widths; held out by heads
            and batch.
        sheet: the GPU, with the bf16 peak.
        chain: fit the row of tiles of the longest context, too.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    kernel = MLA_PREFILL
    if chain:
        kernel = replace(kernel, bounds=(*kernel.bounds, CHAIN))
    return fit_kernel(kernel, rows, sheet)
