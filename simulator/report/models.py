"""Models: their parameters, layers, weights and KV cache, and which GPUs hold them, as data."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from hwprofiles import GpuProfile, gpu_names, load_gpu
from simulator.errors import ModelError
from simulator.model import (
    FORMATS,
    Attention,
    AttentionGroup,
    Ffn,
    Format,
    GqaAttention,
    LayerKind,
    ModelSpec,
    MoeFfn,
    Parallel,
    ParameterCount,
    WeightFormats,
    load_model,
    model_names,
    usual_layouts,
)
from simulator.perf.memory import activation_bytes, kv_room_tokens
from simulator.perf.precision import KvFormat, Precision
from simulator.report.text import count

MEMORY_FRACTION = 0.9
"""Share of a GPU's memory an engine may use (vLLM's default)."""

MAX_TOKENS = 8192
"""New tokens of a step, for the room activations take (vLLM's default when serving)."""

_KV = {"bf16": 2.0, "fp8": 1.0}


def model_facts(
    name_or_path: str,
    *,
    weights: Format | None = None,
    experts: Format | None = None,
    kv: KvFormat | None = None,
) -> dict[str, Any]:
    """Shapes of a model and what follows from them [bytes, parameters].

    Args:
        name_or_path: a bundled model or a ``config.json``.
        weights: format of its matrices; None: what its file says, else bf16.
        experts: format of its routed experts; None: as ``weights``, or what the file says.
        kv: format of the KV cache; None: what the file says, else bf16.

    Raises:
        ModelError: unknown name or format, or a bad file.
    """
    spec = load_model(name_or_path)
    return _model(spec, Precision.of(spec, weights=weights, experts=experts, kv=kv))


def model_list() -> list[dict[str, Any]]:
    """The facts of every bundled model."""
    return [model_facts(name) for name in model_names()]


def model_report(
    name_or_path: str,
    *,
    weights: Format | None = None,
    experts: Format | None = None,
    kv: KvFormat | None = None,
    gpu: str | None = None,
    memory_fraction: float = MEMORY_FRACTION,
) -> dict[str, Any]:
    """The facts of a model, and what fits on which GPU under the usual layouts.

    Args:
        name_or_path: a bundled model or a ``config.json``.
        weights: as in ``model_facts``.
        experts: as in ``model_facts``.
        kv: as in ``model_facts``.
        gpu: only this GPU; None: every bundled one.
        memory_fraction: share of a GPU's memory that weights, activations and KV cache may use.

    Raises:
        ModelError: unknown name or format, or a bad file.
        ProfileError: unknown GPU.
    """
    _check_fraction(memory_fraction)
    spec = load_model(name_or_path)
    precision = Precision.of(spec, weights=weights, experts=experts, kv=kv)
    return _model(spec, precision) | {
        "memory_fraction": memory_fraction,
        "max_tokens": MAX_TOKENS,
        "fits": [
            row
            for name in (gpu_names() if gpu is None else [gpu])
            for row in _fits(spec, load_gpu(name), precision, memory_fraction)
        ],
    }


def _check_fraction(memory_fraction: float) -> None:
    if not 0.0 < memory_fraction <= 1.0:
        raise ModelError(
            f"memory_fraction: found {memory_fraction:g}; allowed: above 0, at most 1."
        )


def _model(spec: ModelSpec, precision: Precision) -> dict[str, Any]:
    own, active = spec.count, spec.active_count
    return {
        "name": spec.name,
        "architecture": spec.architecture,
        "layers": spec.layers,
        "hidden": spec.hidden,
        "kinds": [_kind(kind) for kind in spec.kinds],
        "attention_groups": [_group(group) for group in spec.attention_groups],
        "vocab": spec.vocab,
        "max_position": spec.max_position,
        "tied_embeddings": spec.tied_embeddings,
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "parameter_parts": {
            part.name: {"total": getattr(own, part.name), "active": getattr(active, part.name)}
            for part in fields(ParameterCount)
        },
        "quantization": None if spec.quantization is None else asdict(spec.quantization),
        "precision": {**asdict(precision.formats), "kv": precision.kv},
        "weight_bytes": {
            "configured": spec.weight_bytes_per_gpu(Parallel(), precision.formats),
            **{f: spec.weight_bytes_per_gpu(Parallel(), WeightFormats.uniform(f)) for f in FORMATS},
        },
        "kv_bytes_per_token": {name: spec.kv_bytes_per_token(size) for name, size in _KV.items()},
        "allowed_tp": spec.allowed_tp(),
        "allowed_ep": {str(n): spec.allowed_ep(n) for n in (1, 2, 4, 8, 16)} if spec.is_moe else {},
        "left_out": list(spec.left_out),
    }


def _kind(kind: LayerKind) -> dict[str, Any]:
    """Shape of a kind of layers."""
    return {
        "layers": kind.count,
        "attention": _attention(kind.attention),
        "ffn": _ffn(kind.ffn),
    }


def _group(group: AttentionGroup) -> dict[str, Any]:
    """Layers that keep and read the same tokens."""
    return {
        "layers": group.layers,
        "window": group.window,
        "local_chunk": group.local_chunk,
        "kv_bytes_per_token_per_layer": {name: group.kv_bytes(n) for name, n in _KV.items()},
    }


def _attention(attention: Attention) -> str:
    if isinstance(attention, GqaAttention):
        shape = f"{attention.heads} query, {attention.kv_heads} KV heads, {attention.head_dim} wide"
        if attention.window is not None:
            return f"{shape}, window {count(attention.window)}"
        if attention.local_chunk is not None:
            return f"{shape}, in chunks of {count(attention.local_chunk)}"
        return shape
    latent = attention.kv_lora_rank + attention.qk_rope_head_dim
    return f"{attention.heads} heads over a latent {latent} wide"


def _ffn(ffn: Ffn) -> str:
    if not isinstance(ffn, MoeFfn):
        return f"dense, {count(ffn.width)} wide"
    shared = f", shared {count(ffn.shared_width)}" if ffn.shared_width else ""
    return (
        f"{ffn.experts} experts {count(ffn.expert_width)} wide, {ffn.experts_per_token} a token"
        f"{shared}"
    )


def _fits(
    spec: ModelSpec, gpu: GpuProfile, precision: Precision, memory_fraction: float
) -> list[dict[str, Any]]:
    """What one GPU type holds under every usual layout."""
    rows = []
    for layout in usual_layouts(spec, int(gpu.gpus_per_node.value)):
        rank = kv_room_tokens(spec, gpu, layout, precision, memory_fraction, MAX_TOKENS)
        rows.append(
            {
                "gpu": gpu.name,
                "gpus": layout.gpus,
                **asdict(layout),
                "memory_bytes_per_gpu": gpu.memory_bytes.value,
                "weight_bytes_per_gpu": spec.weight_bytes_per_gpu(layout, precision.formats),
                "other_bytes_per_gpu": activation_bytes(spec, layout, MAX_TOKENS),
                "kv_tokens": int(rank) * layout.attention_dp,
                "longest_tokens": _longest(spec, int(rank)),
                "fits": int(rank) > 0,
            }
        )
    return rows


def _longest(spec: ModelSpec, room: int) -> int:
    """Longest sequence an attention rank holds, within the longest context of the model.

    Layers with a window or a chunk keep no more than that of it.

    Args:
        spec: the model.
        room: tokens it has room for while no window forgets any.
    """
    own = {g: g.layers * g.attention.kv_numbers() for g in spec.attention_groups}
    left, growing = room * sum(own.values()), sum(own.values())
    # the narrowest window fills first, and what is left is the other layers'
    for group in sorted(own, key=lambda g: g.holds(spec.max_position)):
        kept = group.holds(spec.max_position)
        if left < kept * growing:
            return left // growing
        left -= kept * own[group]
        growing -= own[group]
    return spec.max_position
