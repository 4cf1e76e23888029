"""Each measured kernel beside the calibrated form and a data-sheet roofline.

The parameters are those of the kernel family that measured the row (``framework``), where the
profile has it; the profile's default family stands in otherwise, and the note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwprofiles import BusAllReduce, GpuProfile, KernelFamily, NvlinkAllReduce
from simulator.model import Format
from simulator.perf import forms
from simulator.perf.decode import decode_args
from simulator.perf.fabric import bus_all_reduce_s, nvlink_all_reduce_s
from simulator.perf.fits.attention import SHORTEST
from simulator.perf.kernels import (
    ACTIVATION_BYTES,
    INPUT_BYTES,
    Multiply,
    for_dtype,
    gemm_args,
    value_or,
)
from simulator.perf.precision import Compute
from simulator.units import US
from simulator.validation.operators import mixtures
from simulator.validation.operators.tables import Table

Array = npt.NDArray[np.float64]

RESULT = ("dtype", "predicted_us", "naive_us", "region", "extrapolated", "note")
"""Columns of a prediction, beside those of the table."""

_FORMATS: dict[str, tuple[Format, Compute]] = {
    "bfloat16": ("bf16", "bf16"),
    "float16": ("bf16", "bf16"),
    "half": ("bf16", "bf16"),
    "fp8": ("fp8", "fp8"),
    "fp8_block": ("fp8_block", "fp8"),
}

WARM_SHARE = 1.5
"""Tensors below so many L2 caches may have been served from it by a repeated call [1]."""

LARGE = "all_reduce_large"
"""What an all-reduce of more than ``forms.CUSTOM_MOST_BYTES`` is scored as."""

SMALL_KV_BYTES = 2e6
"""KV below this is read in less time than a kernel takes to start, wherever it lies [bytes]."""


def predict(table: Table) -> pd.DataFrame:
    """Predictions for every row of a table.

    Returns:
        The table's frame with the columns of ``RESULT``: ``predicted_us`` and ``naive_us`` [µs],
        NaN where nothing predicts the row (``note`` says why); ``region`` is ``cold`` where the
        row measures memory and not the L2 cache and its shape is one that serving meets,
        ``other`` elsewhere; ``extrapolated`` marks shapes outside ``cold``.
    """
    out = table.frame.copy()
    out["dtype"] = _dtype(table)
    out["predicted_us"] = np.nan
    out["naive_us"] = np.nan
    out["note"] = ""
    out["region"] = np.where(_REGIONS[table.operator](out, table.gpu), "cold", "other")
    out["extrapolated"] = out["region"] != "cold"
    for (framework, dtype), rows in out.groupby(["framework", "dtype"], sort=False):
        family, note = _family(table.gpu, str(framework))
        predicted, reason = _FORMS[table.operator](rows, table.gpu, family, str(dtype))
        out.loc[rows.index, "predicted_us"] = predicted / US
        naive = _NAIVE[table.operator](rows, table.gpu, str(dtype))
        out.loc[rows.index, "naive_us"] = naive / US
        out.loc[rows.index, "note"] = np.where(np.isnan(predicted), reason, note)
    return out


def _dtype(table: Table) -> pd.Series:
    column = {"gemm": "dtype", "moe": "dtype", "comm": "op"}.get(table.operator, "kv_dtype")
    found = table.frame[column].astype(str)
    if table.operator == "comm":  # custom kernels and the library's are scored apart
        large = table.frame["bytes"].to_numpy(np.float64) > forms.CUSTOM_MOST_BYTES
        found = found.where(~large | (found != "all_reduce"), LARGE)
    return found


def _family(gpu: GpuProfile, framework: str) -> tuple[KernelFamily, str]:
    for family in gpu.kernels:
        if family.name == framework:
            return family, ""
    return gpu.kernels[0], f"kernels of {gpu.kernels[0].name} stand in for {framework}"


def _float(rows: pd.DataFrame, column: str) -> Array:
    return rows[column].to_numpy(dtype=np.float64)


# --- GEMM ---------------------------------------------------------------------------------------


def _gemm(
    rows: pd.DataFrame, gpu: GpuProfile, family: KernelFamily, dtype: str
) -> tuple[Array, str]:
    how = _multiply(family, gpu, dtype)
    m, n, k = _float(rows, "m"), _float(rows, "n"), _float(rows, "k")
    if how is None:
        return np.full(len(m), np.nan), f"no parameters for a GEMM in {dtype} on {gpu.name}"
    return forms.gemm_s(m, n, k, **gemm_args(gpu, family, how)), ""


def _multiply(family: KernelFamily, gpu: GpuProfile, dtype: str) -> Multiply | None:
    if dtype not in _FORMATS:
        return None
    stored, compute = _FORMATS[dtype]
    for kernel in (stored, compute):
        if kernel in dict(family.gemm) and (compute == "bf16" or gpu.fp8_flops is not None):
            return Multiply(stored, compute, kernel, kernel == stored)
    return None


def _gemm_naive(rows: pd.DataFrame, gpu: GpuProfile, dtype: str) -> Array:
    m, n, k = _float(rows, "m"), _float(rows, "n"), _float(rows, "k")
    _, compute = _FORMATS.get(dtype, ("bf16", "bf16"))
    if compute == "fp8" and gpu.fp8_flops is None:
        return np.full(len(m), np.nan)
    each = INPUT_BYTES[compute]
    traffic = each * (n * k + m * k) + ACTIVATION_BYTES * m * n
    return _roofline(2.0 * m * n * k, traffic, gpu, compute)


def _gemm_cold(rows: pd.DataFrame, gpu: GpuProfile) -> npt.NDArray[np.bool_]:
    m, n, k = _float(rows, "m"), _float(rows, "n"), _float(rows, "k")
    weight = n * k * np.where(rows["dtype"].astype(str).str.startswith("fp8"), 1.0, 2.0)
    inside = (n >= 1000) & (n <= 60_000) & (k >= 1000) & (k <= 60_000) & (m <= 8192)
    return np.asarray(inside & (weight > WARM_SHARE * gpu.l2_bytes.value))


# --- attention ----------------------------------------------------------------------------------


def _kv_type(dtype: str) -> tuple[str, float]:
    return ("fp8", 1.0) if dtype == "fp8" else ("bf16", 2.0)


def _seen(rows: pd.DataFrame, length: Array) -> Array:
    """Tokens a query at the end of a context reads [tokens]."""
    window = _float(rows, "window")
    return np.where(window > 0.0, np.minimum(length, window), length)


def _decode(
    rows: pd.DataFrame, gpu: GpuProfile, family: KernelFamily, dtype: str
) -> tuple[Array, str]:
    kv, kv_bytes = _kv_type(dtype)
    batch = _float(rows, "batch")
    heads = (_float(rows, "n_heads"), _float(rows, "n_kv_heads"), _float(rows, "head_dim"))
    args = decode_args(gpu, family, heads, kv, kv_bytes)
    read = _seen(rows, _float(rows, "kv_len"))
    time = forms.decode_attention_s(
        batch,
        batch * read,
        short=read <= forms.BLOCK_TOKENS,
        cold=_kv_read_bytes(rows, kv_bytes) > gpu.l2_bytes.value,
        **args,
    )
    return time, ""


def _kv_read_bytes(rows: pd.DataFrame, kv_bytes: Array | float) -> Array:
    tokens = _float(rows, "batch") * _seen(rows, _float(rows, "kv_len"))
    return np.asarray(
        2.0 * tokens * _float(rows, "n_kv_heads") * _float(rows, "head_dim") * kv_bytes
    )


def _decode_naive(rows: pd.DataFrame, gpu: GpuProfile, dtype: str) -> Array:
    batch, heads, dim = (_float(rows, c) for c in ("batch", "n_heads", "head_dim"))
    tokens = batch * _seen(rows, _float(rows, "kv_len"))
    traffic = 2.0 * tokens * _float(rows, "n_kv_heads") * dim * _kv_type(dtype)[1]
    return _roofline(4.0 * tokens * heads * dim, traffic + 4.0 * batch * heads * dim, gpu, "bf16")


def _decode_cold(rows: pd.DataFrame, gpu: GpuProfile) -> npt.NDArray[np.bool_]:
    kv_heads, dim = _float(rows, "n_kv_heads"), _float(rows, "head_dim")
    width = np.where(rows["dtype"].astype(str) == "fp8", 1.0, 2.0)
    kv = _kv_read_bytes(rows, width)
    cold = (kv > WARM_SHARE * gpu.l2_bytes.value) | (kv < SMALL_KV_BYTES)
    grouped = kv_heads < _float(rows, "n_heads")
    full = _float(rows, "window") == 0.0
    return np.asarray(cold & grouped & full & (dim == 128.0))


def _prefill(
    rows: pd.DataFrame, gpu: GpuProfile, family: KernelFamily, dtype: str
) -> tuple[Array, str]:
    kv, kv_bytes = _kv_type(dtype)
    params = for_dtype(family.prefill_attention, kv)
    batch, isl = _float(rows, "batch"), _float(rows, "isl")
    time = forms.prefill_attention_s(
        batch * isl,
        batch * _pairs(rows, isl),
        batch * isl,
        heads=_float(rows, "n_heads"),
        kv_heads=_float(rows, "n_kv_heads"),
        head_dim=_float(rows, "head_dim"),
        t0_s=params.t0_s.value,
        compute_eff=params.compute_eff.value,
        memory_eff=params.memory_eff.value,
        peak_flops=gpu.peak_flops("bf16"),
        bandwidth=gpu.memory_bytes_per_s.value,
        kv_bytes=kv_bytes,
        head_dim_exponent=params.head_dim_exponent.value,
        l2_spill=value_or(params.l2_spill, 0.0),
        l2_bytes=gpu.l2_bytes.value,
        longest=_seen(rows, isl),
        chain=value_or(params.chain, 0.0),
        sms=gpu.sms.value,
    )
    reason = "chunks after a cached prefix are not in the measured tables"
    cached = _float(rows, "step") if "step" in rows else np.zeros(len(rows))
    return np.where(cached > 0.0, np.nan, time), reason


def _pairs(rows: pd.DataFrame, isl: Array) -> Array:
    """Query-key pairs of one prompt under the causal mask and the window."""
    seen = _seen(rows, isl)
    return 0.5 * seen * seen + (isl - seen) * seen


def _prefill_naive(rows: pd.DataFrame, gpu: GpuProfile, dtype: str) -> Array:
    batch, isl, heads, dim = (_float(rows, c) for c in ("batch", "isl", "n_heads", "head_dim"))
    kv = 2.0 * _float(rows, "n_kv_heads") * _kv_type(dtype)[1]
    traffic = batch * isl * dim * (2.0 * heads * ACTIVATION_BYTES + kv)
    return _roofline(4.0 * batch * _pairs(rows, isl) * heads * dim, traffic, gpu, "bf16")


def _prefill_cold(rows: pd.DataFrame, gpu: GpuProfile) -> npt.NDArray[np.bool_]:
    del gpu
    full = (_float(rows, "window") == 0.0) & (_float(rows, "head_dim") == 128.0)
    grouped = _float(rows, "n_kv_heads") < _float(rows, "n_heads")
    return np.asarray(full & grouped & (_float(rows, "isl") >= SHORTEST))


# --- collectives --------------------------------------------------------------------------------


def _comm(rows: pd.DataFrame, gpu: GpuProfile, family: KernelFamily, op: str) -> tuple[Array, str]:
    time = np.full(len(rows), np.nan)
    if op not in ("all_reduce", LARGE):
        return time, f"{op} is not a kernel of the step model"
    size, gpus = _float(rows, "bytes"), _float(rows, "n_gpus")
    params = family.all_reduce
    for n in np.unique(gpus):
        at = gpus == n
        if isinstance(params, NvlinkAllReduce) and gpu.nvlink_bytes_per_s is not None:
            link = gpu.nvlink_bytes_per_s.value
            time[at] = nvlink_all_reduce_s(size[at], int(n), params, link)
        else:
            bus = _bus(family, int(n))
            if bus is not None:
                time[at] = bus_all_reduce_s(size[at], int(n), bus)
    return time, f"no parameters for an all-reduce of so many GPUs on {gpu.name}"


def _bus(family: KernelFamily, gpus: int) -> BusAllReduce | None:
    entries = family.all_reduce if isinstance(family.all_reduce, tuple) else ()
    return next((entry for entry in entries if entry.gpus == gpus), None)


def _comm_naive(rows: pd.DataFrame, gpu: GpuProfile, op: str) -> Array:
    size, gpus = _float(rows, "bytes"), _float(rows, "n_gpus")
    link = gpu.nvlink_bytes_per_s or gpu.pcie_bytes_per_s
    if op not in ("all_reduce", LARGE):
        return np.full(len(size), np.nan)
    return 2.0 * (gpus - 1.0) / gpus * size / link.value


def _comm_cold(rows: pd.DataFrame, gpu: GpuProfile) -> npt.NDArray[np.bool_]:
    size = _float(rows, "bytes")
    engines = rows["op"].astype(str).eq("all_reduce") & (rows["framework"] != "nccl")
    trusted = gpu.nvlink_bytes_per_s is not None or (_float(rows, "n_gpus") == 2.0)
    return np.asarray(engines & trusted & (size >= 8192.0))


def _roofline(flops: Array, traffic: Array, gpu: GpuProfile, compute: Compute) -> Array:
    """The larger of arithmetic and traffic at data-sheet rates [s]."""
    return np.maximum(flops / gpu.peak_flops(compute), traffic / gpu.memory_bytes_per_s.value)


_Form = Callable[[pd.DataFrame, GpuProfile, KernelFamily, str], tuple[Array, str]]
_FORMS: dict[str, _Form] = {
    "gemm": _gemm,
    "attn_decode": _decode,
    "attn_prefill": _prefill,
    "comm": _comm,
    **{name: partial(mixtures.times, name) for name in mixtures.KERNELS},
}
_NAIVE: dict[str, Callable[[pd.DataFrame, GpuProfile, str], Array]] = {
    "gemm": _gemm_naive,
    "attn_decode": _decode_naive,
    "attn_prefill": _prefill_naive,
    "comm": _comm_naive,
    **{name: partial(mixtures.naive, name) for name in mixtures.KERNELS},
}
_REGIONS: dict[str, Callable[[pd.DataFrame, GpuProfile], npt.NDArray[np.bool_]]] = {
    "gemm": _gemm_cold,
    "attn_decode": _decode_cold,
    "attn_prefill": _prefill_cold,
    "comm": _comm_cold,
    **{name: partial(mixtures.cold, name) for name in mixtures.KERNELS},
}
