"""Experts and latent attention, predicted with the parameters of a kernel family."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwprofiles import GpuProfile, KernelFamily
from simulator.perf.fits.kernel import Kernel, Sheet, values_of
from simulator.perf.fits.mla import MLA_DECODE, MLA_PREFILL
from simulator.perf.fits.moe import MOE
from simulator.perf.fits.tiles import marked, tiled

Array = npt.NDArray[np.float64]

KERNELS: dict[str, Kernel] = {"moe": MOE, "mla_decode": MLA_DECODE, "mla_prefill": MLA_PREFILL}
"""Forms by operator; ``moe`` is given per compute type, latent attention per KV type."""

_TYPES = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "int4_wo": "int4_weight_only",
}
_BEST = {
    "moe": {"t0_s": 0.0, "expert_s": 0.0, "tile_rows": 0.0, "own_passes": 0.0, "all_passes": 0.0,
            "compute_eff": 1.0, "memory_eff": 1.0, "p": 16.0},
    "mla_decode": {"t0_s": 0.0, "sequence_s": 0.0, "head_tile": 0.0, "compute_eff": 1.0,
                   "memory_eff": 1.0, "p": 16.0},
    "mla_prefill": {"t0_s": 0.0, "compute_eff": 1.0, "memory_eff": 1.0},
}  # fmt: skip
"""Parameters that turn each form into the data sheet's roofline."""


def _sheet(operator: str, gpu: GpuProfile, kind: str) -> Sheet | None:
    """The data sheet for a type; None where the GPU does not compute in it."""
    compute = "bf16" if operator != "moe" or kind.endswith("_weight_only") else kind
    if compute.startswith("fp8") and not gpu.has_fp8:
        return None
    return Sheet.of(gpu, compute)


def _complete(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if "ep" in rows.columns else rows.assign(ep=1)


def times(
    operator: str, rows: pd.DataFrame, gpu: GpuProfile, family: KernelFamily, dtype: str
) -> tuple[Array, str]:
    """Predicted times of rows of one type [s], and why there are none where they are NaN.

    Args:
        operator: a key of ``KERNELS``.
        rows: measured rows.
        gpu: the GPU.
        family: its kernels.
        dtype: type of the rows, in the words of the tables.
    """
    kind = _TYPES.get(dtype, dtype)
    params = dict(getattr(family, operator)).get(kind)
    sheet = None if params is None else _sheet(operator, gpu, kind)
    if params is None or sheet is None:
        return np.full(len(rows), np.nan), f"no {operator} parameters in {kind} for {family.name}"
    rows, tuned = _complete(rows), getattr(params, "tuned", None)
    rows = rows if tuned is None else marked(rows, tuned)
    tiles = getattr(params, "tiles", None)
    rows = rows if tiles is None else tiled(rows, tiles)
    return KERNELS[operator].predict(rows, sheet, values_of(params)), ""


def naive(operator: str, rows: pd.DataFrame, gpu: GpuProfile, dtype: str) -> Array:
    """The same at data-sheet rates [s]; NaN for a type the GPU has no unit for."""
    sheet = _sheet(operator, gpu, _TYPES.get(dtype, "bf16"))
    if sheet is None or dtype not in _TYPES:
        return np.full(len(rows), np.nan)
    return KERNELS[operator].predict(_complete(rows), sheet, _BEST[operator])


def cold(operator: str, rows: pd.DataFrame, gpu: GpuProfile) -> npt.NDArray[np.bool_]:
    """Rows of the region fits and scores are about."""
    known = rows["dtype"].astype(str).isin(_TYPES).to_numpy()
    usable = KERNELS[operator].usable(_complete(rows), Sheet.of(gpu))
    return np.asarray(known & usable)
