"""Grouped-query attention, decode and prefill.

References:
    [1] T. Dao, "FlashAttention-2: faster attention with better parallelism and work
        partitioning", 2023: causal attention computes half of the square, and never writes it.
"""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float


def decode_attention_coefficients(
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    tile_s: float,
    memory_eff: float,
    bandwidth: float,
    sms: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
) -> tuple[float, Array, Array]:
    """What ``decode_attention_s`` is affine in: (fixed [s], per sequence [s], per KV token [s]).

    Arguments as in ``decode_attention_s``.
    """
    memory = bandwidth * memory_eff
    q_o = 2.0 * as_float(heads) * as_float(head_dim) * io_bytes
    kv = 2.0 * as_float(kv_heads) * as_float(head_dim) * kv_bytes
    return t0_s, tile_s * as_float(kv_heads) / sms + q_o / memory, kv / memory


def decode_attention_s(
    batch: Size,
    kv_tokens: Size,
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    tile_s: float,
    memory_eff: float,
    bandwidth: float,
    sms: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
) -> Array:
    """Time [s] of one layer's attention for one new token a sequence; affine in resident tokens.

    ``t0 + tile·batch·kv_heads/SMs + (KV read once + Q and O)/(bandwidth·memory_eff)``: each
    (sequence, KV head) is a tile of work on one multiprocessor, and each KV byte is read once.

    Args:
        batch: sequences [1].
        kv_tokens: resident KV tokens they read together, the current ones included [tokens].
        heads: query heads on this GPU [1].
        kv_heads: KV heads on this GPU [1].
        head_dim: width of a head [1].
        t0_s: fixed cost, the write of the new K and V included [s].
        tile_s: cost of one tile [s].
        memory_eff: fraction of ``bandwidth`` reached [1].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        sms: streaming multiprocessors of the GPU [1].
        kv_bytes: bytes of one stored K or V number [bytes].
        io_bytes: bytes of one Q or O number [bytes].
    """
    fixed, per_sequence, per_token = decode_attention_coefficients(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        t0_s=t0_s,
        tile_s=tile_s,
        memory_eff=memory_eff,
        bandwidth=bandwidth,
        sms=sms,
        kv_bytes=kv_bytes,
        io_bytes=io_bytes,
    )
    batch = as_float(batch)
    return np.where(
        batch > 0.0, fixed + per_sequence * batch + per_token * as_float(kv_tokens), 0.0
    )


def prefill_attention_coefficients(
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_dim_exponent: float = 0.0,
) -> tuple[float, Array, Array, Array]:
    """What ``prefill_attention_s`` adds up: (fixed, per pair, per new token, per token read) [s].

    Arguments as in ``prefill_attention_s``.
    """
    head_dim = as_float(head_dim)
    memory = bandwidth * memory_eff
    width = as_float(heads) * head_dim
    kv = 2.0 * as_float(kv_heads) * head_dim * kv_bytes
    efficiency = np.minimum(1.0, compute_eff * (head_dim / 128.0) ** head_dim_exponent)
    per_pair = 4.0 * width / (peak_flops * efficiency)
    return t0_s, per_pair, (2.0 * width * io_bytes + kv) / memory, kv / memory


def prefill_attention_s(
    new: Size,
    pairs: Size,
    read: Size,
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_dim_exponent: float = 0.0,
) -> Array:
    """Time [s] of one layer's causal attention over prompt chunks; additive in its parts.

    ``t0 + 4·heads·head_dim·pairs/(peak·compute_eff)
    + (Q and O and K,V written of new tokens, K,V read back)/(bandwidth·memory_eff)``.
    A chunk of ``c`` tokens after ``p`` cached ones has ``pairs = c·p + c²/2`` [1] and reads back
    ``p + c``; whole prompts of length L in a batch b have ``new = read = b·L``,
    ``pairs = b·L²/2``. The measured tables have no cached prefix: ``p > 0`` extrapolates.

    Args:
        new: tokens computed, summed over the chunks [tokens].
        pairs: query-key pairs under the causal mask, summed [1]; see ``causal_pairs``.
        read: KV tokens read back, summed ``p + c`` [tokens].
        heads: query heads on this GPU [1].
        kv_heads: KV heads on this GPU [1].
        head_dim: width of a head [1].
        t0_s: fixed cost of the kernels of one step [s].
        compute_eff: fraction of ``peak_flops`` reached at head_dim 128 [1].
        memory_eff: fraction of ``bandwidth`` reached [1]; above 1 where the L2 cache serves reads.
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        kv_bytes: bytes of one stored K or V number [bytes].
        io_bytes: bytes of one Q or O number [bytes].
        head_dim_exponent: the compute efficiency scales with ``(head_dim/128)`` to this power, and
            never exceeds 1 [1].
    """
    fixed, per_pair, per_new, per_read = prefill_attention_coefficients(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        t0_s=t0_s,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        kv_bytes=kv_bytes,
        io_bytes=io_bytes,
        head_dim_exponent=head_dim_exponent,
    )
    new = as_float(new)
    time = fixed + per_pair * as_float(pairs) + per_new * new + per_read * as_float(read)
    return np.where(new > 0.0, time, 0.0)


def causal_pairs(cached: Size, new: Size) -> Array:
    """Query-key pairs of a chunk of ``new`` tokens after ``cached`` ones: ``c·p + c²/2``."""
    new = as_float(new)
    return new * (as_float(cached) + 0.5 * new)
