"""One function an operator: from its rows to its parameters, by the fits of ``simulator.perf``.

``xpyd calibrate`` has few rows of one machine where ``simulator.perf.fits`` expects tables of
thousands: all rows are fitted, since rotating operands keep them out of the cache, and the error on
unseen shapes is measured by leaving out a fifth of the shapes five times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from calibration.fitted import Fitted
from calibration.rows import table
from calibration.sheet import provenance, records, row_work
from hwprofiles import schema
from hwprofiles.param import Field, Param, Source
from simulator.perf.fits.attention import DECODE, PREFILL
from simulator.perf.fits.collective import ALL_REDUCE, ALL_TO_ALL, BUS
from simulator.perf.fits.elementwise import ELEMENTWISE
from simulator.perf.fits.gemm import GEMM
from simulator.perf.fits.kernel import Array, Kernel, Sheet, fit_kernel, measured_s
from simulator.perf.fits.moe import MOE
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split, group_keys

LEAST_ROWS = 6
"""An operator with fewer rows is not fitted."""
FOLDS = 5
MOST_STDERR = 1.0
"""A standard error above this share of the value says that the rows do not determine it."""
_TYPES = {"bfloat16": "bf16", "fp8": "fp8"}
"""Types a profile has parameters for, by the names of the tables."""

_ATTENTION = ("n_heads", "n_kv_heads", "head_dim")


@dataclass(frozen=True, slots=True)
class Task:
    """An operator to fit.

    Attributes:
        path: where its parameters go below the kernel family.
        kernel: form, parameters and columns.
        fields: the profile's fields.
        unseen: what is left out of a fit, in words: a weight, a shape, a size.
        fixed: parameters that are not fitted.
        how: what the reader should know of the rows.
    """

    path: tuple[str, ...]
    kernel: Kernel
    fields: Sequence[Field]
    unseen: str
    fixed: Mapping[str, Param]
    how: str = ""


def fit_operators(
    data: pd.DataFrame, gpu: Mapping[str, Param], taken: Mapping[str, Param]
) -> list[Fitted]:
    """Every operator that has enough rows.

    Args:
        data: rows of one machine.
        gpu: its data sheet, by field of ``schema.GPU``.
        taken: parameters no fit gives: ``head_dim_exponent``, ``kernels_per_layer``.
    """
    found = [
        *_by_type("gemm", GEMM, schema.GEMM, data, gpu),
        *_attention(data, gpu, taken["head_dim_exponent"]),
        *_elementwise(data, gpu, taken["kernels_per_layer"]),
        *_collectives(data, gpu),
        *_by_type("moe", _moe(), schema.MOE, data, gpu, {"all_passes": _ALL_PASSES}),
    ]
    return [fitted for fitted in found if fitted is not None]


_ALL_PASSES = Param(
    0.0, "1", Source("assumed", "torch gathers and sums the rank's own tokens and no others")
)
_ONE_WORLD = Param(
    0.0, "s", Source("assumed", "one number of GPUs measured: t0_s holds the cost of its ranks")
)


def _by_type(
    operator: str,
    kernel: Kernel,
    fields: Sequence[Field],
    data: pd.DataFrame,
    gpu: Mapping[str, Param],
    fixed: Mapping[str, Param] | None = None,
) -> list[Fitted | None]:
    """An operator that is given per compute type."""
    found = []
    for dtype, name in _TYPES.items():
        if f"{name}_flops" not in gpu:
            continue
        how = "static scales, inputs already in fp8" if dtype == "fp8" else ""
        unseen = "weight" if operator == "gemm" else "shape"
        task = Task((operator, name), kernel, fields, unseen, fixed or {}, how)
        found.append(_fit(task, _rows(data, operator, dtype), data, _sheet(gpu, name)))
    return found


def _moe() -> Kernel:
    """Held out by layer and tokens: one machine measures few layers."""
    return replace(MOE, keys=("tokens", *MOE.keys))


def _attention(
    data: pd.DataFrame, gpu: Mapping[str, Param], exponent: Param
) -> list[Fitted | None]:
    sheet = _sheet(gpu, "bf16")
    decode = replace(DECODE, keys=("batch", "kv_len", *_ATTENTION))
    prefill = replace(PREFILL, keys=("batch", "isl", *_ATTENTION))
    tasks = (
        (
            "attn_decode",
            Task(("decode_attention", "bf16"), decode, schema.DECODE_ATTENTION, "shape", {}),
        ),
        (
            "attn_prefill",
            Task(
                ("prefill_attention", "bf16"),
                prefill,
                schema.PREFILL_ATTENTION,
                "shape",
                {"head_dim_exponent": exponent},
            ),
        ),
    )
    return [
        _fit(task, fastest(_rows(data, operator, "bfloat16")), data, sheet)
        for operator, task in tasks
    ]


def _elementwise(
    data: pd.DataFrame, gpu: Mapping[str, Param], kernels: Param
) -> list[Fitted | None]:
    """All its kernels together; how many a layer runs is no measurement of this kind."""
    task = Task(("elementwise",), ELEMENTWISE, schema.ELEMENTWISE, "size", {})
    found = _fit(task, _rows(data, "elementwise", "bfloat16"), data, _sheet(gpu, "bf16"))
    if found is not None:
        found.params["kernels_per_layer"] = kernels
    return [found]


def _collectives(data: pd.DataFrame, gpu: Mapping[str, Param]) -> list[Fitted | None]:
    """All-reduce: one form for all numbers of GPUs over NVLink, one a number over a bus."""
    rows = _rows(data, "comm", "bfloat16")
    reduces, exchanges = rows[rows["op"].eq("all_reduce")], rows[rows["op"].eq("alltoall")]
    sheet = _sheet(gpu, "bf16")
    alone = {"rank_s": _ONE_WORLD} if len(set(rows["n_gpus"])) == 1 else {}
    exchange = Task(("all_to_all",), ALL_TO_ALL, schema.ALL_TO_ALL, "size", alone)
    found = [_fit(exchange, exchanges, data, sheet)]
    if "nvlink_bytes_per_s" in gpu:
        path = ("all_reduce", "nvlink")
        task = Task(path, ALL_REDUCE, schema.NVLINK_ALL_REDUCE, "size", alone)
        return [_fit(task, reduces, data, sheet), *found]
    for world in sorted({int(n) for n in reduces["n_gpus"]}, reverse=True):
        here = reduces[reduces["n_gpus"].eq(world)]
        task = Task(("all_reduce", "bus", f"n{world}"), BUS, schema.BUS_ALL_REDUCE, "size", {})
        found.insert(0, _fit(task, here, data, sheet))
    return found


def _fit(task: Task, rows: pd.DataFrame, data: pd.DataFrame, sheet: Sheet) -> Fitted | None:
    """The parameters with their source, and the points of the figure; None with too few rows."""
    kernel = _suited(task.kernel, task.fields, rows, cpu=data.iloc[0]["kind"] == "cpu")
    free = [bound for bound in kernel.bounds if bound.name not in task.fixed]
    if len(rows) < max(LEAST_ROWS, len(free) + 2):
        return None
    fixed = {name: param.value for name, param in task.fixed.items()}
    result = _solved(kernel, Split(rows, rows.iloc[:0], kernel.keys), sheet, fixed)
    held_out, folds = _held_out(kernel, rows, sheet, fixed, len(free))
    names = ", ".join(sorted(set(rows["kernel"].astype(str))))
    how = f", {task.how}" if task.how else ""
    error = ""
    if held_out is not None:
        error = f"; mean error {100 * held_out:.1f} % held out by {task.unseen}, {folds}-fold"
    source = Source("fitted", f"{len(rows)} rows of {names}{how} on {provenance(data)}{error}")
    predicted = kernel.predict(rows, sheet, _all_values(result, fixed))
    points = pd.DataFrame(
        {
            "measured_s": measured_s(rows),
            "predicted_s": predicted,
            "intensity": [row_work(row).intensity for row in records(rows)],
        }
    )
    params = _params(task, result, source, held_out)
    return Fitted(
        path=task.path,
        params=params,
        kernel=names,
        rows=len(rows),
        held_out=held_out,
        points=points,
        note=task.how,
        ranges=result.ranges if task.path[0] not in _NO_RANGES else (),
        correlations=_correlations(task, result, params),
    )


def _solved(kernel: Kernel, parts: Split, sheet: Sheet, fixed: Mapping[str, float]) -> FitResult:
    """The fit; a parameter that hardly moves any row may get NaN for its error, which ``_params`` drops."""
    with np.errstate(invalid="ignore"):
        return fit_kernel(kernel, parts, sheet, fixed=fixed)


def _all_values(result: FitResult, fixed: Mapping[str, float]) -> dict[str, float]:
    return {**fixed, **{p.name: p.value for p in result.parameters}}


_NO_RANGES = ("elementwise",)


def _correlations(
    task: Task, result: FitResult, params: Mapping[str, Param]
) -> tuple[tuple[str, str, float], ...]:
    """Of the parameters the rows determine."""
    if task.path[0] in _NO_RANGES:
        return ()
    known = {name for name, param in params.items() if param.stderr}
    return tuple(pair for pair in result.correlations if known >= {pair[0], pair[1]})


def _params(
    task: Task, result: FitResult, source: Source, held_out: float | None
) -> dict[str, Param]:
    """By field, in the order of the schema."""
    found = dict(task.fixed)
    for p in result.parameters:
        known = p.stderr is not None and p.stderr <= MOST_STDERR * abs(p.value)
        found[p.name] = Param(p.value, p.unit, source, p.stderr if known else None)
    if held_out is not None:
        found["error"] = Param(min(held_out, 5.0), "1", source)
    return {row.name: found[row.name] for row in task.fields if row.name in found}


def _held_out(
    kernel: Kernel, rows: pd.DataFrame, sheet: Sheet, fixed: Mapping[str, float], free: int
) -> tuple[float | None, int]:
    """Mean relative error on rows whose group was left out, and the number of parts; or None."""
    names = group_keys(rows, kernel.keys)
    fold = _dealt(names)
    folds = int(fold.max()) + 1
    errors: list[Array] = []
    for part in range(folds):
        kept, left = rows[fold != part], rows[fold == part]
        if folds < 2 or len(kept) <= free:
            return None, 0
        result = _solved(kernel, Split(kept, left, kernel.keys), sheet, fixed)
        predicted = kernel.predict(left, sheet, _all_values(result, fixed))
        errors.append(np.abs(predicted / measured_s(left) - 1.0))
    return float(np.concatenate(errors).mean()), folds


def _dealt(names: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """The part of each row: groups dealt out in turn, always the same way."""
    order = {name: position for position, name in enumerate(sorted(set(names)))}
    shuffled = np.random.default_rng(3).permutation(len(order))
    parts = min(FOLDS, len(order))
    return np.array([int(shuffled[order[name]]) % parts for name in names], dtype=np.intp)


def _suited(kernel: Kernel, fields: Sequence[Field], rows: pd.DataFrame, *, cpu: bool) -> Kernel:
    """The kernel for rows of this harness: all are usable, and starts fit their times.

    A processor is far from a GPU's fixed costs and efficiencies; there only the schema bounds.
    """
    schema_of = {row.name: row for row in fields}
    shortest = float(measured_s(rows).min()) if len(rows) else 1.0
    bounds = []
    for bound in kernel.bounds:
        wide = schema_of[bound.name]
        low, high = (wide.low, wide.high) if cpu else (bound.low, bound.high)
        start = min(bound.start, 0.5 * shortest) if bound.name == "t0_s" else bound.start
        bounds.append(Bound(bound.name, float(np.clip(start, low, high)), low, high, bound.unit))
    return replace(kernel, bounds=tuple(bounds), usable=_every)


def _every(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    del sheet
    return np.ones(len(rows), dtype=np.bool_)


def _sheet(gpu: Mapping[str, Param], compute: str) -> Sheet:
    link = gpu.get("nvlink_bytes_per_s", gpu["pcie_bytes_per_s"])
    return Sheet(
        peak_flops=gpu[f"{compute}_flops"].value,
        bandwidth=gpu["memory_bytes_per_s"].value,
        l2_bytes=gpu["l2_bytes"].value,
        sms=gpu["sms"].value,
        link_bytes_per_s=link.value,
    )


def _rows(data: pd.DataFrame, operator: str, dtype: str) -> pd.DataFrame:
    """The rows of an operator and a type, in the columns of its table."""
    found = table(data, operator)
    column = "attn_dtype" if operator.startswith("attn_") else "dtype"
    chosen = found[found[column].astype(str).eq(dtype)].reset_index(drop=True)
    chosen["operator"] = operator  # what tells ``row_work`` what a row is
    return chosen.assign(ep=1) if operator == "moe" else chosen


def fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the kernel that is fastest over the shapes all kernels have: an engine's choice."""
    if rows["kernel"].nunique() < 2:
        return rows
    sizes = [name for name in (*_ATTENTION, "batch", "isl", "kv_len") if name in rows.columns]
    wide = rows.pivot_table(index=sizes, columns="kernel", values="latency_us", observed=True)
    common = wide.dropna()
    best = wide.count().idxmax() if common.empty else np.log(common).mean().idxmin()
    return rows[rows["kernel"].astype(str).eq(str(best))].reset_index(drop=True)
