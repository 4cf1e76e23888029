"""Attention of one group of layers on one GPU: coefficients of its decode and its prefill.

Grouped-query attention reads K and V of every token once, and is affine in them. DeepSeek's latent
attention [1] decodes *absorbed*: the up-projections of K and V are folded into query and output, so
that all heads read one latent of ``kv_lora_rank + qk_rope_head_dim`` numbers a token. With many heads
on a GPU its arithmetic can take longer than its bytes; the step is the larger of the two. Its
prefill expands K and V of every head, those of a cached prefix too.

References:
    [1] DeepSeek-AI, "DeepSeek-V2", arXiv:2405.04434, 2024, section 2.1 and appendix C.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwprofiles import GpuProfile, KernelFamily
from simulator.model import AttentionGroup, GqaAttention, MlaAttention
from simulator.perf import forms
from simulator.perf.decode import AffineDecode, DecodePiece, GroupedDecode, decode_args
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import ACTIVATION_BYTES, Multiply, for_dtype, gemm_params, value_or
from simulator.perf.precision import Precision


@dataclass(frozen=True, slots=True)
class PrefillCost:
    """One layer's prefill attention.

    Attributes:
        fixed_s: per layer [s].
        pair_s: per query-key pair [s].
        new_s: per new token [s]; may be negative where ``read_s`` counts new tokens as well.
        read_s: per KV token read back [s].
        l2_spill: how much slower the part of the last two beyond ``l2_s`` is [1].
        l2_s: time in which an L2 of bytes moves [s].
        chain_s: of a row of tiles, per token of the longest context [s].
    """

    fixed_s: float
    pair_s: float
    new_s: float
    read_s: float
    l2_spill: float = 0.0
    l2_s: float = 0.0
    chain_s: float = 0.0

    def compute_s(self, pairs: Size, longest: Size) -> Array:
        """Arithmetic of one layer, no faster than the row of tiles of the longest context [s]."""
        return forms.chained_s(self.pair_s * np.asarray(pairs), self.chain_s * np.asarray(longest))

    def memory_s(self, new: Array, read: Array) -> Array:
        """Moving Q, O, K and V of one layer [s]."""
        time = self.new_s * new + self.read_s * read
        return np.asarray(time + self.l2_spill * np.maximum(time - self.l2_s, 0.0))


@dataclass(frozen=True, slots=True)
class GroupAttention:
    """Attention of the layers of one group, each figure of one layer on one GPU.

    Attributes:
        group: the layers.
        decode: affine pieces of decode attention; the largest counts.
        prefill: prefill attention.
        decode_pair_flops: arithmetic per decoding sequence and KV token read [FLOP].
        prefill_pair_flops: arithmetic per query-key pair of a prefill [FLOP].
        kv_bytes: KV cache of a token [bytes].
        decode_io_bytes: query and output of a decoding sequence [bytes].
        prefill_io_bytes: query and output of a new prompt token [bytes].
    """

    group: AttentionGroup
    decode: tuple[DecodePiece, ...]
    prefill: PrefillCost
    decode_pair_flops: float
    prefill_pair_flops: float
    kv_bytes: float
    decode_io_bytes: float
    prefill_io_bytes: float

    @property
    def layers(self) -> int:
        """Layers of the group."""
        return self.group.layers


def undominated(*pieces: AffineDecode) -> tuple[AffineDecode, ...]:
    """The pieces that are the largest for some batch: those no other is at least equal to in all."""
    kept: list[AffineDecode] = []
    for i, piece in enumerate(pieces):
        others = (*kept, *pieces[i + 1 :])
        if not any(
            other.fixed_s >= piece.fixed_s
            and other.sequence_s >= piece.sequence_s
            and other.kv_token_s >= piece.kv_token_s
            for other in others
        ):
            kept.append(piece)
    return tuple(kept)


def bind_attention(
    group: AttentionGroup,
    gpu: GpuProfile,
    kernels: KernelFamily,
    tp: int,
    precision: Precision,
    projections: Multiply,
    sustained: float = 1.0,
) -> GroupAttention:
    """Bind the attention of a group of layers to the parameters of its kernels.

    Args:
        group: the layers.
        gpu: the GPU.
        kernels: the kernel family.
        tp: tensor-parallel degree.
        precision: number formats.
        projections: how the attention's matrices are multiplied.
        sustained: share of its benchmarked bandwidth grouped-query decode attention keeps [1].
    """
    if isinstance(group.attention, MlaAttention):
        return _latent(group, group.attention, gpu, kernels, tp, precision, projections)
    return _grouped(group, group.attention, gpu, kernels, tp, precision, sustained)


def _grouped(
    group: AttentionGroup,
    attention: GqaAttention,
    gpu: GpuProfile,
    kernels: KernelFamily,
    tp: int,
    precision: Precision,
    sustained: float,
) -> GroupAttention:
    heads, kv_heads = attention.heads // tp, attention.kv_heads_per_gpu(tp)
    bandwidth = gpu.memory_bytes_per_s.value
    heads_of = (heads, kv_heads, attention.head_dim)
    decode = decode_args(gpu, kernels, heads_of, precision.kv, precision.kv_bytes)
    decode["memory_eff"] *= sustained
    prefill = for_dtype(kernels.prefill_attention, precision.kv)
    t0_s, pair, new, read, row = forms.prefill_attention_coefficients(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=attention.head_dim,
        t0_s=prefill.t0_s.value,
        compute_eff=prefill.compute_eff.value,
        memory_eff=prefill.memory_eff.value,
        peak_flops=gpu.peak_flops("bf16"),
        bandwidth=bandwidth,
        kv_bytes=precision.kv_bytes,
        io_bytes=ACTIVATION_BYTES,
        head_dim_exponent=prefill.head_dim_exponent.value,
        chain=value_or(prefill.chain, 0.0),
        sms=gpu.sms.value,
    )
    width = heads * attention.head_dim
    return GroupAttention(
        group=group,
        decode=(GroupedDecode(decode, gpu.l2_bytes.value),),
        prefill=PrefillCost(
            t0_s,
            float(pair),
            float(new),
            float(read),
            value_or(prefill.l2_spill, 0.0),
            gpu.l2_bytes.value / (bandwidth * prefill.memory_eff.value),
            float(row),
        ),
        decode_pair_flops=4.0 * width,
        prefill_pair_flops=4.0 * width,
        kv_bytes=group.kv_bytes(precision.kv_bytes, tp),
        decode_io_bytes=2.0 * width * ACTIVATION_BYTES,
        prefill_io_bytes=2.0 * width * ACTIVATION_BYTES,
    )


def _latent(
    group: AttentionGroup,
    attention: MlaAttention,
    gpu: GpuProfile,
    kernels: KernelFamily,
    tp: int,
    precision: Precision,
    projections: Multiply,
) -> GroupAttention:
    """Latent attention; where a profile has no kernels of it, from those of grouped-query heads."""
    heads = attention.heads // tp
    latent = attention.kv_lora_rank
    absorbed = 2 * latent + attention.qk_rope_head_dim  # Q and O of one head, latents
    expanded = attention.qk_head_dim + attention.v_head_dim  # Q and O, or K and V, of one head
    kv = group.kv_bytes(precision.kv_bytes, tp)
    io = heads * absorbed * ACTIVATION_BYTES
    pieces = _latent_decode(attention, gpu, kernels, tp, precision)
    fixed, pair, new, read, row = _latent_prefill(attention, gpu, kernels, tp, precision)
    # the projection of the new tokens' latents is one of the layer's GEMMs; a cached prefix is
    # expanded again, ``read - new`` tokens of it
    wide = attention.qk_nope_head_dim + attention.v_head_dim
    up_peak = (
        gpu.peak_flops(projections.compute) * gemm_params(kernels, projections).compute_eff.value
    )
    again = 2.0 * latent * heads * wide / up_peak
    return GroupAttention(
        group=group,
        decode=pieces,
        prefill=PrefillCost(
            float(fixed),
            float(pair),
            float(new) - again,
            float(read) + again,
            chain_s=float(row),
        ),
        decode_pair_flops=2.0 * heads * absorbed,
        prefill_pair_flops=2.0 * heads * expanded,
        kv_bytes=kv,
        decode_io_bytes=io,
        prefill_io_bytes=heads * expanded * ACTIVATION_BYTES,
    )


def _latent_decode(
    attention: MlaAttention, gpu: GpuProfile, kernels: KernelFamily, tp: int, precision: Precision
) -> tuple[AffineDecode, ...]:
    heads, latent = attention.heads // tp, attention.kv_lora_rank
    rotary, bandwidth = attention.qk_rope_head_dim, gpu.memory_bytes_per_s.value
    if kernels.mla_decode:
        own = for_dtype(kernels.mla_decode, precision.kv)
        fixed, sequence, token = forms.mla_decode_coefficients(
            heads=heads,
            kv_lora_rank=latent,
            qk_rope_head_dim=rotary,
            t0_s=own.t0_s.value,
            sequence_s=own.sequence_s.value,
            compute_eff=own.compute_eff.value,
            memory_eff=own.memory_eff.value,
            p=own.p.value,
            head_tile=own.head_tile.value,
            peak_flops=gpu.peak_flops("bf16"),
            bandwidth=bandwidth,
            kv_bytes=precision.kv_bytes,
            io_bytes=ACTIVATION_BYTES,
            head_s=0.0 if own.head_s is None else own.head_s.value,
        )
        return (AffineDecode(fixed, float(sequence), float(token)),)
    decode = for_dtype(kernels.decode_attention, precision.kv)
    prefill = for_dtype(kernels.prefill_attention, precision.kv)
    memory = bandwidth * decode.memory_eff.value
    absorbed = 2 * latent + rotary
    start = decode.t0_s.value + value_or(decode.split_s, 0.0) + value_or(decode.cold_s, 0.0)
    each = decode.tile_s.value / gpu.sms.value + heads * absorbed * ACTIVATION_BYTES / memory
    read = (latent + rotary) * precision.kv_bytes / memory
    peak = gpu.peak_flops("bf16") * prefill.compute_eff.value
    arithmetic = 2.0 * heads * absorbed / peak
    return undominated(
        AffineDecode(start, each, read), AffineDecode(start, each, arithmetic, "compute")
    )


def _latent_prefill(
    attention: MlaAttention, gpu: GpuProfile, kernels: KernelFamily, tp: int, precision: Precision
) -> tuple[float, Array, Array, Array, Array]:
    """Coefficients of multi-head attention over the expanded heads, in bf16 whatever the cache is."""
    heads, bandwidth = attention.heads // tp, gpu.memory_bytes_per_s.value
    if kernels.mla_prefill:
        own = for_dtype(kernels.mla_prefill, precision.kv)
        return forms.mla_prefill_coefficients(
            heads=heads,
            qk_head_dim=attention.qk_head_dim,
            v_head_dim=attention.v_head_dim,
            t0_s=own.t0_s.value,
            compute_eff=own.compute_eff.value,
            memory_eff=own.memory_eff.value,
            peak_flops=gpu.peak_flops("bf16"),
            bandwidth=bandwidth,
            io_bytes=ACTIVATION_BYTES,
            row_s=0.0 if own.row_s is None else own.row_s.value,
            chain=value_or(own.chain, 0.0),
            sms=gpu.sms.value,
        )
    prefill = for_dtype(kernels.prefill_attention, precision.kv)
    return forms.prefill_attention_coefficients(
        heads=heads,
        kv_heads=heads,
        head_dim=(attention.qk_head_dim + attention.v_head_dim) / 2,
        t0_s=prefill.t0_s.value,
        compute_eff=prefill.compute_eff.value,
        memory_eff=prefill.memory_eff.value,
        peak_flops=gpu.peak_flops("bf16"),
        bandwidth=bandwidth,
        kv_bytes=ACTIVATION_BYTES,
        io_bytes=ACTIVATION_BYTES,
        head_dim_exponent=prefill.head_dim_exponent.value,
        chain=value_or(prefill.chain, 0.0),
        sms=gpu.sms.value,
    )
