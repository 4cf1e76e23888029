"""Number formats of weights, arithmetic and KV cache: separate choices.

A format says how a matrix is stored, a compute type in what it is multiplied. Where the GPU has no
unit for the wanted type, the weights are *weight-only*: read as stored, multiplied in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from simulator.errors import ModelError, suggest
from simulator.model import FORMATS, Format, ModelSpec, WeightFormats

Compute = Literal["bf16", "fp8", "int8", "fp4"]
KvFormat = Literal["bf16", "fp8"]
Activations = Literal["dynamic", "static"]

KV_BYTES: dict[KvFormat, float] = {"bf16": 2.0, "fp8": 1.0}
"""Bytes of one number of the KV cache, by type [bytes]."""

COMPUTE_OF: dict[Format, tuple[Compute, ...]] = {
    "bf16": ("bf16",),
    "fp8": ("fp8", "bf16"),
    "fp8_block": ("fp8", "bf16"),
    "int8": ("int8", "bf16"),
    "int4": ("bf16", "fp8"),
    "int4_g32": ("bf16", "fp8"),
    "mxfp4": ("fp4", "fp8", "bf16"),
    "nvfp4": ("fp4", "fp8", "bf16"),
}
"""Types that matrices of a format are multiplied in; the first is what engines prefer."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are stored and multiplied.

    Attributes:
        weights: format of the layers' matrices as stored; embedding, LM head, routers, norms and
            biases stay bf16.
        compute: type of their multiplication, for the parts whose format admits it; None: what
            engines prefer for each format. A GPU without the unit computes in bf16 whatever is
            asked, with the weights read as stored, as serving engines do.
        kv: type of the KV cache.
        experts: format of the routed experts; None: as ``weights``.
        attention: format of the attention projections; None: as ``weights``.
        activations: who scales the inputs of an fp8 multiplication. ``dynamic``: a kernel of its
            own before every GEMM, as in the measured tables; ``static``: the checkpoint holds the
            scales, and the kernel before writes fp8 already.

    Raises:
        ModelError: an unknown name, or a compute type that no format in use admits.
    """

    weights: Format = "bf16"
    compute: Compute | None = None
    kv: KvFormat = "bf16"
    experts: Format | None = None
    attention: Format | None = None
    activations: Activations = "dynamic"

    def __post_init__(self) -> None:
        _check("weights", self.weights, FORMATS)
        _check("kv", self.kv, get_args(KvFormat))
        _check("activations", self.activations, get_args(Activations))
        for field in ("experts", "attention"):
            if getattr(self, field) is not None:
                _check(field, getattr(self, field), FORMATS)
        if self.compute is None:
            return
        _check("compute", self.compute, get_args(Compute))
        used = dict.fromkeys((self.weights, self.formats.experts, self.formats.attention))
        if not any(self.compute in COMPUTE_OF[name] for name in used):
            allowed = dict.fromkeys(c for name in used for c in COMPUTE_OF[name])
            raise ModelError(
                f"precision.compute: '{self.compute}' does not go with weights in "
                f"{' and '.join(used)}; allowed: {', '.join(allowed)}."
            )

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        *,
        weights: Format | None = None,
        experts: Format | None = None,
        compute: Compute | None = None,
        kv: KvFormat | None = None,
        activations: Activations = "dynamic",
    ) -> Precision:
        """Formats of a model as its checkpoint stores it, where nothing else is asked for.

        Args:
            model: the model; without a quantisation of its own it is bf16.
            weights: format of the layers' matrices, instead of the checkpoint's.
            experts: format of the routed experts; None: as ``weights`` where that is given, else
                the checkpoint's.
            compute: type they are multiplied in.
            kv: type of the KV cache, instead of the checkpoint's.
            activations: who scales the inputs of an fp8 multiplication.

        Raises:
            ModelError: as the constructor, and for ``experts`` of a model without any.
        """
        if experts is not None and not model.is_moe:
            raise ModelError(
                f"precision.experts: '{experts}' has no effect, {model.name} has no routed "
                "experts; allowed: leave it out."
            )
        own = model.quantization
        if own is None:
            return cls(weights or "bf16", compute, kv or "bf16", experts, activations=activations)
        kv = kv or own.kv or "bf16"
        if weights is not None:
            return cls(weights, compute, kv, experts, activations=activations)
        formats = own.formats
        if compute is None and own.activations == "bf16":
            # weight-only by the checkpoint's own word; mxfp4 is left to the engine and its GPU
            quantised = {formats.attention, formats.ffn, experts or formats.experts} - {"bf16"}
            compute = "bf16" if quantised and "mxfp4" not in quantised else None
        return cls(
            weights=formats.ffn,
            compute=compute,
            kv=kv,
            experts=experts or formats.experts,
            attention=formats.attention,
            activations=activations,
        )

    @property
    def formats(self) -> WeightFormats:
        """Format of every part."""
        return WeightFormats(
            attention=self.attention or self.weights,
            ffn=self.weights,
            experts=self.experts or self.weights,
        )

    def wanted(self, stored: Format) -> Compute:
        """Type matrices stored so are multiplied in, where the GPU can."""
        possible = COMPUTE_OF[stored]
        return self.compute if self.compute in possible else possible[0]

    @property
    def kv_bytes(self) -> float:
        """Bytes of one stored number of the KV cache."""
        return KV_BYTES[self.kv]


def _check(field: str, found: object, allowed: tuple[str, ...]) -> None:
    if found in allowed:
        return
    near = suggest(found, allowed) if isinstance(found, str) else f"allowed: {', '.join(allowed)}."
    raise ModelError(f"precision.{field}: {found!r} is unknown; {near}")
