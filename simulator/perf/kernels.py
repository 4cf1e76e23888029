"""What every operator of a step has in common, and the parameters kernels take from a profile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict, TypeVar

from hwprofiles import GemmParams, GpuProfile, KernelFamily, Param
from simulator.model import FORMAT_BYTES, Format
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.precision import Compute, Precision

ACTIVATION_BYTES = 2.0
"""Activations and the inputs and outputs of attention are bf16 [bytes]."""

INPUT_BYTES: dict[Compute, float] = {
    "bf16": ACTIVATION_BYTES,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": FORMAT_BYTES["nvfp4"],
}
"""Bytes of one input of a matrix multiplication as its kernel reads it [bytes]."""

T = TypeVar("T")


class TokenOperator(Protocol):
    """A kernel whose time depends on the number of new tokens of a step only."""

    @property
    def name(self) -> str:
        """What the breakdown calls it."""
        ...

    @property
    def calls(self) -> float:
        """Calls in a step, over all layers."""
        ...

    @property
    def kernels(self) -> float:
        """Kernels launched in one call."""
        ...

    def time_s(self, m: Size) -> Array:
        """Time of one call over ``m`` tokens [s]."""
        ...

    def flops(self, m: float) -> float:
        """Arithmetic of one call [FLOP]."""
        ...

    def traffic_bytes(self, m: float) -> float:
        """Bytes one call moves, through memory or as messages [bytes]."""
        ...

    def bound(self, m: float) -> str:
        """Its largest part: ``compute``, ``memory``, ``link`` or ``latency``."""
        ...


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
    k_ramp: float
    wave_exponent: float
    wave_limit: float
    row_tile: float
    sms: float


@dataclass(frozen=True, slots=True)
class Gemm:
    """A matrix multiplication with its weight's shape and its kernel's parameters bound.

    Attributes:
        name: what the breakdown calls it.
        n: columns of the weight on this GPU.
        k: rows of the weight on this GPU.
        args: parameters of the form.
        calls: calls in a step.
        kernel: name of the profile's parameters among ``args``.
        own: these are of kernels that multiply just what this one does; else they stand in.
    """

    name: str
    n: int
    k: int
    args: GemmArgs
    calls: float = 1
    kernel: str = "bf16"
    own: bool = True

    @property
    def kernels(self) -> float:
        """One."""
        return 1

    def time_s(self, m: Size) -> Array:
        """Time of one call over ``m`` tokens [s]."""
        return forms.gemm_s(m, self.n, self.k, **self.args)

    def flops(self, m: float) -> float:
        """Arithmetic of one call [FLOP]."""
        return 2.0 * m * self.n * self.k

    @property
    def weight_bytes(self) -> float:
        """Weights one call reads [bytes]."""
        return self.n * self.k * self.args["weight_bytes"]

    def traffic_bytes(self, m: float) -> float:
        """Bytes one call moves [bytes]."""
        a = self.args
        inputs, outputs = m * self.k * a["input_bytes"], m * self.n * a["output_bytes"]
        return self.weight_bytes + inputs + outputs

    def terms(self, m: float) -> tuple[float, float]:
        """Time of its arithmetic alone, and of its memory traffic alone [s]."""
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
            k_ramp=a["k_ramp"],
            wave_exponent=a["wave_exponent"],
            wave_limit=a["wave_limit"],
            row_tile=a["row_tile"],
            sms=a["sms"],
        )
        return float(compute), float(memory)

    def bound(self, m: float) -> str:
        """The largest of its three parts: ``compute``, ``memory`` or ``latency``."""
        compute, memory = self.terms(m)
        return largest(compute=compute, memory=memory, latency=self.args["t0_s"])


def largest(**parts: float) -> str:
    """Name of the largest part; the first named on a tie."""
    return max(parts, key=lambda name: parts[name])


def value_or(param: Param | None, absent: float) -> float:
    """Value of an optional parameter."""
    return absent if param is None else param.value


def for_dtype(pairs: tuple[tuple[str, T], ...], *dtypes: str) -> T:
    """Parameters of the first of these types that the profile has; else those of bf16."""
    found = dict(pairs)
    return found[next((d for d in dtypes if d in found), "bf16")]


# --- what a matrix of a format is multiplied with ----------------------------------------------


@dataclass(frozen=True, slots=True)
class Multiply:
    """How matrices of one format are multiplied on a GPU.

    Attributes:
        stored: the format.
        compute: type of the arithmetic.
        kernel: name of the parameters used, a type of the profile's ``gemm`` section.
        exact: the profile has parameters for just this; else others stand in.
    """

    stored: Format
    compute: Compute
    kernel: str
    exact: bool


def multiply(
    gpu: GpuProfile, kernels: KernelFamily, precision: Precision, stored: Format
) -> Multiply:
    """What a format is multiplied in, and whose parameters time it.

    Args:
        gpu: the GPU.
        kernels: the kernel family.
        precision: what is asked for.
        stored: the format of the matrix.
    """
    wanted = precision.wanted(stored)
    compute = wanted if has_unit(gpu, wanted) else "bf16"
    known = dict(kernels.gemm)
    if compute == "bf16":
        # a kernel family may have been measured with this format read as stored (int4, mxfp4)
        own = f"{stored}_weight_only"
        return Multiply(stored, compute, own if own in known else "bf16", True)
    if compute == "fp8" and precision.activations == "static":
        # no table of fp8 kernels without a quantisation kernel: the bf16 kernel's shape stands in
        return Multiply(stored, compute, "bf16", True)
    for name in (stored, compute, "fp8"):
        if name in known:
            return Multiply(stored, compute, name, name in (stored, compute))
    return Multiply(stored, compute, "bf16", exact=False)


def has_unit(gpu: GpuProfile, compute: Compute) -> bool:
    """Whether a GPU multiplies in a type; where not, its weights are weight-only."""
    units = {"fp8": gpu.fp8_flops, "int8": gpu.int8_ops, "fp4": gpu.fp4_flops}
    return compute == "bf16" or units[compute] is not None


def gemm_params(kernels: KernelFamily, how: Multiply) -> GemmParams:
    """Parameters of the profile for a multiplication."""
    return dict(kernels.gemm)[how.kernel]


def bind_gemm(
    gpu: GpuProfile,
    kernels: KernelFamily,
    how: Multiply,
    name: str,
    n: int,
    k: int,
    sustained: float = 1.0,
) -> Gemm:
    """A matrix multiplication, called once, of a weight of ``n`` columns and ``k`` rows.

    Args:
        gpu: the GPU.
        kernels: the kernel family.
        how: what the weight is stored and multiplied in.
        name: what the breakdown calls it.
        n: columns on this GPU.
        k: rows on this GPU.
        sustained: share of its efficiency it keeps in long steps [1].
    """
    args = gemm_args(gpu, kernels, how, sustained)
    own = how.exact and (how.kernel != "bf16" or how.stored == "bf16")
    return Gemm(name, n, k, args, kernel=how.kernel, own=own)


def gemm_args(
    gpu: GpuProfile, kernels: KernelFamily, how: Multiply, sustained: float = 1.0
) -> GemmArgs:
    """Arguments of ``forms.gemm_s`` besides the shape.

    Args:
        gpu: the GPU.
        kernels: the kernel family.
        how: what the weight is stored and multiplied in.
        sustained: share of its efficiency it keeps in long steps [1].
    """
    params = gemm_params(kernels, how)
    quant = None if how.compute == "bf16" or params.quant_eff is None else params.quant_eff.value
    return GemmArgs(
        t0_s=params.t0_s.value,
        peak_flops=gpu.peak_flops(how.compute),
        bandwidth=gpu.memory_bytes_per_s.value,
        compute_eff=params.compute_eff.value,
        memory_eff=params.memory_eff.value,
        p=params.p.value,
        weight_bytes=FORMAT_BYTES[how.stored],
        input_bytes=INPUT_BYTES[how.compute],
        output_bytes=ACTIVATION_BYTES,
        quant_eff=quant,
        sustained=sustained,
        k_ramp=value_or(params.k_ramp, 0.0),
        wave_exponent=value_or(params.wave_exponent, 0.0),
        wave_limit=value_or(params.wave_limit, 1.0),
        row_tile=value_or(params.row_tile, 0.0),
        sms=gpu.sms.value,
    )
