"""The kernels of one decoder on one GPU of a tensor-parallel group, with their parameters bound.

A layer is: QKV projection, attention, output projection, all-reduce, gate-and-up projection, down
projection, all-reduce, and a few elementwise kernels. A step is its layers, the LM head on the
sampled rows only, and a framework overhead. Everything here is per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, TypeVar

import numpy as np

from hwprofiles import BusAllReduce, GpuProfile, KernelFamily, NvlinkAllReduce
from simulator.errors import ModelError, ProfileError
from simulator.model import DenseFfn, GqaAttention, ModelSpec
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.precision import Precision

ACTIVATION_BYTES = 2.0
"""Activations and the inputs and outputs of attention are bf16 [bytes]."""

T = TypeVar("T")


class GemmArgs(TypedDict):
    """Keyword arguments of ``forms.gemm_s`` besides the shape."""

    t0_s: float
    peak_flops: float
    bandwidth: float
    compute_eff: float
    memory_eff: float
    p: float
    weight_bytes: float
    input_bytes: float
    output_bytes: float
    quant_eff: float | None
    sustained: float


@dataclass(frozen=True, slots=True)
class Gemm:
    """A matrix multiplication with its weight's shape and its kernel's parameters bound.

    Attributes:
        name: what the breakdown calls it.
        n: columns of the weight on this GPU.
        k: rows of the weight on this GPU.
        args: parameters of the form.
    """

    name: str
    n: int
    k: int
    args: GemmArgs

    def time_s(self, m: Size) -> Array:
        """Time of one call over ``m`` tokens [s]."""
        return forms.gemm_s(m, self.n, self.k, **self.args)

    def traffic_bytes(self, m: float) -> float:
        """Bytes one call moves [bytes]."""
        a = self.args
        inputs, outputs = m * self.k * a["input_bytes"], m * self.n * a["output_bytes"]
        return self.n * self.k * a["weight_bytes"] + inputs + outputs

    def bound(self, m: float) -> str:
        """The largest of its three parts: ``compute``, ``memory`` or ``latency``."""
        a = self.args
        compute, memory = forms.gemm_terms(
            m,
            self.n,
            self.k,
            peak_flops=a["peak_flops"],
            bandwidth=a["bandwidth"],
            compute_eff=a["compute_eff"],
            memory_eff=a["memory_eff"],
            weight_bytes=a["weight_bytes"],
            input_bytes=a["input_bytes"],
            output_bytes=a["output_bytes"],
            sustained=a["sustained"],
        )
        return largest(compute=float(compute), memory=float(memory), latency=a["t0_s"])


def largest(**parts: float) -> str:
    """Name of the largest part; the first named on a tie."""
    return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True, slots=True)
class Operators:
    """All kernels of one model on one GPU type at one tensor-parallel degree and precision.

    Attributes:
        model: the model.
        attention: how its layers attend.
        ffn: their feed-forward part.
        gpu: the GPU profile.
        family: the kernel family in it.
        tp: tensor-parallel degree.
        precision: as asked for.
        compute: type the layers' matrices are multiplied in.
        gemms: the four GEMMs of a layer.
        head: the LM head.
        decode: (fixed, per sequence, per KV token) of decode attention of one layer [s].
        prefill: (fixed, per pair, per new token, per token read) of prefill attention [s].
        bus: parameters of the all-reduce at this degree where it goes over a bus.
    """

    model: ModelSpec
    attention: GqaAttention
    ffn: DenseFfn
    gpu: GpuProfile
    family: KernelFamily
    tp: int
    precision: Precision
    compute: str
    gemms: tuple[Gemm, ...]
    head: Gemm
    decode: tuple[float, float, float]
    prefill: tuple[float, float, float, float]
    bus: BusAllReduce | None

    # ------------------------------------------------------------------ pieces of a layer

    @property
    def elementwise_bytes_per_token(self) -> float:
        """Bytes the elementwise kernels of one layer move per token [bytes/token].

        Two fused add-and-norms (residual and input read, both written: ``4·hidden`` each), rotary
        embedding (Q and K read and written), gated activation (``2·ffn`` read, ``ffn`` written),
        and where the model has it the norm of Q and K (read and written).
        """
        attention, tp = self.attention, self.tp
        q_k = (attention.heads // tp + attention.kv_heads_per_gpu(tp)) * attention.head_dim
        passes = 4 if attention.qk_norm else 2
        return ACTIVATION_BYTES * (8 * self.model.hidden + 3 * self.ffn.width // tp + passes * q_k)

    def elementwise_s(self, m: Size) -> Array:
        """Elementwise kernels of one layer over ``m`` tokens [s]."""
        params = self.family.elementwise
        return forms.elementwise_s(
            np.asarray(m, dtype=np.float64) * self.elementwise_bytes_per_token,
            kernels=params.kernels_per_layer.value,
            t0_s=params.t0_s.value,
            memory_eff=params.memory_eff.value,
            bandwidth=self.gpu.memory_bytes_per_s.value,
        )

    def message_bytes(self, m: Size) -> Array:
        """The tensor one all-reduce sums: ``m`` tokens of the residual stream [bytes]."""
        return np.asarray(m, dtype=np.float64) * self.model.hidden * ACTIVATION_BYTES

    def all_reduce_s(self, m: Size) -> Array:
        """One all-reduce over ``m`` tokens [s]; nothing at TP 1."""
        params, size = self.family.all_reduce, self.message_bytes(m)
        if isinstance(params, NvlinkAllReduce) and self.gpu.nvlink_bytes_per_s is not None:
            return forms.all_reduce_s(
                size,
                self.tp,
                t0_s=params.t0_s.value,
                rank_s=params.rank_s.value,
                one_shot_eff=params.one_shot_eff.value,
                two_shot_s=params.two_shot_s.value,
                two_shot_eff=params.two_shot_eff.value,
                link_bytes_per_s=self.gpu.nvlink_bytes_per_s.value,
            )
        if self.bus is None:
            return np.zeros_like(size)
        return forms.all_reduce_ring_s(
            size,
            self.tp,
            alpha_s=self.bus.alpha_s.value,
            bus_bytes_per_s=self.bus.bus_bytes_per_s.value,
        )

    # ------------------------------------------------------------------ sums over the layers

    def token_s(self, m: Size) -> Array:
        """GEMMs, all-reduces and elementwise kernels of all layers over ``m`` new tokens [s]."""
        layer = 2.0 * self.all_reduce_s(m) + self.elementwise_s(m)
        for gemm in self.gemms:
            layer = layer + gemm.time_s(m)
        return self.model.layers * layer

    def head_s(self, rows: Size) -> Array:
        """The LM head over the sampled rows [s]."""
        return self.head.time_s(rows)


def bind_operators(
    model: ModelSpec,
    gpu: GpuProfile,
    tp: int,
    precision: Precision,
    family: str | None = None,
    sustained: float = 1.0,
) -> Operators:
    """Bind every kernel of a step to its parameters.

    Args:
        model: the model.
        gpu: the GPU profile.
        tp: tensor-parallel degree.
        precision: number formats.
        family: kernel family of the profile; its first when None.
        sustained: share of their efficiency the layers' GEMMs keep in long steps, see
            ``forms.sustained_share`` [1].

    Raises:
        ModelError: ``tp`` does not shard the model, or its layers are of a kind without a form.
        ProfileError: ``tp`` exceeds a node or the profile has no all-reduce for it, or the family
            is unknown.
    """
    attention, ffn = _plain_layer(model)
    model.check_tp(tp)
    kernels = gpu.family(family)
    bus = _check_fabric(gpu, kernels, tp)
    compute = _compute_dtype(kernels, precision)
    static = precision.activations == "static"
    weights = _gemm_args(gpu, kernels, compute, precision.weight_bytes, sustained, static=static)
    head_args = _gemm_args(gpu, kernels, "bf16", ACTIVATION_BYTES)
    kv_heads = attention.kv_heads_per_gpu(tp)
    q_width = attention.heads // tp * attention.head_dim
    return Operators(
        model=model,
        attention=attention,
        ffn=ffn,
        gpu=gpu,
        family=kernels,
        tp=tp,
        precision=precision,
        compute=compute,
        gemms=(
            Gemm("qkv_proj", q_width + 2 * kv_heads * attention.head_dim, model.hidden, weights),
            Gemm("o_proj", model.hidden, q_width, weights),
            Gemm("gate_up_proj", 2 * ffn.width // tp, model.hidden, weights),
            Gemm("down_proj", model.hidden, ffn.width // tp, weights),
        ),
        head=Gemm("lm_head", model.padded_vocab(tp) // tp, model.hidden, head_args),
        decode=_decode_coefficients(attention, gpu, kernels, tp, precision),
        prefill=_prefill_coefficients(attention, gpu, kernels, tp, precision),
        bus=bus,
    )


def _plain_layer(model: ModelSpec) -> tuple[GqaAttention, DenseFfn]:
    """Shapes of a model whose layers are all alike, dense, and attend to everything."""
    first = model.kinds[0]
    attention, ffn = first.attention, first.ffn
    whole = attention.window is None and attention.local_chunk is None
    if (
        len(model.kinds) == 1
        and whole
        and isinstance(attention, GqaAttention)
        and isinstance(ffn, DenseFfn)
    ):
        return attention, ffn
    raise ModelError(
        f"step times of {model.name} ({model.architecture}) are not modelled yet; allowed: models "
        "of equal dense layers with full grouped-query attention."
    )


def for_dtype(pairs: tuple[tuple[str, T], ...], dtype: str) -> T:
    """Parameters for a type; those of bf16 where the profile has none of its own."""
    found = dict(pairs)
    return found.get(dtype, found["bf16"])


def _check_fabric(gpu: GpuProfile, kernels: KernelFamily, tp: int) -> BusAllReduce | None:
    if tp == 1:
        return None
    node = int(gpu.gpus_per_node.value)
    if tp > node:
        raise ProfileError(f"tp: {tp} exceeds one node of {gpu.name}; allowed: up to {node}.")
    if kernels.all_reduce is None:
        raise ProfileError(
            f"{gpu.name}: kernels '{kernels.name}' have no all_reduce, which tp {tp} needs; "
            "allowed: tp 1."
        )
    if isinstance(kernels.all_reduce, NvlinkAllReduce):
        return None
    # The next larger number of GPUs stands in for one that was not measured.
    for entry in kernels.all_reduce:
        if entry.gpus >= tp:
            return entry
    raise ProfileError(
        f"{gpu.name}: kernels.{kernels.name}.all_reduce.bus has no entry for tp {tp}; "
        f"allowed: up to {kernels.all_reduce[-1].gpus}."
    )


def _compute_dtype(kernels: KernelFamily, precision: Precision) -> str:
    """What is asked for, or bf16 where no kernel multiplies in it (weights are then weight-only)."""
    wanted = precision.compute or precision.weights
    return wanted if wanted in dict(kernels.gemm) else "bf16"


def _gemm_args(
    gpu: GpuProfile,
    kernels: KernelFamily,
    compute: str,
    weight_bytes: float,
    sustained: float = 1.0,
    *,
    static: bool = False,
) -> GemmArgs:
    # no table of fp8 kernels without a quantisation kernel: the bf16 kernel's shape stands in
    params = for_dtype(kernels.gemm, "bf16" if static else compute)
    return GemmArgs(
        t0_s=params.t0_s.value,
        peak_flops=gpu.peak_flops(compute),
        bandwidth=gpu.memory_bytes_per_s.value,
        compute_eff=params.compute_eff.value,
        memory_eff=params.memory_eff.value,
        p=params.p.value,
        weight_bytes=weight_bytes,
        input_bytes=1.0 if compute == "fp8" else ACTIVATION_BYTES,
        output_bytes=ACTIVATION_BYTES,
        quant_eff=None if params.quant_eff is None else params.quant_eff.value,
        sustained=sustained,
    )


def _decode_coefficients(
    attention: GqaAttention, gpu: GpuProfile, kernels: KernelFamily, tp: int, precision: Precision
) -> tuple[float, float, float]:
    params = for_dtype(kernels.decode_attention, precision.kv)
    fixed, sequence, token = forms.decode_attention_coefficients(
        heads=attention.heads // tp,
        kv_heads=attention.kv_heads_per_gpu(tp),
        head_dim=attention.head_dim,
        t0_s=params.t0_s.value,
        tile_s=params.tile_s.value,
        memory_eff=params.memory_eff.value,
        bandwidth=gpu.memory_bytes_per_s.value,
        sms=gpu.sms.value,
        kv_bytes=precision.kv_bytes,
        io_bytes=ACTIVATION_BYTES,
    )
    return fixed, float(sequence), float(token)


def _prefill_coefficients(
    attention: GqaAttention, gpu: GpuProfile, kernels: KernelFamily, tp: int, precision: Precision
) -> tuple[float, float, float, float]:
    params = for_dtype(kernels.prefill_attention, precision.kv)
    fixed, pair, new, read = forms.prefill_attention_coefficients(
        heads=attention.heads // tp,
        kv_heads=attention.kv_heads_per_gpu(tp),
        head_dim=attention.head_dim,
        t0_s=params.t0_s.value,
        compute_eff=params.compute_eff.value,
        memory_eff=params.memory_eff.value,
        peak_flops=gpu.peak_flops("bf16"),
        bandwidth=gpu.memory_bytes_per_s.value,
        kv_bytes=precision.kv_bytes,
        io_bytes=ACTIVATION_BYTES,
        head_dim_exponent=params.head_dim_exponent.value,
    )
    return fixed, float(pair), float(new), float(read)
