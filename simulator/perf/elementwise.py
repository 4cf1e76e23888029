"""Kernels that only move bytes: norms, residual sums, rotary embedding, gated activation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwprofiles import ElementwiseParams, GpuProfile
from simulator.model import Attention, DenseFfn, Ffn, GqaAttention, LayerKind
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import ACTIVATION_BYTES, largest


@dataclass(frozen=True, slots=True)
class Elementwise:
    """All elementwise kernels of one layer.

    Attributes:
        gpu: the GPU.
        params: of the kernel family.
        bytes_per_token: bytes they move for a token [bytes/token].
        calls: layers like this one; ``kernels_per_layer`` are launched in each.
        name: ``elementwise``.
    """

    gpu: GpuProfile
    params: ElementwiseParams
    bytes_per_token: float
    calls: float = 1
    name: str = "elementwise"

    @property
    def kernels(self) -> float:
        """Kernels of one layer."""
        return self.params.kernels_per_layer.value

    def time_s(self, m: Size) -> Array:
        """Time of one layer's over ``m`` tokens [s]."""
        return forms.elementwise_s(
            np.asarray(m, dtype=np.float64) * self.bytes_per_token,
            kernels=self.params.kernels_per_layer.value,
            t0_s=self.params.t0_s.value,
            memory_eff=self.params.memory_eff.value,
            bandwidth=self.gpu.memory_bytes_per_s.value,
        )

    def flops(self, m: float) -> float:
        """Not counted [FLOP]."""
        return 0.0

    def traffic_bytes(self, m: float) -> float:
        """Bytes one layer's move [bytes]."""
        return m * self.bytes_per_token

    def bound(self, m: float) -> str:
        """``memory`` or ``latency``."""
        fixed = self.params.kernels_per_layer.value * self.params.t0_s.value
        return largest(memory=float(self.time_s(m)) - fixed, latency=fixed)


def layer_bytes_per_token(kind: LayerKind, hidden: int, tp: int) -> float:
    """Bytes the elementwise kernels of a layer move per token on each GPU [bytes/token].

    Two fused add-and-norms (residual and input read, both written: ``4·hidden`` each), what
    attention needs, and the gated activation of dense FFN or shared experts (``2·width`` read,
    ``width`` written); that of routed experts belongs to their kernel.
    """
    return ACTIVATION_BYTES * (
        8 * hidden + _activation(kind.ffn, tp) + _rotated(kind.attention, tp)
    )


def _activation(ffn: Ffn, tp: int) -> int:
    width = ffn.width if isinstance(ffn, DenseFfn) else ffn.shared_width
    return 3 * width // tp


def _rotated(attention: Attention, tp: int) -> int:
    """Q and K read and written by the rotary embedding, and by norms where the model has them."""
    if isinstance(attention, GqaAttention):
        heads = attention.heads // tp + attention.kv_heads_per_gpu(tp)
        return (4 if attention.qk_norm else 2) * heads * attention.head_dim
    latents = (attention.q_lora_rank or 0) + attention.kv_lora_rank
    rotary = (attention.heads // tp + 1) * attention.qk_rope_head_dim
    return 2 * (latents + rotary)
