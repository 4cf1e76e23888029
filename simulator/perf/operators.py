"""The kernels of one decoder on one GPU of an instance, with their parameters bound.

A model is layers of a few kinds, each a list of operators:

- grouped-query attention: QKV projection, attention, output projection;
- latent attention: projection into the latents, projections out of them, attention, output
  projection;
- a dense FFN: gate-and-up projection, down projection;
- a mixture of experts: router, shared experts as a dense FFN, routed experts;
- an all-reduce after attention and one after the FFN, and a few elementwise kernels.

A step is its layers, the LM head on the sampled rows only, and a framework overhead. Everything here
is per GPU; with pipeline stages it is the pass through all of them. Equal operators of different
kinds of layers are one operator with more calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hwprofiles import GpuProfile, KernelFamily
from simulator.model import (
    DenseFfn,
    GqaAttention,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    Parallel,
)
from simulator.perf.attention import GroupAttention, bind_attention
from simulator.perf.elementwise import Elementwise, layer_bytes_per_token
from simulator.perf.experts import Experts, bind_experts
from simulator.perf.fabric import AllReduce, Fabric, Send, exchange, hop
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import Gemm, Multiply, TokenOperator, bind_gemm, multiply
from simulator.perf.precision import Compute, Precision

Operator = Gemm | AllReduce | Elementwise | Experts | Send


@dataclass(frozen=True, slots=True)
class Multiplies:
    """How the matrices of each part of the model are multiplied.

    Attributes:
        attention: projections of attention.
        ffn: dense FFN and shared experts.
        experts: routed experts.
        plain: what stays bf16: router and LM head.
    """

    attention: Multiply
    ffn: Multiply
    experts: Multiply
    plain: Multiply


@dataclass(frozen=True, slots=True)
class Operators:
    """All kernels of one model on one GPU type, for one parallelism and precision.

    Attributes:
        model: the model.
        gpu: the GPU profile.
        family: the kernel family in it.
        parallel: how an instance spreads the model.
        precision: as asked for.
        how: how each part's matrices are multiplied.
        tokens: operators over the new tokens of an attention rank; with one rank, all of them.
        joint: operators over the new tokens of all attention ranks together: routed experts and
            their exchange; empty with one rank.
        head: the LM head.
        attention: attention, by group.
    """

    model: ModelSpec
    gpu: GpuProfile
    family: KernelFamily
    parallel: Parallel
    precision: Precision
    how: Multiplies
    tokens: tuple[TokenOperator, ...]
    joint: tuple[TokenOperator, ...]
    head: Gemm
    attention: tuple[GroupAttention, ...]

    @property
    def compute(self) -> Compute:
        """Type in which most of a token's matrices are multiplied."""
        weight: dict[Compute, float] = {}
        for kind in self.model.kinds:
            for how, linear in _active(kind, self.model.hidden, self.how):
                weight[how.compute] = weight.get(how.compute, 0.0) + kind.count * linear
        return max(weight, key=lambda name: weight[name])

    @property
    def peak_flops(self) -> float:
        """Dense peak of a GPU in that type [FLOP/s]."""
        return self.gpu.peak_flops(self.compute)

    def token_s(self, m: Size) -> Array:
        """Operators over ``m`` new tokens of an attention rank, attention and head apart [s]."""
        return _sum(self.tokens, m)

    def joint_s(self, m: Size) -> Array:
        """Operators over ``m`` new tokens of all attention ranks together [s]."""
        return _sum(self.joint, m)

    def head_s(self, rows: Size) -> Array:
        """The LM head over the sampled rows [s]."""
        return self.head.time_s(rows)


def _sum(operators: tuple[TokenOperator, ...], m: Size) -> Array:
    total = np.zeros(np.shape(m))
    for operator in operators:
        total = total + operator.calls * operator.time_s(m)
    return np.asarray(total, dtype=np.float64)


def _active(kind: LayerKind, hidden: int, how: Multiplies) -> Iterator[tuple[Multiply, float]]:
    """Weights one token is multiplied with in a layer, by how."""
    yield how.attention, kind.attention.linear(hidden)
    if isinstance(kind.ffn, DenseFfn):
        yield how.ffn, kind.ffn.linear(hidden)
    else:
        yield how.ffn, kind.ffn.shared(hidden)
        yield how.experts, kind.ffn.experts_per_token * kind.ffn.expert(hidden)


def bind_operators(
    model: ModelSpec,
    gpu: GpuProfile,
    parallel: Parallel,
    precision: Precision,
    family: str | None = None,
    skew: float = 0.0,
    sustained: tuple[float, float] = (1.0, 1.0),
    sustained_attention: float = 1.0,
) -> Operators:
    """Bind every kernel of a step to its parameters.

    Args:
        model: the model.
        gpu: the GPU profile.
        parallel: how an instance spreads the model.
        precision: number formats.
        family: kernel family of the profile; its first when None.
        skew: Zipf exponent of the experts' popularity; 0: uniform routing.
        sustained: share of their efficiency the layers' GEMMs keep in long steps, and that of the
            routed experts, see ``forms.sustained_share`` [1].
        sustained_attention: share of its bandwidth grouped-query decode attention keeps [1].

    Raises:
        ModelError: ``parallel`` does not shard the model.
        ProfileError: ``tp`` exceeds a node or the profile has no all-reduce for it, or the family
            is unknown.
    """
    model.check_parallel(parallel)
    kernels = gpu.family(family)
    fabric = Fabric(gpu, kernels, parallel)
    fabric.check()
    formats = precision.formats
    how = Multiplies(
        attention=multiply(gpu, kernels, precision, formats.attention),
        ffn=multiply(gpu, kernels, precision, formats.ffn),
        experts=multiply(gpu, kernels, precision, formats.experts),
        plain=multiply(gpu, kernels, precision, "bf16"),
    )
    layers = _Layers(model, gpu, kernels, fabric, how, skew, sustained)
    tokens, joint = layers.bind()
    columns = model.padded_vocab(parallel.tp) // parallel.tp
    return Operators(
        model=model,
        gpu=gpu,
        family=kernels,
        parallel=parallel,
        precision=precision,
        how=how,
        tokens=tokens,
        joint=joint,
        head=bind_gemm(gpu, kernels, how.plain, "lm_head", columns, model.hidden),
        attention=tuple(
            bind_attention(
                group,
                gpu,
                kernels,
                parallel.tp,
                precision,
                how.attention,
                sustained=sustained_attention,
            )
            for group in model.attention_groups
        ),
    )


@dataclass(frozen=True, slots=True)
class _Layers:
    """The operators of a model's layers, but for attention."""

    model: ModelSpec
    gpu: GpuProfile
    kernels: KernelFamily
    fabric: Fabric
    how: Multiplies
    skew: float
    sustained: tuple[float, float]

    def bind(self) -> tuple[tuple[TokenOperator, ...], tuple[TokenOperator, ...]]:
        """Operators over a rank's tokens, and over the tokens of all ranks."""
        tokens: list[Operator] = []
        joint: list[Operator] = []
        lockstep = self.fabric.parallel.attention_dp > 1
        for kind in self.model.kinds:
            for operator in self._projections(kind):
                _add(tokens, operator, kind.count)
            if isinstance(kind.ffn, MoeFfn):
                for operator in self._routed(kind.ffn):
                    _add(joint if lockstep else tokens, operator, kind.count)
        for kind in self.model.kinds:
            for operator in self._around(kind):
                _add(tokens, operator, kind.count)
        sent = hop(self.model, self.fabric)
        return (*tokens, *(() if sent is None else (sent,))), tuple(joint)

    def _gemm(self, how: Multiply, name: str, n: int, k: int) -> Gemm:
        return bind_gemm(self.gpu, self.kernels, how, name, n, k, self.sustained[0])

    def _projections(self, kind: LayerKind) -> Iterator[Operator]:
        attention, ffn = kind.attention, kind.ffn
        if isinstance(attention, GqaAttention):
            yield from self._grouped(attention)
        else:
            yield from self._latent(attention)
        if isinstance(ffn, DenseFfn):
            yield from self._ffn("", ffn.width)
            return
        gate = 1 if ffn.shared_gate else 0
        yield self._gemm(self.how.plain, "router", ffn.experts + gate, self.model.hidden)
        if ffn.shared_width:
            yield from self._ffn("shared_", ffn.shared_width)

    def _grouped(self, attention: GqaAttention) -> Iterator[Operator]:
        tp, hidden = self.fabric.parallel.tp, self.model.hidden
        queries = attention.heads // tp * attention.head_dim
        keys = attention.kv_heads_per_gpu(tp) * attention.head_dim
        yield self._gemm(self.how.attention, "qkv_proj", queries + 2 * keys, hidden)
        yield self._gemm(self.how.attention, "o_proj", hidden, queries)

    def _latent(self, attention: MlaAttention) -> Iterator[Operator]:
        """Projections of latent attention.

        Decode folds the up-projection of K into the query and that of V into the output, head by
        head: the same weights and the same arithmetic as ``kv_b_proj``, which stands for both.
        """
        tp, hidden = self.fabric.parallel.tp, self.model.hidden
        heads, how = attention.heads // tp, self.how.attention
        latent = attention.kv_lora_rank + attention.qk_rope_head_dim
        queries = heads * attention.qk_head_dim
        if attention.q_lora_rank is None:
            yield self._gemm(how, "qkv_a_proj", queries + latent, hidden)
        else:
            yield self._gemm(how, "qkv_a_proj", attention.q_lora_rank + latent, hidden)
            yield self._gemm(how, "q_b_proj", queries, attention.q_lora_rank)
        wide = attention.qk_nope_head_dim + attention.v_head_dim
        yield self._gemm(how, "kv_b_proj", heads * wide, attention.kv_lora_rank)
        yield self._gemm(how, "o_proj", hidden, heads * attention.v_head_dim)

    def _ffn(self, prefix: str, width: int) -> Iterator[Operator]:
        tp, hidden = self.fabric.parallel.tp, self.model.hidden
        yield self._gemm(self.how.ffn, f"{prefix}gate_up_proj", 2 * width // tp, hidden)
        yield self._gemm(self.how.ffn, f"{prefix}down_proj", hidden, width // tp)

    def _routed(self, ffn: MoeFfn) -> Iterator[Operator]:
        parallel = self.fabric.parallel
        experts = bind_experts(
            ffn,
            self.model.hidden,
            self.gpu,
            self.kernels,
            parallel,
            self.how.experts,
            self.skew,
            self.sustained[1],
        )
        if parallel.attention_dp == 1:
            yield experts
            return
        inputs = experts.gate_up.args["input_bytes"]
        there, back = exchange(self.model, ffn, self.fabric, self.skew, inputs)
        yield there
        yield experts
        yield back

    def _around(self, kind: LayerKind) -> Iterator[Operator]:
        """All-reduces and elementwise kernels."""
        parallel, hidden = self.fabric.parallel, self.model.hidden
        if parallel.tp > 1:
            # the exchange of the experts' tokens sums their outputs, but not the shared experts'
            exchanged = isinstance(kind.ffn, MoeFfn) and parallel.attention_dp > 1
            alone = exchanged and not (isinstance(kind.ffn, MoeFfn) and kind.ffn.shared_width)
            reduce = AllReduce("all_reduce", self.fabric, parallel.tp, hidden)
            yield replace(reduce, calls=1 if alone else 2)
        moved = layer_bytes_per_token(kind, hidden, parallel.tp)
        yield Elementwise(self.gpu, self.kernels.elementwise, moved)


def _add(operators: list[Operator], operator: Operator, layers: int) -> None:
    """Add a layer's operator, for so many layers, to an equal one if there is one."""
    calls = operator.calls * layers
    for i, known in enumerate(operators):
        if type(known) is type(operator) and replace(known, calls=operator.calls) == operator:
            operators[i] = replace(known, calls=known.calls + calls)
            return
    operators.append(replace(operator, calls=calls))
