"""One function an operator: from its rows to its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from calibration.estimate import Array, Estimate, estimate
from calibration.fitted import Fitted
from calibration.sheet import provenance, records, row_work
from hwprofiles import schema
from hwprofiles.param import Field, Param, Source
from simulator.perf import forms

Sheet = Mapping[str, Param]

LEAST_ROWS = 6
"""An operator with fewer rows is not fitted."""
_TYPES = {"bfloat16": "bf16", "fp8": "fp8"}
"""Types a profile has parameters for, by the names of the tables."""


def fit_gemms(data: pd.DataFrame, sheet: Sheet) -> list[Fitted]:
    """``gemm`` for each type measured that profiles know; held out by weight."""
    found = []
    for dtype, name in _TYPES.items():
        rows = _of(data, "gemm", dtype)
        if len(rows) < LEAST_ROWS or f"{name}_flops" not in sheet:
            continue
        m, n, k = (_floats(rows, key) for key in ("m", "n", "k"))
        width = 1.0 if dtype == "fp8" else 2.0
        fixed = {
            "peak_flops": sheet[f"{name}_flops"].value,
            "bandwidth": sheet["memory_bytes_per_s"].value,
            "weight_bytes": width,
            "input_bytes": width,
        }

        def model(
            values: Mapping[str, float],
            at: Any,
            fixed: Mapping[str, float] = fixed,
            sizes: tuple[Array, ...] = (m, n, k),
        ) -> Array:
            given = {**fixed, **values}
            return forms.gemm_s(sizes[0][at], sizes[1][at], sizes[2][at], **given)

        start = {"t0_s": 4e-6, "compute_eff": 0.7, "memory_eff": 0.7, "p": 2.0}
        bounds = _bounds(schema.GEMM, start) | {"p": (1.0, 4.0)}
        groups = list(zip(rows["n"], rows["k"], strict=True))
        result = estimate(model, _seconds(rows), _started(start, rows), bounds, groups)
        how = "static scales, inputs already in fp8" if dtype == "fp8" else ""
        found.append(_fitted(("gemm", name), rows, result, schema.GEMM, "weight", data, how))
    return found


def fit_decode(data: pd.DataFrame, sheet: Sheet) -> list[Fitted]:
    """``decode_attention`` with a bf16 cache, of the fastest kernel; held out by shape."""
    rows = _fastest(_of(data, "attn_decode", "bfloat16"))
    if len(rows) < LEAST_ROWS:
        return []
    batch, length = _floats(rows, "batch"), _floats(rows, "kv_len")
    heads, kv_heads, dim = (_floats(rows, key) for key in ("n_heads", "n_kv_heads", "head_dim"))
    bandwidth, sms = sheet["memory_bytes_per_s"].value, sheet["sms"].value

    def model(values: Mapping[str, float], at: Any) -> Array:
        return forms.decode_attention_s(
            batch[at],
            batch[at] * length[at],
            heads=heads[at],
            kv_heads=kv_heads[at],
            head_dim=dim[at],
            bandwidth=bandwidth,
            sms=sms,
            **values,
        )

    start = {"t0_s": 1e-5, "tile_s": 2e-6, "memory_eff": 0.7}
    bounds = _bounds(schema.DECODE_ATTENTION, start)
    result = estimate(model, _seconds(rows), _started(start, rows), bounds, _shapes(rows))
    path = ("decode_attention", "bf16")
    return [_fitted(path, rows, result, schema.DECODE_ATTENTION, "shape", data)]


def fit_prefill(data: pd.DataFrame, sheet: Sheet, exponent: Param) -> list[Fitted]:
    """``prefill_attention`` in bf16, of the fastest kernel; held out by shape."""
    rows = _fastest(_of(data, "attn_prefill", "bfloat16"))
    if len(rows) < LEAST_ROWS:
        return []
    batch, length = _floats(rows, "batch"), _floats(rows, "isl")
    heads, kv_heads, dim = (_floats(rows, key) for key in ("n_heads", "n_kv_heads", "head_dim"))
    fixed = {
        "peak_flops": sheet["bf16_flops"].value,
        "bandwidth": sheet["memory_bytes_per_s"].value,
        "head_dim_exponent": exponent.value,
    }

    def model(values: Mapping[str, float], at: Any) -> Array:
        tokens = batch[at] * length[at]
        return forms.prefill_attention_s(
            tokens,
            0.5 * tokens * length[at],
            tokens,
            heads=heads[at],
            kv_heads=kv_heads[at],
            head_dim=dim[at],
            **fixed,
            **values,
        )

    start = {"t0_s": 1e-5, "compute_eff": 0.5, "memory_eff": 0.5}
    bounds = _bounds(schema.PREFILL_ATTENTION, start)
    result = estimate(model, _seconds(rows), _started(start, rows), bounds, _shapes(rows))
    path = ("prefill_attention", "bf16")
    found = _fitted(path, rows, result, schema.PREFILL_ATTENTION, "shape", data)
    error = {key: found.params.pop(key) for key in ("error",) if key in found.params}
    found.params.update({"head_dim_exponent": exponent, **error})
    return [found]


def fit_elementwise(data: pd.DataFrame, sheet: Sheet, kernels: Param) -> list[Fitted]:
    """``elementwise`` over all its kernels together; held out by size."""
    rows = _of(data, "elementwise", "bfloat16")
    if len(rows) < LEAST_ROWS:
        return []
    size, bandwidth = _floats(rows, "bytes"), sheet["memory_bytes_per_s"].value

    def model(values: Mapping[str, float], at: Any) -> Array:
        return forms.elementwise_s(size[at], bandwidth=bandwidth, **values)

    start = {"t0_s": 3e-6, "memory_eff": 0.7}
    bounds = _bounds(schema.ELEMENTWISE, start)
    result = estimate(model, _seconds(rows), _started(start, rows), bounds, list(rows["bytes"]))
    found = _fitted(("elementwise",), rows, result, schema.ELEMENTWISE, "size", data)
    found.params.pop("error", None)  # the section has no such field
    found.params["kernels_per_layer"] = kernels
    return [found]


def fit_all_reduce(data: pd.DataFrame, sheet: Sheet) -> list[Fitted]:
    """``all_reduce``: one form for all numbers of GPUs over NVLink, one a number over a bus."""
    rows = _of(data, "comm", "bfloat16")
    rows = rows[rows["op"].eq("all_reduce")]
    if len(rows) < LEAST_ROWS:
        return []
    if "nvlink_bytes_per_s" in sheet:
        return [_nvlink(rows, sheet["nvlink_bytes_per_s"].value, data)]
    worlds = sorted(set(rows["n_gpus"]))
    return [_bus(rows[rows["n_gpus"].eq(world)], int(world), data) for world in worlds]


def _nvlink(rows: pd.DataFrame, link: float, data: pd.DataFrame) -> Fitted:
    size, gpus = _floats(rows, "bytes"), _floats(rows, "n_gpus")

    def model(values: Mapping[str, float], at: Any) -> Array:
        found = np.zeros(len(at))
        for world in np.unique(gpus[at]):
            here = gpus[at] == world
            found[here] = forms.all_reduce_s(
                size[at][here], int(world), link_bytes_per_s=link, **values
            )
        return found

    start = {
        "t0_s": 5e-6,
        "rank_s": 1e-7,
        "one_shot_eff": 0.5,
        "two_shot_s": 4e-6,
        "two_shot_eff": 0.6,
    }
    bounds = _bounds(schema.NVLINK_ALL_REDUCE, start)
    groups = list(zip(rows["n_gpus"], rows["bytes"], strict=True))
    result = estimate(model, _seconds(rows), _started(start, rows), bounds, groups)
    path = ("all_reduce", "nvlink")
    return _fitted(path, rows, result, schema.NVLINK_ALL_REDUCE, "size", data)


def _bus(rows: pd.DataFrame, world: int, data: pd.DataFrame) -> Fitted:
    size = _floats(rows, "bytes")

    def model(values: Mapping[str, float], at: Any) -> Array:
        return forms.all_reduce_ring_s(size[at], world, **values)

    start = {"alpha_s": 1e-5, "bus_bytes_per_s": 1e10}
    bounds = _bounds(schema.BUS_ALL_REDUCE, start)
    measured = _seconds(rows)
    started = {
        "alpha_s": float(measured.min()),
        "bus_bytes_per_s": float(2.0 * (world - 1) / world * size.max() / measured.max()),
    }
    result = estimate(model, measured, started, bounds, list(rows["bytes"]))
    path = ("all_reduce", "bus", f"n{world}")
    return _fitted(path, rows, result, schema.BUS_ALL_REDUCE, "size", data)


def _fitted(
    path: tuple[str, ...],
    rows: pd.DataFrame,
    result: Estimate,
    fields: Sequence[Field],
    by: str,
    data: pd.DataFrame,
    how: str = "",
) -> Fitted:
    """The parameters with their source, and the points of the figure."""
    kernel = ", ".join(sorted(set(rows["kernel"])))
    error = ""
    if result.held_out is not None:
        error = f"; mean error {100 * result.held_out:.1f} % held out by {by}, {result.folds}-fold"
    text = f"{len(rows)} rows of {kernel}{', ' + how if how else ''} on {provenance(data)}{error}"
    source = Source("fitted", text)
    units = {row.name: row.unit for row in fields}
    params = {
        name: Param(value, units[name], source, result.stderr[name])
        for name, value in result.params.items()
    }
    if result.held_out is not None:
        params["error"] = Param(min(result.held_out, 5.0), "1", source)
    points = pd.DataFrame(
        {
            "measured_s": _seconds(rows),
            "predicted_s": result.predicted_s,
            "intensity": [row_work(row).intensity for row in records(rows)],
        }
    )
    return Fitted(path, params, kernel, len(rows), result.held_out, points, how)


def _of(data: pd.DataFrame, operator: str, dtype: str) -> pd.DataFrame:
    column = "attn_dtype" if operator.startswith("attn_") else "dtype"
    found = data["operator"].eq(operator) & data[column].eq(dtype).fillna(False)
    return data[found.astype(bool)].reset_index(drop=True)


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kernel that is fastest over the shapes all kernels have: an engine's choice."""
    if rows["kernel"].nunique() < 2:
        return rows
    wide = rows.assign(shape=_shapes(rows)).pivot_table(
        index="shape", columns="kernel", values="latency_us"
    )
    common = wide.dropna()
    most = wide.count().idxmax()
    best = most if common.empty else np.log(common).mean().idxmin()
    return rows[rows["kernel"].eq(str(best))].reset_index(drop=True)


def _shapes(rows: pd.DataFrame) -> list[str]:
    """A row's shape as text: the part of its case after the type."""
    return [str(case).split("/")[-1] for case in rows["case"]]


def _seconds(rows: pd.DataFrame) -> Array:
    return 1e-6 * rows["latency_us"].to_numpy(dtype=np.float64)


def _floats(rows: pd.DataFrame, name: str) -> Array:
    return rows[name].to_numpy(dtype=np.float64)


def _started(start: Mapping[str, float], rows: pd.DataFrame) -> dict[str, float]:
    """The start with a fixed cost that no row contradicts."""
    shortest = float(_seconds(rows).min())
    return {**start, "t0_s": min(start["t0_s"], 0.5 * shortest)}


def _bounds(fields: Sequence[Field], names: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    return {row.name: (row.low, row.high) for row in fields if row.name in names}
