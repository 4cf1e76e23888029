"""What a GPU of an instance holds: weights, activations, and how much KV cache is left."""

from __future__ import annotations

from math import gcd

from hwprofiles import GpuProfile
from simulator.model import DenseFfn, LayerKind, ModelSpec, Parallel
from simulator.perf.precision import Precision
from simulator.units import GIB

RUNTIME_BYTES = 1.5 * GIB
"""Device memory outside weights, KV and activations: CUDA context, graphs, NCCL buffers [bytes].
Assumed: engines report 1-2 GiB."""


def activation_bytes(model: ModelSpec, parallel: Parallel, max_tokens: int) -> float:
    """Estimate of what a step needs beside weights and KV on each GPU [bytes].

    The largest moment of a layer in bf16: residual, its norm, gate, up and their product; for routed
    experts also their outputs, of the (token, expert) pairs that fall to a GPU on average:
    ``2·max_tokens·(2·hidden + width)``, plus ``RUNTIME_BYTES``. An estimate, not fitted.

    Args:
        model: the model.
        parallel: how an instance spreads it.
        max_tokens: most new tokens of a step of an attention rank.
    """
    width = max(_width(kind, model.hidden, parallel) for kind in model.kinds)
    return 2.0 * max_tokens * (2 * model.hidden + width) + RUNTIME_BYTES


def _width(kind: LayerKind, hidden: int, parallel: Parallel) -> float:
    ffn = kind.ffn
    if isinstance(ffn, DenseFfn):
        return 3 * ffn.width / parallel.tp
    pairs = parallel.attention_dp * ffn.experts_per_token / parallel.ep
    routed = pairs * (3 * ffn.expert_width / parallel.moe_tp + hidden)
    return 3 * ffn.shared_width / parallel.tp + routed


def units(model: ModelSpec, tp: int) -> tuple[int, ...]:
    """KV units of a block of tokens in each attention group: its bytes, in lowest terms.

    One group: 1, so that a unit is a block.
    """
    sizes = [group.layers * group.attention.kv_numbers(tp) for group in model.attention_groups]
    common = gcd(*sizes)
    return tuple(size // common for size in sizes)


def stage_kv_bytes_per_token(
    model: ModelSpec, parallel: Parallel, kv_bytes: float
) -> tuple[float, ...]:
    """KV cache of one token on each GPU of every pipeline stage, replicas included [bytes/token]."""
    return tuple(
        sum(kind.count * kind.attention.kv_numbers(parallel.tp) for kind in stage) * kv_bytes
        for stage in model.stages(parallel.pp)
    )


def kv_room_tokens(
    model: ModelSpec,
    gpu: GpuProfile,
    parallel: Parallel,
    precision: Precision,
    memory_fraction: float,
    max_tokens: int,
) -> float:
    """KV tokens an attention rank has room for while no window forgets any; 0 without room.

    The least over the pipeline stages, of what weights and activations leave.
    """
    usable = gpu.memory_bytes.value * memory_fraction
    other = activation_bytes(model, parallel, max_tokens)
    weights = model.stage_weight_bytes(parallel, precision.formats)
    sizes = stage_kv_bytes_per_token(model, parallel, precision.kv_bytes)
    room = min((usable - w - other) / kv for w, kv in zip(weights, sizes, strict=True))
    return max(0.0, room)
