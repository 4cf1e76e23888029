"""Fits of ``forms.decode_attention_s`` and ``forms.prefill_attention_s``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split

KV_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0}
"""Bytes of a stored number of the KV cache, by type of the tables [bytes]."""

SMALL_KV_BYTES = 2e6
"""KV that no cache makes a difference to: the fixed cost hides it [bytes]."""

COLD = 1.5
"""A benchmark that replays one KV cache reads it from memory where it is so many L2 caches large [1]."""

SHORTEST = 128.0
"""Shorter prompts run other kernels, which an engine hardly sees, and so do shorter contexts where a
fit does not tell kernels that split them: not fitted [tokens]."""


def _kv_bytes(rows: pd.DataFrame) -> Array:
    return np.asarray(rows["kv_dtype"].astype(str).map(KV_BYTES), dtype=np.float64)


def _read(length: Array, window: Array) -> Array:
    """Tokens a query at the end of ``length`` reads under a window (0: none)."""
    return np.where(window > 0.0, np.minimum(length, window), length)


def decode_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``attn_decode`` rows [s]."""
    batch = column(rows, "batch")
    read = _read(column(rows, "kv_len"), column(rows, "window"))
    return forms.decode_attention_s(
        batch,
        batch * read,
        heads=column(rows, "n_heads"),
        kv_heads=column(rows, "n_kv_heads"),
        head_dim=column(rows, "head_dim"),
        t0_s=values["t0_s"],
        tile_s=values["tile_s"],
        memory_eff=values["memory_eff"],
        bandwidth=sheet.bandwidth,
        sms=sheet.sms,
        kv_bytes=_kv_bytes(rows),
        terms=forms.DecodeTerms(**{key: values[key] for key in _TERMS if key in values}),
        short=read <= forms.BLOCK_TOKENS,
        cold=decode_kv_bytes(rows) > sheet.l2_bytes,
    )


_TERMS = tuple(field.name for field in fields(forms.DecodeTerms))


def decode_kv_bytes(rows: pd.DataFrame) -> Array:
    """KV cache a decode row reads [bytes]."""
    read = column(rows, "batch") * _read(column(rows, "kv_len"), column(rows, "window"))
    width = 2.0 * column(rows, "n_kv_heads") * column(rows, "head_dim")
    return np.asarray(read * width * _kv_bytes(rows))


def _common(rows: pd.DataFrame) -> Mask:
    """Grouped-query attention over all tokens with heads of 128."""
    grouped = column(rows, "n_heads") > column(rows, "n_kv_heads")
    return np.asarray(
        grouped & (column(rows, "head_dim") == 128.0) & (column(rows, "window") == 0.0)
    )


def cold_kv(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows in the region scores are about: grouped queries, KV cold or tiny."""
    size = decode_kv_bytes(rows)
    cold = (size < SMALL_KV_BYTES) | (size > COLD * sheet.l2_bytes)
    return np.asarray(_common(rows) & cold)


def cold_long_kv(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Of these, rows of contexts that are not short."""
    return np.asarray(cold_kv(rows, sheet) & (column(rows, "kv_len") >= SHORTEST))


def prefill_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``attn_prefill`` rows [s]."""
    batch, length = column(rows, "batch"), column(rows, "isl")
    cached = column(rows, "step")
    window = np.where(column(rows, "window") > 0.0, column(rows, "window"), np.inf)
    return forms.prefill_attention_s(
        batch * length,
        batch * windowed_pairs(cached, length, window),
        batch * np.minimum(cached + length, window + length),
        heads=column(rows, "n_heads"),
        kv_heads=column(rows, "n_kv_heads"),
        head_dim=column(rows, "head_dim"),
        t0_s=values["t0_s"],
        compute_eff=values["compute_eff"],
        memory_eff=values["memory_eff"],
        peak_flops=sheet.peak_flops,
        bandwidth=sheet.bandwidth,
        kv_bytes=_kv_bytes(rows),  # type: ignore[arg-type]  # an array broadcasts
        head_dim_exponent=values.get("head_dim_exponent", 0.0),
        l2_spill=values.get("l2_spill", 0.0),
        l2_bytes=sheet.l2_bytes,
        longest=np.minimum(cached + length, window),
        chain=values.get("chain", 0.0),
        sms=sheet.sms,
    )


def windowed_pairs(cached: Array, new: Array, window: Array) -> Array:
    """Query-key pairs of a chunk whose queries read at most ``window`` tokens each.

    The causal triangle ``c·p + c²/2``, less the part of it farther than the window.
    """
    end = cached + new
    full = new * (cached + 0.5 * new)
    beyond = np.maximum(end - window, 0.0)
    before = np.maximum(cached - window, 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(full - 0.5 * (beyond**2 - before**2))


def long_prompts(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Rows in the region fits and scores are about: grouped queries, prompts of 128 and more."""
    del sheet
    return np.asarray(_common(rows) & (column(rows, "isl") >= SHORTEST))


CHAIN = Bound("chain", 1.0, 0.0, 20.0)
"""The row of tiles of the longest context of a prefill."""

HEADS = ("n_heads", "n_kv_heads")
DECODE = Kernel(
    "decode_attention",
    (
        Bound("t0_s", 1.2e-5, 0.0, 1e-3, "s"),
        Bound("tile_s", 2e-6, 0.0, 1e-4, "s"),
        Bound("memory_eff", 0.85, 0.05, 1.5),
    ),
    HEADS,
    ("batch", "kv_len", "n_heads", "n_kv_heads", "head_dim"),
    decode_seconds,
    cold_long_kv,
)
PREFILL = Kernel(
    "prefill_attention",
    (
        Bound("t0_s", 1.2e-5, 0.0, 1e-3, "s"),
        Bound("compute_eff", 0.6, 0.01, 1.0),
        Bound("memory_eff", 0.5, 0.01, 4.0),
    ),
    HEADS,
    ("batch", "isl", "n_heads", "n_kv_heads"),
    prefill_seconds,
    long_prompts,
)


def _all(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    del sheet
    return np.ones(len(rows), dtype=np.bool_)


_SPLIT = (
    Bound("split_s", 2e-6, 0.0, 5e-5, "s"),
    Bound("cold_s", 5e-6, 0.0, 5e-5, "s"),
    Bound("fill_s", 2e-6, 0.0, 5e-5, "s"),
    Bound("block_s", 4e-6, 0.0, 1e-4, "s"),
)
_GATHER = (Bound("gather_s", 4e-6, 0.0, 5e-5, "s"),)
_WAVES = (Bound("wave_exponent", 0.5, 0.0, 2.0),)


def fit_decode_attention(
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    split_fill: float | None = None,
    gather: bool = False,
    waves: bool = False,
    everything: bool = False,
) -> FitResult:
    """Fit ``forms.decode_attention_s`` to rows of one GPU, kernel family and KV type.

    Args:
        rows: ``kv_dtype, batch, kv_len, n_heads, n_kv_heads, head_dim, window, latency_us``; held
            out by head configuration.
        sheet: the GPU.
        split_fill: from which fill on the kernel does not split contexts, see
            ``forms.DecodeTerms``; short contexts are fitted, too. None: bytes and tiles alone.
        gather: fit the copies of Q and O between layouts, too.
        waves: fit what the last wave of tiles costs, too.
        everything: fit to all rows, whatever their heads and cached or not (small machines).

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    kernel, fixed = DECODE, {}
    if split_fill is not None:
        more = _SPLIT + (_GATHER if gather else ()) + (_WAVES if waves else ())
        kernel = replace(kernel, bounds=DECODE.bounds + more, usable=cold_kv)
        fixed["split_fill"] = split_fill
    if everything:
        kernel = replace(kernel, usable=_all)
    return fit_kernel(kernel, rows, sheet, fixed=fixed)


def fit_prefill_attention(
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    head_dim_exponent: float = 0.0,
    spill: bool = False,
    chain: bool = False,
    everything: bool = False,
) -> FitResult:
    """Fit ``forms.prefill_attention_s`` to rows of one GPU, kernel family and KV type.

    Args:
        rows: ``kv_dtype, batch, isl, step, n_heads, n_kv_heads, head_dim, window, latency_us``; held
            out by head configuration.
        sheet: the GPU, with the bf16 peak.
        head_dim_exponent: how efficiency changes with the width of a head; not fitted [1].
        spill: fit what tensors beyond the L2 cost, too.
        chain: fit the row of tiles of the longest context, too; it takes rows of few tiles, and
            more of them than a small machine measures.
        everything: fit to all rows, whatever their heads and length (small machines).

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    kernel = replace(PREFILL, usable=_all) if everything else PREFILL
    more = ((Bound("l2_spill", 0.5, 0.0, 20.0),) if spill else ()) + ((CHAIN,) if chain else ())
    kernel = replace(kernel, bounds=kernel.bounds + more)
    return fit_kernel(kernel, rows, sheet, fixed={"head_dim_exponent": head_dim_exponent})
