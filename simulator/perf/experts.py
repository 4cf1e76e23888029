"""The routed experts of a mixture: two grouped GEMMs on one GPU, over the tokens of all ranks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from hwprofiles import GpuProfile, KernelFamily, MoeParams, Param
from simulator.model import FORMAT_BYTES, MoeFfn, Parallel
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import ACTIVATION_BYTES, Gemm, Multiply, bind_gemm, largest
from simulator.perf.routing import Routing

KERNELS = 4
"""Small kernels around the grouped GEMMs: choice of the experts, sort of their tokens, activation,
weighted sum [1]. Assumed: as in the fused experts of vLLM and SGLang."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Parameters of ``forms.moe_gemm_s`` where the profile has the kernels of this layer.

    Attributes:
        t0_s: fixed cost of all kernels of the layer [s].
        expert_s: fixed cost of an expert visited [s].
        compute_eff: fraction of ``peak_flops`` reached [1].
        memory_eff: fraction of ``bandwidth`` reached [1].
        p: sharpness of the corner [1].
        tile_rows: rows of padding an expert visited costs [1].
        own_passes: passes over the activations of the rank's own pairs [1].
        all_passes: passes over the outputs of the pairs of all ranks [1].
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        weight_bytes: bytes of a weight, scales included [bytes].
        sustained: share of the compute efficiency kept in long steps [1].
        untuned_compute: share of ``compute_eff`` kept by shapes not in ``tuned`` [1].
        untuned_memory: share of ``memory_eff`` kept by them [1].
        foreign_rows: share of a visitor's pairs for other ranks computed [1].
        tuned: (experts on the rank, width) with tiles of their own; None: all shapes.
        tiles: rows of the tiles the kernel chooses from [1]; None: it pads by ``tile_rows``.
    """

    t0_s: float
    expert_s: float
    compute_eff: float
    memory_eff: float
    p: float
    tile_rows: float
    own_passes: float
    all_passes: float
    peak_flops: float
    bandwidth: float
    weight_bytes: float
    sustained: float
    untuned_compute: float = 1.0
    untuned_memory: float = 1.0
    foreign_rows: float = 0.0
    tuned: tuple[tuple[int, int], ...] | None = None
    tiles: tuple[int, ...] | None = None

    @classmethod
    def of(cls, params: MoeParams, gpu: GpuProfile, how: Multiply, sustained: float) -> Measured:
        """The parameters of a profile, for one GPU and format."""
        return cls(
            t0_s=params.t0_s.value,
            expert_s=params.expert_s.value,
            compute_eff=params.compute_eff.value,
            memory_eff=params.memory_eff.value,
            p=params.p.value,
            tile_rows=params.tile_rows.value,
            own_passes=params.own_passes.value,
            all_passes=params.all_passes.value,
            peak_flops=gpu.peak_flops(how.compute),
            bandwidth=gpu.memory_bytes_per_s.value,
            weight_bytes=FORMAT_BYTES[how.stored],
            sustained=sustained,
            untuned_compute=_value(params.untuned_compute, 1.0),
            untuned_memory=_value(params.untuned_memory, 1.0),
            foreign_rows=_value(params.foreign_rows, 0.0),
            tuned=params.tuned,
            tiles=params.tiles,
        )

    def time_s(self, tokens: Array, routing: Routing, hidden: int, width: int) -> Array:
        """Time of a layer [s].

        Args:
            tokens: tokens of all ranks [1].
            routing: how they are spread.
            hidden: width of the residual stream [1].
            width: inner width of an expert on this rank [1].
        """
        given = asdict(self)
        rows = routing.rows(tokens)
        share = forms.sustained_share(rows, given.pop("sustained"))
        peak, tuned, tiles = given.pop("peak_flops") * share, given.pop("tuned"), given.pop("tiles")
        pairs = tokens * routing.per_token
        return forms.moe_gemm_s(
            rows,
            routing.distinct(tokens),
            pairs,
            hidden=hidden,
            width=width,
            peak_flops=peak,
            tile=0.0 if tiles is None else forms.chosen_tile(pairs / routing.local, tiles),
            untuned=forms.default_tiles(tokens, local=routing.local, width=width, tuned=tuned),
            slots=routing.visits(tokens) * routing.per_token,
            **given,
        )


def _value(param: Param | None, neutral: float) -> float:
    return neutral if param is None else param.value


@dataclass(frozen=True, slots=True)
class Experts:
    """The routed experts of one layer, on the GPU that waits for nobody.

    Weights are read once for each expert that any token visits; arithmetic is that of every
    (token, expert) pair. Under expert parallelism both are those of the busiest group
    (``Routing``), whose end the layer waits for.

    Attributes:
        name: ``experts``.
        routing: how tokens are spread.
        gate_up: the first GEMM of one expert, its cut on this GPU.
        down: the second.
        kernel_s: fixed cost of a small kernel [s].
        memory: memory bandwidth small kernels reach [bytes/s].
        measured: parameters of the whole layer, where the profile has them; the other ones then
            only count bytes and FLOPs.
        calls: layers.
    """

    name: str
    routing: Routing
    gate_up: Gemm
    down: Gemm
    kernel_s: float
    memory: float
    measured: Measured | None = None
    calls: float = 1

    @property
    def kernels(self) -> float:
        """Two grouped GEMMs and the small ones."""
        return KERNELS + 2

    def time_s(self, m: Size) -> Array:
        """Time of one layer's over ``m`` tokens of all ranks [s]."""
        t = np.asarray(m, dtype=np.float64)
        if self.measured is not None:
            return self.measured.time_s(t, self.routing, self.gate_up.k, self.down.k)
        rows, distinct = self.routing.rows(t), self.routing.distinct(t)
        time = KERNELS * self.kernel_s + self._moved(rows) / self.memory
        for gemm in (self.gate_up, self.down):
            time = time + _grouped(gemm, distinct).time_s(rows)
        return np.where(t > 0.0, time, 0.0)

    def _moved(self, rows: Array) -> Array:
        """Activation (gate and up in, product out) and weighted sum of what comes out [bytes]."""
        return rows * (1.5 * self.gate_up.n + self.down.n) * ACTIVATION_BYTES

    def flops(self, m: float) -> float:
        """Arithmetic of one layer's on the busiest GPU [FLOP]."""
        rows = float(self.routing.rows(m))
        return self.gate_up.flops(rows) + self.down.flops(rows)

    def traffic_bytes(self, m: float) -> float:
        """Bytes one layer's move on the busiest GPU [bytes]."""
        rows, distinct = self.routing.rows(m), self.routing.distinct(m)
        moved = sum(
            _grouped(gemm, distinct).traffic_bytes(float(rows))
            for gemm in (self.gate_up, self.down)
        )
        return float(self._moved(rows)) + moved

    def bound(self, m: float) -> str:
        """The larger of ``compute`` and ``memory``, or ``latency``."""
        rows, distinct = self.routing.rows(m), self.routing.distinct(m)
        parts = {"compute": 0.0, "memory": 0.0, "latency": KERNELS * self.kernel_s}
        for gemm in (self.gate_up, self.down):
            compute, memory = _grouped(gemm, distinct).terms(float(rows))
            parts["compute"] += compute
            parts["memory"] += memory
            parts["latency"] += gemm.args["t0_s"]
        return largest(**parts)


def _grouped(gemm: Gemm, distinct: Array) -> Gemm:
    """A GEMM that reads so many weights of its shape: those of the experts visited."""
    weight = gemm.args["weight_bytes"] * distinct
    return replace(gemm, args={**gemm.args, "weight_bytes": weight})  # type: ignore[typeddict-item]  # an array


def bind_experts(
    ffn: MoeFfn,
    hidden: int,
    gpu: GpuProfile,
    kernels: KernelFamily,
    parallel: Parallel,
    how: Multiply,
    skew: float,
    sustained: float,
) -> Experts:
    """Bind the routed experts of a layer to the parameters of their kernels.

    Args:
        ffn: the mixture.
        hidden: width of the residual stream.
        gpu: the GPU.
        kernels: the kernel family.
        parallel: how the experts are spread.
        how: how their matrices are multiplied.
        skew: Zipf exponent of the experts' popularity.
        sustained: share of their efficiency GEMMs keep in long steps [1].
    """
    width = ffn.expert_width // parallel.moe_tp
    elementwise = kernels.elementwise
    params = moe_params(kernels, how)
    return Experts(
        name="experts",
        routing=Routing.of(ffn, parallel.ep, skew),
        gate_up=bind_gemm(gpu, kernels, how, "expert_gate_up", 2 * width, hidden, sustained),
        down=bind_gemm(gpu, kernels, how, "expert_down", hidden, width, sustained),
        kernel_s=elementwise.t0_s.value,
        memory=elementwise.memory_eff.value * gpu.memory_bytes_per_s.value,
        measured=None if params is None else Measured.of(params, gpu, how, sustained),
    )


def moe_params(kernels: KernelFamily, how: Multiply) -> MoeParams | None:
    """Parameters of the experts' kernels: of the format, of the compute type, or of bf16's.

    Weights read as int4 and multiplied in bf16 have kernels of their own too. mxfp4 takes those of
    bf16: the benchmarks of its kernels are 10-40 % slower than engines decode gpt-oss end to end.
    """
    known = dict(kernels.moe)
    only = f"{how.stored.split('_')[0]}_weight_only"  # int4, whatever its groups
    names = (how.stored, how.compute) if how.compute != "bf16" else (only,)
    return next((known[name] for name in (*names, "bf16") if name in known), None)
