"""A GPU as the step-time model sees it: a data sheet, and the kernels measured on it.

All objects are frozen and hashable, so a profile can key a cache and travel to a worker process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from hwprofiles import schema
from hwprofiles.joint import Correlations
from hwprofiles.param import Param
from simulator.errors import ProfileError, suggest

Ranges = tuple[tuple[str, float, float], ...]
"""(size, smallest, largest) of the measurements parameters were fitted to; beyond them they
extrapolate. Empty: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmParams:
    """Matrix multiplication of one compute type; fields in ``schema.GEMM``."""

    t0_s: Param
    compute_eff: Param
    memory_eff: Param
    p: Param
    quant_eff: Param | None = None
    k_ramp: Param | None = None
    wave_exponent: Param | None = None
    wave_limit: Param | None = None
    row_tile: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeAttentionParams:
    """Decode attention over a KV cache of one type; fields in ``schema.DECODE_ATTENTION``."""

    t0_s: Param
    tile_s: Param
    memory_eff: Param
    split_s: Param | None = None
    split_fill: Param | None = None
    gather_s: Param | None = None
    cold_s: Param | None = None
    fill_s: Param | None = None
    wave_exponent: Param | None = None
    block_s: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillAttentionParams:
    """Prefill attention over a KV cache of one type; fields in ``schema.PREFILL_ATTENTION``."""

    t0_s: Param
    compute_eff: Param
    memory_eff: Param
    head_dim_exponent: Param
    l2_spill: Param | None = None
    chain: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NvlinkAllReduce:
    """One-shot or two-shot all-reduce over NVLink; fields in ``schema.NVLINK_ALL_REDUCE``."""

    t0_s: Param
    rank_s: Param
    one_shot_eff: Param
    two_shot_s: Param
    two_shot_eff: Param
    large_s: Param | None = None
    ring_eff: Param | None = None
    switch_eff: Param | None = None
    custom_bytes: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BusAllReduce:
    """All-reduce over a shared bus for one number of GPUs; fields in ``schema.BUS_ALL_REDUCE``."""

    gpus: int
    alpha_s: Param
    bus_bytes_per_s: Param
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementwiseParams:
    """Norms, activations, rotary embedding; fields in ``schema.ELEMENTWISE``."""

    t0_s: Param
    memory_eff: Param
    kernels_per_layer: Param


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeParams:
    """Grouped GEMMs of routed experts in one format; fields in ``schema.MOE``."""

    t0_s: Param
    expert_s: Param
    compute_eff: Param
    memory_eff: Param
    p: Param
    tile_rows: Param
    own_passes: Param
    all_passes: Param
    untuned_compute: Param | None = None
    untuned_memory: Param | None = None
    foreign_rows: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()
    tuned: tuple[tuple[int, int], ...] | None = None
    """(experts on the rank, width) the engine ships tiles for; None: all shapes have theirs."""
    tiles: tuple[int, ...] | None = None
    """Rows of the tiles the kernel chooses from by rows per expert; None: ``tile_rows`` of padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaDecodeParams:
    """Absorbed latent attention over a cache of one type; fields in ``schema.MLA_DECODE``."""

    t0_s: Param
    sequence_s: Param
    compute_eff: Param
    memory_eff: Param
    p: Param
    head_tile: Param
    head_s: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaPrefillParams:
    """Latent attention of prompts over a cache of one type; fields in ``schema.MLA_PREFILL``."""

    t0_s: Param
    compute_eff: Param
    memory_eff: Param
    row_s: Param | None = None
    chain: Param | None = None
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllToAllParams:
    """All-to-all within a node; fields in ``schema.ALL_TO_ALL``."""

    t0_s: Param
    rank_s: Param
    eff: Param
    error: Param | None = None
    ranges: Ranges = ()
    correlations: Correlations = ()


AllReduceParams = NvlinkAllReduce | tuple[BusAllReduce, ...]
"""Either one set for any number of GPUs, or one set per number of GPUs, ascending."""


TYPED = ("gemm", "decode_attention", "prefill_attention", "moe", "mla_decode", "mla_prefill")
"""Operators whose parameters are given per type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFamily:
    """The kernels of one serving engine on one GPU; per type where the type matters.

    Attributes:
        name: e.g. ``"vllm"``.
        gemm: (compute type, parameters) pairs.
        decode_attention: (KV type, parameters) pairs.
        prefill_attention: (KV type, parameters) pairs.
        all_reduce: intra-node all-reduce; None when only single-GPU instances were characterised.
        elementwise: everything that only moves bytes.
        moe: (compute type, parameters) pairs of routed experts; empty where none were measured.
        mla_decode: (KV type, parameters) pairs of latent attention; empty where none were measured.
        mla_prefill: the same of prompts.
        all_to_all: intra-node all-to-all; None where it was not measured.
    """

    name: str
    gemm: tuple[tuple[str, GemmParams], ...]
    decode_attention: tuple[tuple[str, DecodeAttentionParams], ...]
    prefill_attention: tuple[tuple[str, PrefillAttentionParams], ...]
    elementwise: ElementwiseParams
    all_reduce: AllReduceParams | None = None
    moe: tuple[tuple[str, MoeParams], ...] = ()
    mla_decode: tuple[tuple[str, MlaDecodeParams], ...] = ()
    mla_prefill: tuple[tuple[str, MlaPrefillParams], ...] = ()
    all_to_all: AllToAllParams | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrowing:
    """Whose kernels a GPU without measurements of its own runs with.

    Attributes:
        lender: the calibrated GPU its kernels come from.
        all_reduce_lender: where its all-reduce comes from, when another GPU; else None.
        note: what the reader should know besides; empty for nothing.
        errors: (operator, lowest, highest) mean relative error that borrowing cost where it could
            be checked.
    """

    lender: str
    all_reduce_lender: str | None
    note: str
    errors: tuple[tuple[str, float, float], ...]

    def sentence(self, name: str) -> str:
        """What every report says of this GPU, called ``name`` there."""
        ranges = [
            f"{100 * low:.0f}-{100 * high:.0f} % for {operator.replace('_', ' ')}"
            for operator, low, high in self.errors
        ]
        bus = f", its all-reduce from {self.all_reduce_lender}" if self.all_reduce_lender else ""
        note = f" {self.note}" if self.note else ""
        return (
            f"{name} is not calibrated: its kernel efficiencies are borrowed from "
            f"{self.lender}{bus}; between calibrated GPUs that cost errors of "
            f"{', '.join(ranges[:-1])} and {ranges[-1]}.{note}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """A GPU type. Data-sheet fields are described in ``schema.GPU``.

    Attributes:
        name: canonical name.
        aliases: other names it answers to.
        description: one line for reports.
        kernels: kernel families; the first is the default.
        borrowing: whose kernels these are; None when they were fitted to this GPU.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    memory_bytes: Param
    memory_bytes_per_s: Param
    l2_bytes: Param
    sms: Param
    bf16_flops: Param
    pcie_bytes_per_s: Param
    nic_bytes_per_s: Param
    gpus_per_node: Param
    tdp_w: Param
    kernels: tuple[KernelFamily, ...]
    fp8_flops: Param | None = None
    fp4_flops: Param | None = None
    int8_ops: Param | None = None
    nvlink_bytes_per_s: Param | None = None
    idle_w: Param | None = None
    memory_bound_w: Param | None = None
    compute_bound_w: Param | None = None
    borrowing: Borrowing | None = None

    @property
    def calibrated(self) -> bool:
        """Whether its kernel parameters are its own and not another GPU's."""
        return self.borrowing is None

    @property
    def borrowed_from(self) -> str | None:
        """The GPU its kernel parameters come from; None when they are its own."""
        return None if self.borrowing is None else self.borrowing.lender

    @property
    def caution(self) -> str | None:
        """What every report must say of this GPU; None when it is calibrated."""
        return None if self.borrowing is None else self.borrowing.sentence(self.name)

    @property
    def has_fp8(self) -> bool:
        """Whether it multiplies in fp8; if not, fp8 weights are weight-only."""
        return self.fp8_flops is not None

    @property
    def has_fp4(self) -> bool:
        """Whether it multiplies in fp4; if not, fp4 weights are weight-only."""
        return self.fp4_flops is not None

    def peak_flops(self, dtype: str) -> float:
        """Dense peak of a compute type: ``bf16``, ``fp8``, ``fp4`` or ``int8`` [FLOP/s].

        Raises:
            ProfileError: if the GPU does not compute in it.
        """
        peak = {
            "bf16": self.bf16_flops,
            "fp8": self.fp8_flops,
            "fp4": self.fp4_flops,
            "int8": self.int8_ops,
        }.get(dtype)
        if peak is None:
            raise ProfileError(f"{self.name}: compute type '{dtype}' has no peak FLOP/s.")
        return peak.value

    def family(self, name: str | None = None) -> KernelFamily:
        """A kernel family by name; the profile's first when None.

        Raises:
            ProfileError: unknown name.
        """
        if name is None:
            return self.kernels[0]
        found = {family.name: family for family in self.kernels}
        if name not in found:
            raise ProfileError(f"{self.name}: kernels '{name}' are unknown; {suggest(name, found)}")
        return found[name]

    def parameters(self) -> Iterator[tuple[str, Param]]:
        """Every parameter with its dotted path, e.g. ``kernels.vllm.gemm.bf16.t0_s``."""
        for row in schema.GPU:
            value = getattr(self, row.name)
            if value is not None:
                yield row.name, value
        for family in self.kernels:
            root = f"kernels.{family.name}"
            for operator in TYPED:
                for dtype, params in getattr(family, operator):
                    yield from _params(params, f"{root}.{operator}.{dtype}.")
            for where, params in _all_reduces(family):
                yield from _params(params, f"{root}.all_reduce.{where}")
            yield from _params(family.elementwise, f"{root}.elementwise.")
            if family.all_to_all is not None:
                yield from _params(family.all_to_all, f"{root}.all_to_all.")


def _all_reduces(family: KernelFamily) -> list[tuple[str, NvlinkAllReduce | BusAllReduce]]:
    if isinstance(family.all_reduce, tuple):
        return [(f"bus.{entry.gpus}.", entry) for entry in family.all_reduce]
    return [] if family.all_reduce is None else [("nvlink.", family.all_reduce)]


def _params(holder: object, prefix: str) -> Iterator[tuple[str, Param]]:
    for f in fields(holder):  # type: ignore[arg-type]  # every caller passes a dataclass
        value = getattr(holder, f.name)
        if isinstance(value, Param):
            yield f"{prefix}{f.name}", value
