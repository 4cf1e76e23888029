"""Decode attention of one layer on one GPU as a step takes it: affine in the KV tokens read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np

from hwprofiles import DecodeAttentionParams, GpuProfile, KernelFamily
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.forms.arrays import as_float
from simulator.perf.kernels import ACTIVATION_BYTES, for_dtype, value_or

USUAL_CONTEXT = 2048.0
"""Context of a served sequence where only the batch is known: says how cold a small KV cache is, and
nothing else [tokens]."""


class DecodePiece(Protocol):
    """One layer's decode attention of ``B`` sequences, affine in the KV tokens ``S`` they read."""

    @property
    def bound(self) -> str:
        """What a token's time is: ``memory`` or ``compute``."""
        ...

    def start_s(self, batch: Array) -> Array:
        """What does not depend on the context [s]."""
        ...

    def token_s(self, batch: Array) -> Array:
        """Per KV token read [s/token]."""
        ...


class DecodeArgs(TypedDict):
    """Arguments of ``forms.decode_attention_s`` besides the batch and its contexts."""

    heads: Size
    kv_heads: Size
    head_dim: Size
    t0_s: float
    tile_s: float
    memory_eff: float
    bandwidth: float
    sms: float
    kv_bytes: float
    io_bytes: float
    terms: forms.DecodeTerms


@dataclass(frozen=True, slots=True)
class GroupedDecode:
    """Grouped-query decode attention: ``forms.decode_attention_s`` of contexts longer than a block.

    First touches of memory cost ``cold_s`` once a KV cache outgrows the L2; a smaller one is taken
    to pay in proportion, ``USUAL_CONTEXT`` tokens a sequence.

    Attributes:
        args: its parameters.
        l2_bytes: last-level cache [bytes].
        bound: it reads.
    """

    args: DecodeArgs
    l2_bytes: float
    bound: str = "memory"

    def start_s(self, batch: Array) -> Array:
        """What does not depend on the context [s]."""
        a = self.args
        sequence_bytes = (
            2.0 * USUAL_CONTEXT * a["kv_bytes"] * as_float(a["kv_heads"]) * as_float(a["head_dim"])
        )
        cold = np.minimum(1.0, batch * sequence_bytes / self.l2_bytes)
        return forms.decode_attention_coefficients(batch, **a, cold=cold)[0]

    def token_s(self, batch: Array) -> Array:
        """Per KV token read [s/token]."""
        return forms.decode_attention_coefficients(batch, **self.args)[1]


@dataclass(frozen=True, slots=True)
class AffineDecode:
    """Decode attention ``fixed + sequence·B + token·S``.

    Attributes:
        fixed_s: per layer [s].
        sequence_s: per decoding sequence [s].
        kv_token_s: per KV token read [s].
        bound: what a token's time is: ``memory`` or ``compute``.
    """

    fixed_s: float
    sequence_s: float
    kv_token_s: float
    bound: str = "memory"

    def start_s(self, batch: Array) -> Array:
        """What does not depend on the context [s]."""
        return np.asarray(self.fixed_s + self.sequence_s * batch)

    def token_s(self, batch: Array) -> Array:
        """Per KV token read [s/token]."""
        return np.full_like(batch, self.kv_token_s, dtype=np.float64)


def decode_args(
    gpu: GpuProfile,
    kernels: KernelFamily,
    heads: tuple[Size, Size, Size],
    kv: str,
    kv_bytes: float,
) -> DecodeArgs:
    """Arguments of ``forms.decode_attention_s`` besides the batch and its contexts.

    Args:
        gpu: the GPU.
        kernels: the kernel family.
        heads: query heads and KV heads on this GPU, and their width.
        kv: type of the KV cache, as profiles name it.
        kv_bytes: of one stored number [bytes].
    """
    params = for_dtype(kernels.decode_attention, kv)
    return DecodeArgs(
        heads=heads[0],
        kv_heads=heads[1],
        head_dim=heads[2],
        t0_s=params.t0_s.value,
        tile_s=params.tile_s.value,
        memory_eff=params.memory_eff.value,
        bandwidth=gpu.memory_bytes_per_s.value,
        sms=gpu.sms.value,
        kv_bytes=kv_bytes,
        io_bytes=ACTIVATION_BYTES,
        terms=decode_terms(params),
    )


def decode_terms(params: DecodeAttentionParams) -> forms.DecodeTerms:
    """The optional costs of a decode kernel that a profile gives."""
    return forms.DecodeTerms(
        split_s=value_or(params.split_s, 0.0),
        split_fill=value_or(params.split_fill, 0.0),
        gather_s=value_or(params.gather_s, 0.0),
        cold_s=value_or(params.cold_s, 0.0),
        fill_s=None if params.fill_s is None else params.fill_s.value,
        wave_exponent=value_or(params.wave_exponent, 0.0),
        block_s=value_or(params.block_s, 0.0),
    )
