"""The measured rows that come with the project, and which of them each kernel family is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import as_file, files
from typing import Any

import pandas as pd

from hwprofiles import GpuProfile
from simulator.errors import InputError, suggest
from simulator.perf.fits.attention import fit_decode_attention, fit_prefill_attention
from simulator.perf.fits.collective import fit_all_reduce, fit_all_to_all, fit_bus_all_reduce
from simulator.perf.fits.gemm import fit_gemm
from simulator.perf.fits.kernel import Sheet
from simulator.perf.fits.mla import fit_mla_decode, fit_mla_prefill
from simulator.perf.fits.moe import fit_moe_gemm
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.tiles import MARLIN, TUNED, Shapes, marked, tiled

TABLES = ("gemm", "attn_prefill", "attn_decode", "comm", "moe", "mla_decode", "mla_prefill")
"""Bundled tables, by operator."""

PROFILES = {
    "h100_sxm": "h100_sxm",
    "h200_sxm": "h200_sxm",
    "a100_sxm": "a100_sxm_80gb",
    "l40s": "l40s",
}
"""GPU profile of each name in the measured tables."""

DTYPE = {
    "bf16": "bfloat16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "int4_weight_only": "int4_wo",
}
"""Type in the tables of each type in a profile."""

Rows = pd.DataFrame
Fit = Callable[[Rows, Sheet], FitResult]


@cache
def measurements(name: str, table: str) -> Rows:
    """Bundled rows of a GPU and operator, empty where there are none; not to be changed.

    ``part`` says what became of a row: ``fit``, ``held`` out of the fit, or ``other``: outside the
    region that is fitted.

    Args:
        name: the GPU in the measured tables.
        table: one of ``TABLES``.

    Raises:
        InputError: unknown name.
    """
    if table not in TABLES:
        raise InputError(f"measurements: table '{table}' is unknown; {suggest(table, TABLES)}")
    if name not in PROFILES:
        raise InputError(f"measurements: GPU '{name}' is unknown; {suggest(name, PROFILES)}")
    file = files("hwprofiles") / "measurements" / f"{name}_{table}.parquet"
    if not file.is_file():
        return pd.DataFrame(columns=["framework", "dtype", "kv_dtype", "op"])
    with as_file(file) as path:
        return pd.read_parquet(path)


@dataclass(frozen=True, slots=True)
class Job:
    """One operator of one kernel family in one type, and what it is fitted to.

    Attributes:
        family: kernel family.
        operator: section of the profile.
        key: type (``bf16``, …) or, for a bus, ``n2``, …; empty where the section has no types.
        rows: measured rows.
        compute: type of the peak.
        fit: the fit.
        tuned: shapes of experts the engine ships tiles for; None where it chooses otherwise.
        tiles: rows of the tiles the kernel chooses from; None where it chooses otherwise.
    """

    family: str
    operator: str
    key: str
    rows: Rows
    compute: str
    fit: Fit
    tuned: Shapes | None = None
    tiles: tuple[int, ...] | None = None

    def run(self, gpu: GpuProfile) -> FitResult:
        """Fit it."""
        return self.fit(self.rows, Sheet.of(gpu, self.compute))


def jobs(name: str, gpu: GpuProfile) -> Iterator[Job]:
    """Every fit the bundled rows of a GPU allow.

    Args:
        name: the GPU in the measured tables.
        gpu: its profile.
    """
    yield from _gemm(name, gpu)
    yield from _attention(name, gpu)
    yield from _collectives(name, gpu)
    yield from _moe(name)
    yield from _mla(name)


def _parts(rows: Rows, dtype: str) -> Iterator[tuple[str, str, Rows]]:
    """(family, profile type, rows) of a table."""
    names = {table: profile for profile, table in DTYPE.items()}
    for (family, kind), part in rows.groupby(["framework", dtype], observed=True):
        yield str(family), names[str(kind)], part


def _gemm(name: str, gpu: GpuProfile) -> Iterator[Job]:
    for family, kind, rows in _parts(measurements(name, "gemm"), "dtype"):
        fit = partial(fit_gemm, **_gemm_form(gpu, kind))
        yield Job(family, "gemm", kind, rows, kind, fit)


def _gemm_form(gpu: GpuProfile, kind: str) -> dict[str, Any]:
    """Which terms the kernels of a type show: chosen on fitted rows, kept where they pay."""
    if not gpu.has_fp8:
        return {"ramp": True, "waves": True, "split_k": True}
    if kind == "bf16" or gpu.nvlink_bytes_per_s is None:
        return {"quantised": kind != "bf16"}
    return {"quantised": True, "waves": True, "row_tile": 256.0 if kind == "fp8" else 128.0}


HEAD_DIM_EXPONENT = {"h100_sxm": 0.45, "h200_sxm": 0.45}
"""How prefill attention of FlashAttention 3 gains with the head's width: 64 to 256, to about 10 %."""


FA3_SPLIT_FILL, FA2_SPLIT_FILL = 0.8, 1.6
"""Multiprocessors, times those there are, that FlashAttention wants filled before it no longer splits
contexts (``num_splits_heuristic``: 80 % of them; version 2 counts each twice)."""


def _hopper(gpu: GpuProfile) -> bool:
    """Whether it runs FlashAttention 3, else 2.

    Version 3 splits the keys of a prompt with few rows of tiles: H100, 2 heads and 3,072 tokens take
    20 µs longer than the shortest prompts, a row of tiles on one multiprocessor 27 µs at its peak.
    """
    return gpu.has_fp8 and gpu.nvlink_bytes_per_s is not None


def _decode_form(gpu: GpuProfile) -> dict[str, Any]:
    """Which terms FlashAttention shows: 3 on Hopper, 2, whose copies Hopper's does not need, else.

    Waves show where one multiprocessor cannot draw more than its share of the bandwidth: not where
    memory is as slow as on the L40S.
    """
    if _hopper(gpu):
        return {"split_fill": FA3_SPLIT_FILL}
    return {"split_fill": FA2_SPLIT_FILL, "gather": True, "waves": not gpu.has_fp8}


def _attention(name: str, gpu: GpuProfile) -> Iterator[Job]:
    decode = partial(fit_decode_attention, **_decode_form(gpu))
    fit = partial(
        fit_prefill_attention,
        head_dim_exponent=HEAD_DIM_EXPONENT.get(name, 0.0),
        spill=gpu.nvlink_bytes_per_s is None,  # a large L2 before a slow memory, as on the L40S
        chain=not _hopper(gpu),
    )
    for family, kind, rows in _parts(measurements(name, "attn_decode"), "kv_dtype"):
        yield Job(family, "decode_attention", kind, rows, "bf16", decode)
    for family, kind, rows in _parts(measurements(name, "attn_prefill"), "kv_dtype"):
        yield Job(family, "prefill_attention", kind, rows, "bf16", fit)


CUSTOM_BYTES = {("a100_sxm", "trtllm"): 2.0**20}
"""Where an engine leaves all-reduces to the library earlier than others: at 2 MB their time jumps."""


def _collectives(name: str, gpu: GpuProfile) -> Iterator[Job]:
    for family, rows in measurements(name, "comm").groupby("framework", observed=True):
        reduce = rows[rows["op"] == "all_reduce"]
        exchange = rows[rows["op"] == "alltoall"]
        if not exchange.empty and gpu.nvlink_bytes_per_s is not None:
            yield Job(str(family), "all_to_all", "", exchange, "bf16", fit_all_to_all)
        if reduce.empty:
            continue
        if gpu.nvlink_bytes_per_s is not None:
            # Hopper's NVLink switches sum, Ampere's do not
            custom = CUSTOM_BYTES.get((name, str(family)))
            fit = partial(fit_all_reduce, large=True, switch=gpu.has_fp8, custom_bytes=custom)
            yield Job(str(family), "all_reduce", "nvlink", reduce, "bf16", fit)
            continue
        for n, part in reduce.groupby("n_gpus"):
            yield Job(str(family), "all_reduce", f"n{n}", part, "bf16", fit_bus_all_reduce)


FOREIGN_VERSIONS = {"0.5.10"}
"""SGLang whose experts take as long on 2, 4 or 8 ranks as on one: a rank computes all pairs of the
tokens that visit it. Later ones leave those of other ranks out."""


def _moe(name: str) -> Iterator[Job]:
    for family, kind, rows in _parts(measurements(name, "moe"), "dtype"):
        compute = "bf16" if kind.endswith("_weight_only") else kind
        if kind == "int4_weight_only":
            fit = partial(fit_moe_gemm, whole=True)
            yield Job(family, "moe", kind, tiled(rows, MARLIN), compute, fit, tiles=MARLIN)
            continue
        tuned = TUNED.get((name, family, kind))
        if tuned is None:
            yield Job(family, "moe", kind, rows, compute, fit_moe_gemm)
            continue
        foreign = bool(set(rows["version"]) & FOREIGN_VERSIONS)
        fit = partial(fit_moe_gemm, tiles=True, foreign=foreign)
        yield Job(family, "moe", kind, marked(rows, tuned), compute, fit, tuned)


def _mla(name: str) -> Iterator[Job]:
    for family, kind, rows in _parts(measurements(name, "mla_decode"), "kv_dtype"):
        yield Job(family, "mla_decode", kind, rows, "bf16", fit_mla_decode)
    for family, kind, rows in _parts(measurements(name, "mla_prefill"), "kv_dtype"):
        fit = partial(fit_mla_prefill, chain=True)
        yield Job(family, "mla_prefill", kind, rows, "bf16", fit)
