"""Useful work of a step over all GPUs of an instance: the numerators of MFU and MBU."""

from __future__ import annotations

import numpy as np

from simulator.model import GqaAttention, MlaAttention, ModelSpec, MoeFfn, Parallel
from simulator.model.memory import expert_bytes
from simulator.perf.forms import Array, Size
from simulator.perf.precision import Precision
from simulator.perf.routing import Routing
from simulator.perf.shape import Reads, per_group


def pair_flops(attention: GqaAttention | MlaAttention) -> float:
    """Arithmetic of a query-key pair in one layer, all heads: its product, and its value [FLOP].

    Of latent attention as the model defines it; absorbed decode computes more, which is not work.
    """
    if isinstance(attention, GqaAttention):
        return 4.0 * attention.heads * attention.head_dim
    return 2.0 * attention.heads * (attention.qk_head_dim + attention.v_head_dim)


def flops(model: ModelSpec, tokens: Size, pairs: Reads, rows: Size) -> Array:
    """Arithmetic of a step, replicas not counted; of the experts, those a token visits [FLOP].

    Args:
        model: the model.
        tokens: new tokens, decoded and prefilled.
        pairs: query-key pairs, for each attention group.
        rows: tokens sampled.
    """
    groups = model.attention_groups
    total = 2.0 * model.active_linear_parameters * np.asarray(tokens, dtype=np.float64)
    for group, n in zip(groups, per_group(pairs, len(groups)), strict=True):
        total = total + group.layers * pair_flops(group.attention) * n
    per_row = 2.0 * model.vocab * model.hidden
    return np.asarray(total + per_row * np.asarray(rows, dtype=np.float64))


def weight_read_bytes(
    model: ModelSpec, parallel: Parallel, precision: Precision, skew: float, tokens: Size | None
) -> Array:
    """Bytes of weights a step must read, each GPU its own: of the experts, those visited [bytes].

    The input embedding (a lookup) and image encoders are left out.

    Args:
        model: the model.
        parallel: how an instance spreads it.
        precision: number formats.
        skew: of the routing.
        tokens: new tokens of the step on all attention ranks; None: enough to visit every expert.
    """
    held = sum(model.stage_weight_bytes(parallel, precision.formats))
    if not (model.tied_embeddings and parallel.pp == 1):
        held -= model.padded_vocab(parallel.tp) // parallel.tp * model.hidden * 2.0
    # text does not pass through image encoders
    held -= -(-model.encoder_parameters // parallel.tp) * 2.0
    read = np.asarray(held, dtype=np.float64)
    if tokens is not None:
        for kind in model.kinds:
            if isinstance(kind.ffn, MoeFfn):
                visited = Routing.of(kind.ffn, 1, skew).distinct(tokens)
                size = expert_bytes(kind.ffn, model.hidden, parallel, precision.formats)
                read = read - kind.count * size * (1.0 - visited / kind.ffn.experts)
    return np.asarray(parallel.stage_gpus * read, dtype=np.float64)


def kv_read_bytes(model: ModelSpec, tp: int, precision: Precision, reads: Reads) -> Array:
    """Bytes of KV cache a step must read, replicas included [bytes].

    Args:
        model: the model.
        tp: tensor-parallel degree.
        precision: number formats.
        reads: resident KV tokens read on all attention ranks, for each attention group.
    """
    groups = model.attention_groups
    total = np.zeros(())
    for group, n in zip(groups, per_group(reads, len(groups)), strict=True):
        total = total + tp * group.layers * group.kv_bytes(precision.kv_bytes, tp) * n
    return np.asarray(total, dtype=np.float64)
