"""Latent attention (MLA): absorbed decode over the latent, prefill over full heads.

Decode scores and sums in the latent itself: per head and cached token ``2·rank + rope`` multiply-adds,
and the latent is read once for all heads. Prefill expands the latent to heads first (that GEMM is
counted apart) and is multi-head attention with unequal key and value widths.

References:
    [1] DeepSeek-AI, "DeepSeek-V2: a strong, economical, and efficient mixture-of-experts language
        model", 2024, section 2.1 and appendix B.
"""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float, p_norm
from simulator.perf.forms.attention import chain_token_s, chained_s


def mla_decode_coefficients(
    *,
    heads: Size,
    kv_lora_rank: Size,
    qk_rope_head_dim: Size,
    t0_s: float,
    sequence_s: float,
    compute_eff: float,
    memory_eff: float,
    p: float,
    head_tile: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_s: float = 0.0,
) -> tuple[float, Array, Array]:
    """What ``mla_decode_s`` is affine in: (fixed [s], per sequence [s], per KV token [s]).

    Arguments as in ``mla_decode_s``.
    """
    heads, rank = as_float(heads), as_float(kv_lora_rank)
    rope = as_float(qk_rope_head_dim)
    memory = bandwidth * memory_eff
    whole = np.maximum(heads, head_tile)
    flops = 2.0 * whole * (2.0 * rank + rope)
    token = p_norm(flops / (peak_flops * compute_eff), (rank + rope) * kv_bytes / memory, p)
    sequence = sequence_s + head_s * whole
    return t0_s, sequence + heads * (2.0 * rank + rope) * io_bytes / memory, token


def mla_decode_s(
    batch: Size,
    kv_tokens: Size,
    *,
    heads: Size,
    kv_lora_rank: Size,
    qk_rope_head_dim: Size,
    t0_s: float,
    sequence_s: float,
    compute_eff: float,
    memory_eff: float,
    p: float,
    head_tile: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_s: float = 0.0,
) -> Array:
    """Time [s] of one layer's absorbed latent attention for one new token a sequence [1].

    ``t0 + batch·(sequence + head·heads + Q and O/(bandwidth·memory_eff)) + kv_tokens·(compute^p + memory^p)^(1/p)``,
    affine in the resident tokens, since arithmetic and bytes of a cached token are both fixed by
    the heads. The two absorbed projections of query and output are counted apart.

    Args:
        batch: sequences [1].
        kv_tokens: resident KV tokens they read together, the current ones included [tokens].
        heads: query heads on this GPU [1].
        kv_lora_rank: width of the latent [1].
        qk_rope_head_dim: width of the rotary part [1].
        t0_s: fixed cost [s].
        sequence_s: cost of a sequence [s].
        compute_eff: fraction of ``peak_flops`` reached [1].
        memory_eff: fraction of ``bandwidth`` reached [1].
        p: sharpness of the corner between both [1].
        head_tile: fewer heads than this cost as much arithmetic as so many [1].
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        kv_bytes: bytes of one stored number of the latent [bytes].
        io_bytes: bytes of one number of Q or O [bytes].
        head_s: cost of a head of a sequence, ``head_tile`` heads at least [s].
    """
    fixed, sequence, token = mla_decode_coefficients(
        heads=heads,
        kv_lora_rank=kv_lora_rank,
        qk_rope_head_dim=qk_rope_head_dim,
        t0_s=t0_s,
        sequence_s=sequence_s,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        p=p,
        head_tile=head_tile,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        kv_bytes=kv_bytes,
        io_bytes=io_bytes,
        head_s=head_s,
    )
    batch = as_float(batch)
    return np.where(batch > 0.0, fixed + sequence * batch + token * as_float(kv_tokens), 0.0)


def mla_prefill_coefficients(
    *,
    heads: Size,
    qk_head_dim: Size,
    v_head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    io_bytes: float = 2.0,
    row_s: float = 0.0,
    chain: float = 0.0,
    sms: float = 0.0,
) -> tuple[float, Array, Array, Array, Array]:
    """What ``mla_prefill_s`` is made of.

    (Fixed, per pair, per new token, per token read, per token of the longest context) [s].
    Arguments as in ``mla_prefill_s``.
    """
    heads, qk, v = as_float(heads), as_float(qk_head_dim), as_float(v_head_dim)
    memory = bandwidth * memory_eff
    pair = 2.0 * heads * (qk + v) / (peak_flops * compute_eff)
    row = heads * (qk + v) * io_bytes / memory
    longest = chain_token_s(2.0 * (qk + v), chain, sms, peak_flops)
    return t0_s, pair, row + row_s, row, longest


def mla_prefill_s(
    new: Size,
    pairs: Size,
    read: Size,
    *,
    heads: Size,
    qk_head_dim: Size,
    v_head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    io_bytes: float = 2.0,
    row_s: float = 0.0,
    longest: Size = 0.0,
    chain: float = 0.0,
    sms: float = 0.0,
) -> Array:
    """Time [s] of one layer's causal latent attention over prompt chunks, heads expanded [1].

    ``t0 + √(compute² + row of tiles²) + (Q and O of new, K and V of read)/(bandwidth·memory_eff)
    + row·new`` with ``compute = 2·heads·(qk + v)·pairs/(peak·compute_eff)`` and
    ``chain·128·2·(qk + v)·longest·SMs/peak`` for the row of tiles of the longest context, as in
    ``prefill_attention_s``. An engine that stays in the latent reaches a lower ``compute_eff`` in this
    measure.

    Args:
        new: tokens computed, summed over the chunks [tokens].
        pairs: query-key pairs under the causal mask, summed [1]; see ``causal_pairs``.
        read: KV tokens read back, summed [tokens].
        heads: query heads on this GPU [1].
        qk_head_dim: width of a head's query and key, rotary part included [1].
        v_head_dim: width of a head's value [1].
        t0_s: fixed cost [s].
        compute_eff: fraction of ``peak_flops`` reached [1].
        memory_eff: fraction of ``bandwidth`` reached [1].
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        io_bytes: bytes of one number of Q, K, V or O [bytes].
        row_s: cost of a token computed, whatever the number of heads [s].
        longest: most tokens a query of the chunks attends to, largest ``p + c`` [tokens].
        chain: time of a row of tiles as a multiple of that at its multiprocessor's share of the
            peak [1]; 0: no such bound.
        sms: streaming multiprocessors of the GPU [1].
    """
    fixed, pair, per_new, per_read, per_longest = mla_prefill_coefficients(
        heads=heads,
        qk_head_dim=qk_head_dim,
        v_head_dim=v_head_dim,
        t0_s=t0_s,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        io_bytes=io_bytes,
        row_s=row_s,
        chain=chain,
        sms=sms,
    )
    new = as_float(new)
    compute = chained_s(pair * as_float(pairs), per_longest * as_float(longest))
    time = fixed + compute + per_new * new + per_read * as_float(read)
    return np.where(new > 0.0, time, 0.0)
