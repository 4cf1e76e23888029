"""What a GPU profile holds, and where the time of a step on it goes.

``hardware_report`` computes a plain, JSON-able dictionary; ``hardware_view`` renders one with rich.
Without a model it is the profile: every parameter with its unit, value and source. With a model it
adds memory (weights, KV capacity, what fits) and a decode step and a prefill operator by operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprofiles import GpuProfile, load_gpu
from simulator.errors import InputError
from simulator.model import ModelSpec, load_model
from simulator.perf.evaluated import (
    Decodes,
    Prefills,
    decode_evaluations,
    prefill_evaluations,
)
from simulator.perf.ranges import Finding, findings, sentences
from simulator.perf.shape import pairs_of
from simulator.perf.step import OperatorTime, Parallel, Precision, StepModel
from simulator.report.hardware_sheet import parameter_rows, range_rows, sheet_view
from simulator.report.text import byte_size, count, percent, seconds

SCHEMA_VERSION = 1
MESSAGES = {
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "dispatch",
    "combine",
    "pipeline_hop",
}
"""Operators whose bytes are messages, not memory traffic."""


def hardware_report(
    gpu: str | GpuProfile,
    model: str | ModelSpec | None = None,
    tp: int = 1,
    *,
    pp: int = 1,
    ep: int = 1,
    attention_dp: int = 1,
    batch: int = 32,
    context: int = 2048,
    prompt: int = 2048,
    precision: Precision | None = None,
    memory_fraction: float = 0.9,
    max_tokens: int = 8192,
) -> dict[str, Any]:
    """A GPU profile and, with a model, its memory and where its steps' time goes.

    Args:
        gpu: name or path of a GPU profile, or one.
        model: name or path of a model, or one; None: the profile alone.
        tp: tensor-parallel degree.
        pp: pipeline stages.
        ep: groups the routed experts are spread over.
        attention_dp: attention ranks in lock-step.
        batch: sequences of the decode step, over all attention ranks.
        context: KV tokens each of them reads [tokens].
        prompt: length of the one prompt prefilled, none of it cached [tokens].
        precision: number formats; None: what the model's file says, else bf16.
        memory_fraction: share of the GPU's memory the engine may use, in (0, 1].
        max_tokens: most new tokens of a step, which sizes the activations.

    Returns:
        ``schema, gpu, description, calibrated, borrowed_from, caution, parameters, ranges`` and
        with a model ``model, tp, parallel, precision, notes, not_measured, memory, decode,
        prefill``; seconds, bytes, FLOP, fractions. A missing value is None.

    Raises:
        InputError: an unknown name, an illegal ``tp``, or a size that is not positive.
    """
    profile = load_gpu(gpu) if isinstance(gpu, str) else gpu
    report: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "gpu": profile.name,
        "description": profile.description,
        "calibrated": profile.calibrated,
        "borrowed_from": profile.borrowed_from,
        "caution": profile.caution,
        "parameters": parameter_rows(profile.parameters()),
        "ranges": range_rows(profile),
    }
    if model is None:
        return report
    sizes = {"batch": batch, "context": context, "prompt": prompt, "max_tokens": max_tokens}
    for name, value in sizes.items():
        if value < 1:
            raise InputError(f"{name}: found {value}; allowed: a whole number from 1.")
    if not 0.0 < memory_fraction <= 1.0:
        raise InputError(f"memory_fraction: found {memory_fraction}; allowed: over 0, up to 1.")
    spec = load_model(model) if isinstance(model, str) else model
    parallel = Parallel(tp, pp, ep, attention_dp)
    step = StepModel(spec, profile, parallel, precision or Precision.of(spec))
    memory = _memory(step, memory_fraction, max_tokens, context)
    rests = _not_measured(step, batch, context, prompt)
    return report | {
        "model": spec.name,
        "tp": tp,
        "parallel": asdict(parallel),
        "precision": {
            "weights": step.precision.weights,
            "experts": step.precision.formats.experts if spec.is_moe else None,
            "compute": step.compute,
            "kv": step.precision.kv,
        },
        "notes": [
            *step.notes,
            *sentences(rests),
            *([profile.caution] if profile.caution else []),
        ],
        "not_measured": [found.to_dict() for found in rests],
        "memory": memory,
        "decode": _decode(step, batch, context, memory["sequences_of_context"]),
        "prefill": _prefill(step, prompt),
    }


def _not_measured(step: StepModel, batch: int, context: int, prompt: int) -> list[Finding]:
    """What of the two steps is not of kernels measured at their sizes."""
    one = np.array([float(prompt)])
    rank = max(1.0, batch / step.parallel.attention_dp)
    tokens = Decodes(np.array([rank]), np.array([float(context)]), rank)
    return [
        *findings(prefill_evaluations(step, Prefills(one, one)), phase="prefill", step=step),
        *findings(decode_evaluations(step, tokens), phase="decode", step=step),
    ]


def _memory(step: StepModel, fraction: float, max_tokens: int, context: int) -> dict[str, Any]:
    tokens = step.kv_capacity_tokens(fraction, max_tokens)
    return {
        "gpu_bytes": step.gpu.memory_bytes.value,
        "memory_fraction": fraction,
        "usable_bytes": step.gpu.memory_bytes.value * fraction,
        "weight_bytes": step.weight_bytes_per_gpu,
        "activation_bytes": step.activation_bytes(max_tokens),
        "kv_bytes_per_token": step.kv_bytes_per_token_per_gpu,
        "kv_capacity_tokens": tokens,
        "context": context,
        "sequences_of_context": int(tokens // _held(step, context)) * step.parallel.attention_dp,
        "fits": tokens > 0,
    }


def _held(step: StepModel, context: int) -> float:
    """Tokens of KV a sequence takes: windowed layers hold no more than their window."""
    groups = step.model.attention_groups
    sizes = [group.layers * group.attention.kv_numbers(step.tp) for group in groups]
    held = sum(n * group.holds(context) for n, group in zip(sizes, groups, strict=True))
    return held / sum(sizes)


def _decode(step: StepModel, batch: int, context: int, sequences: int) -> dict[str, Any]:
    reads = step.reads(batch, context)
    time_s = float(step.decode_s(batch, reads))
    flops = float(step.flops(batch, reads, batch))
    return {
        "batch": batch,
        "context": context,
        "fits": batch <= sequences,
        "tokens_per_s": batch / time_s,
        **_step(step, time_s, flops, float(step.read_bytes(reads, batch))),
        "operators": _operators(step, step.decode_operators(batch, context)),
    }


def _prefill(step: StepModel, prompt: int) -> dict[str, Any]:
    operators = step.prefill_operators(1, prompt)
    time_s = sum(op.time_s for op in operators)
    pairs = tuple(pairs_of(group, 0, prompt) for group in step.model.attention_groups)
    flops = float(step.flops(prompt, pairs, 1))
    return {
        "prompt": prompt,
        "tokens_per_s": prompt / time_s,
        **_step(step, time_s, flops, float(step.read_bytes(prompt, prompt))),
        "operators": _operators(step, operators),
    }


def _step(step: StepModel, time_s: float, flops: float, read_bytes: float) -> dict[str, float]:
    return {
        "time_s": time_s,
        "mfu": flops / (time_s * step.peak_flops_per_s),
        "mbu": read_bytes / (time_s * step.peak_bytes_per_s),
    }


def _operators(step: StepModel, operators: Sequence[OperatorTime]) -> list[dict[str, Any]]:
    """Each operator with its share of the step and of the GPU's peaks; per GPU."""
    total = sum(op.time_s for op in operators)
    peak = step.peak_flops_per_s / step.parallel.gpus
    bandwidth = step.gpu.memory_bytes_per_s.value
    return [
        {
            "name": op.name,
            "calls": op.calls,
            "time_s": op.time_s,
            "share": op.time_s / total,
            "bound": op.bound,
            "flops": op.flops,
            "bytes": op.bytes,
            "mfu": op.flops / (op.time_s * peak) if op.flops else None,
            "mbu": op.bytes / (op.time_s * bandwidth) if _in_memory(op) else None,
        }
        for op in operators
    ]


def _in_memory(op: OperatorTime) -> bool:
    return op.bytes > 0.0 and op.name not in MESSAGES


# ---------------------------------------------------------------------------- rendering


def hardware_view(report: Mapping[str, Any]) -> RenderableType:
    """A rich renderable of a ``hardware_report``."""
    if "model" not in report:
        return sheet_view(report)
    parts: list[RenderableType] = [_title(report), _memory_view(report["memory"])]
    decode, prefill = report["decode"], report["prefill"]
    what = f"decode step: {decode['batch']} sequences with {count(decode['context'])} tokens each"
    parts.append(_step_view(what, decode))
    if not decode["fits"]:
        parts.append(Text("this batch exceeds the KV capacity above", style="bold red"))
    parts.append(_step_view(f"prefill: one prompt of {count(prefill['prompt'])} tokens", prefill))
    parts.extend(Text(f"note: {note}", style="yellow") for note in report["notes"])
    return Group(*parts)


def _title(report: Mapping[str, Any]) -> Text:
    formats = report["precision"]
    own = formats["experts"] not in (None, formats["weights"])
    experts = f", experts {formats['experts']}" if own else ""
    spread = Parallel(**report["parallel"]).label
    return Text(
        f"{report['model']} on {report['gpu']}, {spread}; weights {formats['weights']}{experts}, "
        f"compute {formats['compute']}, KV {formats['kv']}",
        style="bold",
    )


def _memory_view(memory: Mapping[str, Any]) -> RenderableType:
    table = Table(title="memory of each GPU", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    usable = f"usable ({percent(memory['memory_fraction'], 0)} of {byte_size(memory['gpu_bytes'])})"
    table.add_row(usable, byte_size(memory["usable_bytes"]))
    table.add_row("weights", byte_size(memory["weight_bytes"]))
    table.add_row("activations and runtime (estimate)", byte_size(memory["activation_bytes"]))
    table.add_row("KV cache of one token", byte_size(memory["kv_bytes_per_token"]))
    if memory["fits"]:
        table.add_row("KV capacity", f"{count(memory['kv_capacity_tokens'])} tokens")
        sequences = f"sequences of {count(memory['context'])} tokens that fit"
        table.add_row(sequences, count(memory["sequences_of_context"]))
    else:
        table.add_row("KV capacity", Text("none: does not fit, raise tp", style="bold red"))
    return table


def _step_view(what: str, step: Mapping[str, Any]) -> RenderableType:
    title = (
        f"{what}: {seconds(step['time_s'])}, {count(step['tokens_per_s'])} tokens/s, "
        f"MFU {percent(step['mfu'])}, MBU {percent(step['mbu'])}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("operator", "calls", "time", "share", "bound by", "MFU", "MBU"):
        table.add_column(column, justify="left" if column in {"operator", "bound by"} else "right")
    for op in sorted(step["operators"], key=lambda row: -float(row["time_s"])):
        table.add_row(
            op["name"],
            count(op["calls"]),
            seconds(op["time_s"]),
            percent(op["share"]),
            op["bound"],
            percent(op["mfu"]),
            percent(op["mbu"]),
        )
    return table
