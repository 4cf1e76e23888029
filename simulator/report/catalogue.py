"""What comes with the package: scenarios, models, GPUs, links and prices, as data and as tables."""

from __future__ import annotations

from typing import Any

import scenarios
from simulator.model import (
    Attention,
    AttentionGroup,
    Ffn,
    GqaAttention,
    LayerKind,
    ModelSpec,
    MoeFfn,
    Parallel,
    WeightFormats,
    load_model,
    model_names,
)
from simulator.report.block import Block
from simulator.report.text import byte_size, count, listing, number

SCHEMA = 1
_FP8, _BF16 = 1.0, 2.0  # bytes of a stored K or V number


# --- scenarios ----------------------------------------------------------------------------------


def question(text: str) -> str:
    """The first sentence of the comment a scenario file begins with; empty without one."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    ends = [i for i, c in enumerate(comment) if c in "?." and comment[i + 1 : i + 2] in ("", " ")]
    return comment[: ends[0] + 1] if ends else comment


def scenario_list() -> list[dict[str, str]]:
    """Name and question of every bundled scenario."""
    return [
        {
            "name": name,
            "question": question(scenarios.scenario_path(name).read_text(encoding="utf-8")),
        }
        for name in scenarios.scenario_names()
    ]


def scenarios_block(found: list[dict[str, str]]) -> Block:
    """Bundled scenarios as a table."""
    rows = tuple((s["name"], s["question"]) for s in found)
    return Block("Bundled scenarios", (), rows, "xpyd simulate NAME")


# --- models -------------------------------------------------------------------------------------


def model_facts(name_or_path: str) -> dict[str, Any]:
    """Shapes of a model and what follows from them [bytes, parameters].

    Raises:
        ModelError: unknown name or bad file.
    """
    return _model(load_model(name_or_path))


def model_list() -> list[dict[str, Any]]:
    """The facts of every bundled model."""
    return [model_facts(name) for name in model_names()]


def _model(spec: ModelSpec) -> dict[str, Any]:
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
        "allowed_tp": spec.allowed_tp(),
        "parameters": spec.parameters,
        "active_parameters": spec.active_parameters,
        "weight_bytes": {
            "bf16": spec.weight_bytes_per_gpu(Parallel(), WeightFormats.uniform("bf16")),
            "fp8": spec.weight_bytes_per_gpu(Parallel(), WeightFormats.uniform("fp8")),
        },
        "kv_bytes_per_token": {
            "bf16": spec.kv_bytes_per_token(_BF16),
            "fp8": spec.kv_bytes_per_token(_FP8),
        },
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
        "kv_bytes_per_token_per_layer": {
            "bf16": group.kv_bytes(_BF16),
            "fp8": group.kv_bytes(_FP8),
        },
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


def models_block(models: list[dict[str, Any]]) -> Block:
    """Models as a table."""
    header = ("model", "parameters", "active", "weights bf16", "KV per token bf16", "layers")
    rows = tuple(
        (
            m["name"],
            number(m["parameters"] / 1e9, "B"),
            number(m["active_parameters"] / 1e9, "B"),
            byte_size(m["weight_bytes"]["bf16"]),
            byte_size(m["kv_bytes_per_token"]["bf16"]),
            count(m["layers"]),
        )
        for m in models
    )
    return Block("Bundled models", header, rows, "B is 1e9 parameters; GB is 1e9 bytes.")


def model_block(m: dict[str, Any]) -> Block:
    """One model as a list of facts."""
    weights, kv = m["weight_bytes"], m["kv_bytes_per_token"]
    rows = (
        ("architecture", str(m["architecture"])),
        ("parameters", f"{count(m['parameters'])} ({number(m['parameters'] / 1e9, 'B')})"),
        ("weights", f"{byte_size(weights['bf16'])} in bf16, {byte_size(weights['fp8'])} in fp8"),
        ("KV per token", f"{byte_size(kv['bf16'])} in bf16, {byte_size(kv['fp8'])} in fp8"),
        ("layers", count(m["layers"])),
        *((f"{count(k['layers'])} layers", f"{k['attention']}; {k['ffn']}") for k in m["kinds"]),
        ("width", count(m["hidden"])),
        ("vocabulary", count(m["vocab"]) + (", tied embeddings" if m["tied_embeddings"] else "")),
        ("longest context", f"{count(m['max_position'])} tokens"),
        ("tensor parallelism", listing(map(str, m["allowed_tp"]), "or")),
    )
    return Block(m["name"], (), rows, "Weights as loaded on one GPU, with the vocabulary padded.")
