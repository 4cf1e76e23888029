"""A table of measured serving runs, row by row as plain objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from simulator.errors import InputError, suggest

Mode = Literal["agg", "disagg"]

REQUIRED = (
    "backend", "model_path", "system", "mode", "isl", "osl", "concurrency",
    "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip
"""Columns a table must have; everything else has a default."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Instances of one kind.

    Attributes:
        instances: how many.
        tp: tensor parallelism of attention.
        pp: pipeline stages.
        attention_dp: attention ranks in lock-step.
        ep: groups the experts are spread over.
    """

    instances: int = 1
    tp: int = 1
    pp: int = 1
    attention_dp: int = 1
    ep: int = 1

    @property
    def gpus(self) -> int:
        """GPUs of all instances."""
        return self.instances * self.tp * self.pp * self.attention_dp

    def __str__(self) -> str:
        parts = {"TP": self.tp, "PP": self.pp, "DP": self.attention_dp, "EP": self.ep}
        shape = " ".join(f"{k}{n}" for k, n in parts.items() if n > 1 or k == "TP")
        return shape if self.instances == 1 else f"{self.instances}×{shape}"


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One measured run.

    Attributes:
        row: its position in the file.
        model: the Hugging Face path of the model.
        gpu: GPU type.
        engine: ``vllm``, ``sglang`` or ``trtllm``.
        version: of the engine; empty when not recorded.
        mode: ``agg`` (colocated) or ``disagg``.
        precision: label of the weights: ``fp8``, ``fp4``, ... ; empty: 16 bits.
        gemm: the source's name of the format of the dense weights; empty when not recorded.
        isl: prompt length asked of the client [tokens].
        osl: output length asked of the client [tokens].
        concurrency: requests in flight.
        workers: instances of an ``agg`` run; of a ``disagg`` run, those that decode.
        prefill: instances that prefill; None for ``agg``.
        dump: file or dump the measurement came from.
        ttft_ms: measured mean time to first token [ms].
        tpot_ms: measured mean time per output token [ms].
        usable: one row a measurement, complete, nothing suspect.
        relevant: of the models and GPUs the bars are about.
        queue_dominated: TTFT is mostly queueing.
        notes: what the reader corrected.
    """

    row: int
    model: str
    gpu: str
    engine: str
    version: str
    mode: Mode
    precision: str
    gemm: str
    isl: int
    osl: int
    concurrency: int
    workers: Workers
    prefill: Workers | None
    dump: str
    ttft_ms: float
    tpot_ms: float
    usable: bool
    relevant: bool
    queue_dominated: bool
    notes: tuple[str, ...] = ()

    @property
    def documented(self) -> bool:
        """Whether the benchmark client is known: the public InferenceMAX dumps."""
        return self.dump.startswith(("2026-", "db-dump"))

    @property
    def gpus(self) -> int:
        """GPUs of the whole deployment."""
        return self.workers.gpus + (0 if self.prefill is None else self.prefill.gpus)

    @property
    def latency_ms(self) -> float:
        """Mean request latency of a request of ``osl`` tokens [ms]."""
        return self.ttft_ms + self.tpot_ms * (self.osl - 1)

    @property
    def layout(self) -> str:
        """Parallelism and instances in words."""
        if self.prefill is None:
            return str(self.workers)
        return f"{self.prefill} + {self.workers}"


def read_runs(path: str | Path) -> list[MeasuredRun]:
    """The runs of a table, in order.

    Args:
        path: a Parquet or CSV file with the columns of ``REQUIRED``.

    Raises:
        InputError: no such file, unreadable, or a column is missing or of the wrong kind.
    """
    file = Path(path)
    table = _table(file)
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise InputError(
            f"{file}: column '{missing[0]}' is missing; {suggest(missing[0], map(str, table))}"
        )
    return [_run(file, i, row) for i, row in enumerate(table.to_dict("records"))]


def _table(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise InputError(f"{file}: no such file of measured runs.")
    try:
        return pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read as a table ({text}).") from error


def _run(file: Path, position: int, row: Mapping[Any, Any]) -> MeasuredRun:
    cell = _Row(file, position, row)
    mode = cell.text("mode")
    if mode not in ("agg", "disagg"):
        raise cell.bad("mode", "agg, disagg")
    split = mode == "disagg"
    workers, notes = _workers(cell, "decode_" if split else "")
    prefill, more = _workers(cell, "prefill_") if split else (None, ())
    found = MeasuredRun(
        row=position,
        model=cell.text("model_path"),
        gpu=cell.text("system"),
        engine=cell.text("backend").lower(),
        version=cell.text("backend_version"),
        mode="disagg" if split else "agg",
        precision=cell.text("precision").lower(),
        gemm=cell.text("gemm_quant_mode").lower(),
        isl=cell.count("isl"),
        osl=cell.count("osl"),
        concurrency=cell.count("concurrency"),
        workers=workers,
        prefill=prefill,
        dump=cell.text("src_dump"),
        ttft_ms=cell.number("silicon_ttft_ms"),
        tpot_ms=cell.number("silicon_tpot_ms"),
        usable=cell.flag("usable", default=True),
        relevant=cell.flag("relevant", default=True),
        queue_dominated=cell.flag("queue_dominated", default=False),
        notes=(*notes, *more),
    )
    return as_scripted(found)


def as_scripted(run: MeasuredRun) -> MeasuredRun:
    """A run with the layout its benchmark's script set, where the table has lost it.

    InferenceMAX runs DeepSeek-R1 on TensorRT-LLM with as many expert groups as GPUs always, and with
    attention data parallelism from 64 requests in flight on (32 with prompts of 8,192 tokens:
    ``benchmarks/dsr1_fp8_h200_trt_slurm.sh`` of 2025); disaggregated with prompts of 8,192 tokens its
    prefill instances have none (``recipes/trtllm/h200/8k1k/stp`` of ishandhanani/srt-slurm, 2026).
    """
    if not (run.documented and run.engine == "trtllm" and "DeepSeek" in run.model):
        return run
    if run.prefill is None:
        return _scripted_workers(run)
    first = run.prefill
    if run.gpu == "h200_sxm" and run.isl > 1024 and first.attention_dp > 1:
        gpus = first.tp * first.attention_dp
        note = (
            f"prefill attention DP{first.attention_dp} read as TP{gpus}: so the benchmark's recipe"
        )
        plain = replace(first, tp=gpus, attention_dp=1)
        return replace(run, prefill=plain, notes=(*run.notes, note))
    return run


def _scripted_workers(run: MeasuredRun) -> MeasuredRun:
    workers, gpus = run.workers, run.workers.tp * run.workers.attention_dp
    if workers.ep > 1 or gpus == 1:
        return run
    many = run.concurrency > (32 if run.isl > 1024 else 64)
    real = Workers(1, 1 if many else gpus, workers.pp, gpus if many else 1, gpus)
    note = f"{workers} read as {real}: so the benchmark's script"
    return replace(run, workers=real, notes=(*run.notes, note))


def _workers(cell: _Row, prefix: str) -> tuple[Workers, tuple[str, ...]]:
    """Instances of one kind; some tables multiply degrees by one another, which is undone."""
    suffix = "" if prefix else "_fixed"

    def degree(name: str) -> int:
        fixed = cell.degree(f"{prefix}{name}{suffix}")
        return fixed or cell.degree(f"{prefix}{name}") or 1

    instances = (cell.degree(f"{prefix}num_workers") or 1) if prefix else 1
    found = Workers(
        instances=instances,
        tp=degree("tp_size"),
        pp=cell.degree(f"{prefix}pp_size") or 1,
        attention_dp=degree("attention_dp_size"),
        ep=degree("moe_ep_size"),
    )
    if not prefix and found.ep > 1 and found.tp == _NODE * found.ep:
        # a row of 64 "GPUs" with EP8 has the times of 8: TP was multiplied by EP
        real = Workers(1, found.tp // found.ep, found.pp, found.attention_dp, found.ep)
        return real, (f"TP{found.tp} read as TP{real.tp}: it was multiplied by EP{found.ep}",)
    return found, ()


_NODE = 8
"""GPUs of a node of the machines in these tables."""


class _Row:
    """Checked access to the cells of one row."""

    def __init__(self, file: Path, position: int, row: Mapping[Any, Any]) -> None:
        self.file = file
        self.position = position
        self.row = row

    def bad(self, name: str, allowed: str) -> InputError:
        found = self.row.get(name)
        return InputError(
            f"{self.file}: row {self.position}, {name}: found {found!r}; allowed: {allowed}."
        )

    def text(self, name: str) -> str:
        """A text; empty where the cell is."""
        value = self.row.get(name)
        if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
            return ""
        return str(value).strip()

    def number(self, name: str) -> float:
        """A finite number, or NaN where the cell is empty."""
        value = self.row.get(name)
        if value is None or value is pd.NA:
            return math.nan
        try:
            return float(value)
        except (TypeError, ValueError):
            raise self.bad(name, "a number") from None

    def degree(self, name: str) -> int:
        """A whole number, 0 where the cell is empty."""
        value = self.number(name)
        return 0 if math.isnan(value) else int(value)

    def count(self, name: str) -> int:
        """A whole number; 0 where the cell is empty, which no run can have."""
        return self.degree(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.row.get(name)
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return default
        return bool(value)
