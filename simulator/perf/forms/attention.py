"""Grouped-query attention, decode and prefill.

References:
    [1] T. Dao, "FlashAttention-2: faster attention with better parallelism and work
        partitioning", 2023: causal attention computes half of the square, and never writes it.
    [2] T. Dao, D. Haziza, F. Massa, G. Sizov, "Flash-Decoding for long-context inference", 2023.
    [3] R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17(2), 1969:
        a list schedule on m machines takes at most work/m + longest job.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.perf.forms.arrays import Array, Size, as_float

Flags = npt.NDArray[np.bool_]
Mask = bool | Flags


@dataclass(frozen=True, slots=True)
class DecodeTerms:
    """What a decode-attention kernel costs besides bytes and tiles; all absent by default.

    A *tile* is a (sequence, KV head), ``w = batch·kv_heads/SMs`` are the waves of them. FlashAttention
    gives a tile to several multiprocessors [2] while tiles fill less than ``split_fill`` of them
    and contexts are longer than a block of keys; partial results are then combined by one more
    kernel. With ``split_fill`` 0 contexts are never split.

    Attributes:
        split_s: cost of splitting and combining [s].
        split_fill: multiprocessors a kernel wants filled before it stops splitting, as a multiple
            of those the GPU has [1]; known from the kernel's source: 0.8 in FlashAttention 3, 0.8 of
            two blocks a multiprocessor, 1.6, in FlashAttention 2.
        gather_s: copies of Q and O between layouts, made where there are several sequences and
            several KV heads [s].
        cold_s: first touches of a KV cache that lies in memory, not in the L2 [s].
        fill_s: cost of the first wave, in proportion to the multiprocessors it fills [s]; None: as
            that of any other.
        wave_exponent: how much of the idle multiprocessors of the last wave is lost where contexts
            are not split [1]; reading takes ``(ceil(w)/w)^wave_exponent`` times as long.
        block_s: a wave of tiles of no more than a block of keys takes at least this [s].
    """

    split_s: float = 0.0
    split_fill: float = 0.0
    gather_s: float = 0.0
    cold_s: float = 0.0
    fill_s: float | None = None
    wave_exponent: float = 0.0
    block_s: float = 0.0


PLAIN = DecodeTerms()
"""Bytes and tiles alone."""

BLOCK_TOKENS = 128
"""Keys a decode kernel works on at a time: a context of no more is never split [tokens]."""


ROW_QUERIES = 128
"""Queries of a row of tiles of a prefill kernel, one multiprocessor's work [1]; smaller rows show as a
smaller ``chain``."""


def decode_attention_coefficients(
    batch: Size,
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    tile_s: float,
    memory_eff: float,
    bandwidth: float,
    sms: float,
    kv_bytes: Size = 2.0,
    io_bytes: float = 2.0,
    terms: DecodeTerms = PLAIN,
    short: Mask = False,
    cold: Size = 1.0,
) -> tuple[Array, Array]:
    """``decode_attention_s`` of a batch as an affine function of its KV: (start [s], per token [s]).

    Arguments as in ``decode_attention_s``; the floor of short contexts is left out.
    """
    batch, kv_heads = as_float(batch), as_float(kv_heads)
    memory = bandwidth * memory_eff
    waves = batch * kv_heads / sms
    whole = np.asarray(short, dtype=np.bool_) | (waves >= terms.split_fill)
    fill_s = tile_s if terms.fill_s is None else terms.fill_s
    start = (
        t0_s
        + np.where(whole, 0.0, terms.split_s)
        + np.where((batch > 1.0) & (kv_heads > 1.0), terms.gather_s, 0.0)
        + terms.cold_s * as_float(cold)
        + fill_s * np.minimum(waves, 1.0)
        + tile_s * _further_waves(waves, whole)
        + 2.0 * batch * as_float(heads) * as_float(head_dim) * io_bytes / memory
    )
    per_token = 2.0 * kv_heads * as_float(head_dim) * as_float(kv_bytes) / memory
    if terms.wave_exponent > 0.0:
        last = np.ceil(waves) / np.maximum(waves, 1.0)
        per_token = per_token * np.where(
            whole & (waves > 1.0), np.maximum(last, 1.0) ** terms.wave_exponent, 1.0
        )
    return np.where(batch > 0.0, start, 0.0), np.where(batch > 0.0, per_token, 0.0)


def _further_waves(waves: Array, whole: Flags) -> Array:
    """Waves of tiles after the first; none where tiles are split, which are made to fit one."""
    return np.where(whole, np.maximum(waves - 1.0, 0.0), 0.0)


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
    kv_bytes: Size = 2.0,
    io_bytes: float = 2.0,
    terms: DecodeTerms = PLAIN,
    short: Mask = False,
    cold: Size = 1.0,
) -> Array:
    """Time [s] of one layer's attention for one new token a sequence; affine in resident tokens.

    ``t0 + tile·w + (KV read once + Q and O)/(bandwidth·memory_eff)`` plus the ``terms``, with
    ``w = batch·kv_heads/SMs`` waves: each (sequence, KV head) is a tile of work on one
    multiprocessor, and each KV byte is read once. The last two arguments are for benchmarks: a server
    knows no single context, and takes all for long ones.

    Args:
        batch: sequences [1].
        kv_tokens: resident KV tokens they read together, the current ones included [tokens].
        heads: query heads on this GPU [1].
        kv_heads: KV heads on this GPU [1].
        head_dim: width of a head [1].
        t0_s: fixed cost, the write of the new K and V included [s].
        tile_s: cost of a wave of tiles [s].
        memory_eff: fraction of ``bandwidth`` reached [1].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        sms: streaming multiprocessors of the GPU [1].
        kv_bytes: bytes of one stored K or V number [bytes].
        io_bytes: bytes of one Q or O number [bytes].
        terms: what else the kernel costs.
        short: whether no context is longer than ``BLOCK_TOKENS``.
        cold: share of ``cold_s`` to pay [1]: 0 for a KV cache that lies in the L2.
    """
    start, per_token = decode_attention_coefficients(
        batch,
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
        terms=terms,
        short=short,
        cold=cold,
    )
    read = per_token * as_float(kv_tokens)
    if terms.block_s > 0.0:
        waves = as_float(batch) * as_float(kv_heads) / sms
        further = _further_waves(waves, np.asarray(short, dtype=np.bool_))
        read = read + np.maximum((terms.block_s - tile_s) * further - read, 0.0)
    return np.where(as_float(batch) > 0.0, start + read, 0.0)


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
    chain: float = 0.0,
    sms: float = 0.0,
) -> tuple[float, Array, Array, Array, Array]:
    """What ``prefill_attention_s`` is made of.

    (Fixed, per pair, per new token, per token read, per token of the longest context) [s].
    Arguments as in ``prefill_attention_s``.
    """
    head_dim = as_float(head_dim)
    memory = bandwidth * memory_eff
    width = as_float(heads) * head_dim
    kv = 2.0 * as_float(kv_heads) * head_dim * kv_bytes
    efficiency = np.minimum(1.0, compute_eff * (head_dim / 128.0) ** head_dim_exponent)
    per_pair = 4.0 * width / (peak_flops * efficiency)
    row = chain_token_s(4.0 * head_dim * compute_eff / efficiency, chain, sms, peak_flops)
    return t0_s, per_pair, (2.0 * width * io_bytes + kv) / memory, kv / memory, row


def chain_token_s(pair_flops: Size, chain: float, sms: float, peak_flops: float) -> Array:
    """What a row of tiles takes for each key it attends to [s].

    A row of tiles is ``ROW_QUERIES`` queries of one head, the work of one multiprocessor.

    Args:
        pair_flops: arithmetic of a query-key pair of one head [FLOP].
        chain: its time as a multiple of that at a multiprocessor's share of the peak [1].
        sms: streaming multiprocessors of the GPU [1].
        peak_flops: dense peak of the compute type [FLOP/s].
    """
    return chain * ROW_QUERIES * as_float(pair_flops) * sms / peak_flops


def chained_s(compute_s: Size, row_s: Size) -> Array:
    """Time of rows of tiles that all multiprocessors share, the longest of them apart [s].

    Rows handed out to multiprocessors as they come free take at least the larger of the two and
    at most their sum [3]; measured kernels are well described by the root of their squares.

    Args:
        compute_s: time of all rows, spread evenly [s].
        row_s: time of the longest [s].
    """
    return np.asarray(np.hypot(compute_s, row_s), dtype=np.float64)


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
    l2_spill: float = 0.0,
    l2_bytes: float = np.inf,
    longest: Size = 0.0,
    chain: float = 0.0,
    sms: float = 0.0,
) -> Array:
    """Time [s] of one layer's causal attention over prompt chunks.

    ``t0 + √(compute² + row²)
    + (Q and O and K,V written of new tokens, K,V read back)/(bandwidth·memory_eff)`` with
    ``compute = 4·heads·head_dim·pairs/(peak·compute_eff)`` and, where there is a ``chain``,
    ``row = chain·128·4·head_dim·longest·SMs/peak``: no kernel is faster than the one row of tiles that
    attends to the longest context, the work of one multiprocessor (``chained_s``).
    A chunk of ``c`` tokens after ``p`` cached ones has ``pairs = c·p + c²/2`` [1] and reads back
    ``p + c``; whole prompts of length L in a batch b have ``new = read = b·L``,
    ``pairs = b·L²/2``. The measured tables have no cached prefix: ``p > 0`` extrapolates, and a
    kernel that splits the keys of a short chunk after a long prefix would have a shorter row.

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
            never exceeds 1 [1]; a row of tiles gains as much.
        l2_spill: how much slower bytes beyond ``l2_bytes`` move than those before them [1]; where the L2
            serves second reads, ``memory_eff`` is that of tensors that fit.
        l2_bytes: last-level cache [bytes].
        longest: most tokens a query of the chunks attends to, largest ``p + c`` [tokens].
        chain: time of a row of tiles as a multiple of that at its multiprocessor's share of the
            peak [1]; 0: no such bound.
        sms: streaming multiprocessors of the GPU [1].
    """
    fixed, per_pair, per_new, per_read, per_longest = prefill_attention_coefficients(
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
        chain=chain,
        sms=sms,
    )
    new = as_float(new)
    memory = per_new * new + per_read * as_float(read)
    if l2_spill > 0.0:
        memory = memory + l2_spill * np.maximum(memory - l2_bytes / (bandwidth * memory_eff), 0.0)
    compute = chained_s(per_pair * as_float(pairs), per_longest * as_float(longest))
    return np.where(new > 0.0, fixed + compute + memory, 0.0)


def causal_pairs(cached: Size, new: Size) -> Array:
    """Query-key pairs of a chunk of ``new`` tokens after ``cached`` ones: ``c·p + c²/2``."""
    new = as_float(new)
    return new * (as_float(cached) + 0.5 * new)
