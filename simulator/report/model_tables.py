"""Models as tables: the list, one model's facts and parts, and what fits on which GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.report.block import Block
from simulator.report.text import MISSING, byte_size, count, listing, number, plural
from simulator.units import GB

_PARTS = {
    "embedding": "embedding",
    "attention": "attention",
    "dense_ffn": "dense feed-forward",
    "routed_experts": "routed experts",
    "shared_experts": "shared experts",
    "router": "routers",
    "small": "norms and biases",
    "head": "LM head",
    "encoder": "image encoder",
}


def models_block(models: list[dict[str, Any]]) -> Block:
    """Models as a table."""
    header = (
        "model",
        "parameters",
        "active",
        "weights",
        "stored as",
        "KV per token bf16",
        "layers",
    )
    rows = tuple(
        (
            m["name"],
            number(m["parameters"] / 1e9, "B"),
            number(m["active_parameters"] / 1e9, "B"),
            byte_size(m["weight_bytes"]["configured"]),
            _stored(m["precision"]),
            byte_size(m["kv_bytes_per_token"]["bf16"]),
            count(m["layers"]),
        )
        for m in models
    )
    return Block("Bundled models", header, rows, "B is 1e9 parameters; GB is 1e9 bytes.")


def _stored(precision: dict[str, str]) -> str:
    """Formats of the parts, shortly."""
    attention, ffn, experts = (precision[part] for part in ("attention", "ffn", "experts"))
    if attention == ffn == experts:
        return ffn
    others = f"{ffn}, attention {attention}" if attention != ffn else ffn
    return others if experts == ffn else f"{others}, experts {experts}"


def model_blocks(m: dict[str, Any]) -> list[Block]:
    """One model: its facts, its parameters by part, and what fits, as far as the report says."""
    blocks = [_facts_block(m), _parts_block(m)]
    fits = m.get("fits", [])
    if len({row["gpu"] for row in fits}) == 1:
        blocks.append(_layouts_block(m, fits))
    elif fits:
        blocks.extend(_gpus_blocks(m, fits))
    return blocks


def _facts_block(m: dict[str, Any]) -> Block:
    weights, kv = m["weight_bytes"], m["kv_bytes_per_token"]
    stored = _stored(m["precision"])
    rows = (
        ("architecture", str(m["architecture"])),
        ("parameters", f"{count(m['parameters'])} ({number(m['parameters'] / 1e9, 'B')})"),
        ("active per token", f"{count(m['active_parameters'])} "
                             f"({number(m['active_parameters'] / 1e9, 'B')})"),
        ("weights", f"{byte_size(weights['configured'])} in {stored}"),
        ("in other formats", listing(f"{f} {byte_size(weights[f])}" for f in _shown(stored))),
        ("KV per token", f"{byte_size(kv['bf16'])} in bf16, {byte_size(kv['fp8'])} in fp8"),
        *((plural(k["layers"], "layer"), f"{k['attention']}; {k['ffn']}") for k in m["kinds"]),
        *_attention_rows(m["attention_groups"]),
        ("width", count(m["hidden"])),
        ("vocabulary", count(m["vocab"]) + (", tied embeddings" if m["tied_embeddings"] else "")),
        ("longest context", f"{count(m['max_position'])} tokens"),
        ("tensor parallelism", listing(map(str, m["allowed_tp"]), "or")),
        ("pipeline stages", f"1 to {m['layers']}"),
        *_expert_rows(m["allowed_ep"]),
        *(("left out", sentence) for sentence in m["left_out"]),
        *(("counted otherwise", note) for note in (m["quantization"] or {}).get("notes", ())),
    )  # fmt: skip
    return Block(m["name"], (), rows, "Weights as loaded on one GPU, with the vocabulary padded.")


def _shown(stored: str) -> Iterable[str]:
    return (name for name in ("bf16", "fp8", "int4", "nvfp4") if name != stored)


def _attention_rows(groups: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    """Where layers differ in what they keep: how much each group does."""
    if len(groups) == 1:
        return
    for group in groups:
        limit = group["window"] or group["local_chunk"]
        keeps = (
            f"the latest {count(limit)} tokens"
            if group["window"]
            else (f"tokens of the current {count(limit)}" if limit else "every token")
        )
        size = byte_size(group["layers"] * group["kv_bytes_per_token_per_layer"]["bf16"])
        yield f"{plural(group['layers'], 'layer')} keep", f"{keeps}, {size} each in bf16"


def _expert_rows(allowed: dict[str, list[int]]) -> Iterable[tuple[str, str]]:
    """Groups of experts on the sizes of a stage."""
    if allowed:
        by_size = (
            f"{', '.join(map(str, groups)) or 'none'} on {size}"
            for size, groups in allowed.items()
            if int(size) > 1
        )
        yield "expert groups", "; ".join(by_size) + " GPUs"


def _parts_block(m: dict[str, Any]) -> Block:
    parts = [
        (_PARTS[name], count(part["total"]), count(part["active"]))
        for name, part in m["parameter_parts"].items()
        if part["total"]
    ]
    note = "Active: what one token of text uses; of the embedding it reads one row."
    return Block("Parameters by part", ("part", "all", "active"), tuple(parts), note)


def _layouts_block(m: dict[str, Any], fits: list[dict[str, Any]]) -> Block:
    """Every layout on one GPU type."""
    header = (
        "layout",
        "GPUs",
        "weights per GPU",
        "activations, runtime",
        "KV tokens",
        "a sequence",
    )
    rows = tuple(
        (
            layout_name(row),
            count(row["gpus"]),
            byte_size(row["weight_bytes_per_gpu"]),
            byte_size(row["other_bytes_per_gpu"]),
            count(row["kv_tokens"]) if row["fits"] else MISSING,
            count(row["longest_tokens"]) if row["fits"] else "does not fit",
        )
        for row in fits
    )
    memory = fits[0]["memory_bytes_per_gpu"] / GB
    note = (
        f"{_assumed(m)} of {number(memory, 'GB')}. KV tokens of the whole instance; a sequence "
        "lives on one attention rank."
    )
    return Block(f"On {fits[0]['gpu']}", header, rows, note)


def _gpus_blocks(m: dict[str, Any], fits: list[dict[str, Any]]) -> Iterable[Block]:
    """KV tokens an instance holds, GPU types down and sizes across; a table a way of spreading."""
    ways = {
        "tensor parallel (two nodes: a pipeline of two)": [
            r for r in fits if r["ep"] == 1 and r["attention_dp"] == 1
        ],
        "attention rank and experts on every GPU": [r for r in fits if r["attention_dp"] > 1],
    }
    for way, rows in ways.items():
        if rows:
            yield _matrix(m, way, rows)


def _matrix(m: dict[str, Any], way: str, rows: list[dict[str, Any]]) -> Block:
    sizes = sorted({row["gpus"] for row in rows})
    cells = {(row["gpu"], row["gpus"]): row for row in rows}
    shown = tuple(
        (gpu, *(_tokens(cells.get((gpu, size))) for size in sizes))
        for gpu in dict.fromkeys(row["gpu"] for row in rows)
    )
    header = ("GPU", *(plural(size, "GPU") for size in sizes))
    note = f"{_assumed(m)}; {MISSING} does not fit. xpyd models NAME --gpu GPU has every layout."
    return Block(f"KV tokens an instance holds, {way}", header, shown, note)


def _tokens(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return compact(row["kv_tokens"]) if row["fits"] else MISSING


def _assumed(m: dict[str, Any]) -> str:
    return (
        f"{_stored(m['precision'])} weights, {m['precision']['kv']} KV, steps of "
        f"{count(m['max_tokens'])} tokens, {100 * m['memory_fraction']:g} % of the memory"
    )


def layout_name(row: dict[str, Any]) -> str:
    """``"TP8"``, ``"TP8 PP2"``, ``"DP16 EP16"``."""
    degrees = {"TP": row["tp"], "DP": row["attention_dp"], "EP": row["ep"], "PP": row["pp"]}
    named = [f"{name}{degree}" for name, degree in degrees.items() if degree > 1]
    return " ".join(named) or "one GPU"


def compact(tokens: int) -> str:
    """``"950"``, ``"23 K"``, ``"1.06 M"`` tokens."""
    for size, unit in ((1e6, "M"), (1e3, "K")):
        if tokens >= 0.9995 * size:
            return number(tokens / size, unit)
    return count(tokens)
