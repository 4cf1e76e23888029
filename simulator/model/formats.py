"""Number formats of stored weights: bits each, scales included, and which part of a model has which.

Embedding, LM head, norms, biases and routers stay in 16 bits in every checkpoint format here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from simulator.errors import ModelError, suggest

Format = Literal["bf16", "fp8", "fp8_block", "int8", "int4", "int4_g32", "mxfp4", "nvfp4"]
"""How a matrix is stored."""

FORMATS: tuple[Format, ...] = get_args(Format)
"""All of them."""

FORMAT_BITS: dict[Format, float] = {
    "bf16": 16.0,
    "fp8": 8.0,
    "fp8_block": 8.0 + 32.0 / 128**2,
    "int8": 8.0,
    "int4": 4.0 + (16.0 + 4.0) / 128,
    "int4_g32": 4.0 + 16.0 / 32,
    "mxfp4": 4.0 + 8.0 / 32,
    "nvfp4": 4.0 + 8.0 / 16,
}
"""Bits a stored weight takes, scales included [bits/weight].

``fp8`` and ``int8`` have one scale a tensor or a row, which is left out (below 0.01 bits).
``fp8_block`` has a float32 scale for every 128x128 block (DeepSeek-V3 technical report,
arXiv:2412.19437, section 3.3). ``int4`` is AWQ's and GPTQ's group of 128 with a 16-bit scale and a
4-bit zero point, ``int4_g32`` the symmetric group of 32 of Kimi-K2-Thinking's compressed-tensors
checkpoint. ``mxfp4`` has an 8-bit scale for every 32 weights (OCP Microscaling Formats 1.0,
section 5.1), ``nvfp4`` one for every 16 (NVIDIA, "Introducing NVFP4", 2025).
"""

BF16_BYTES = 2.0
"""What stays in 16 bits [bytes]: embedding, LM head, norms, biases, routers."""

FORMAT_BYTES: dict[Format, float] = {name: bits / 8.0 for name, bits in FORMAT_BITS.items()}
"""Bytes a stored weight takes, scales included [bytes/weight]."""


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """Formats of the matrices of a model, by part.

    Attributes:
        attention: projections of attention.
        ffn: dense feed-forward networks and shared experts.
        experts: routed experts.
    """

    attention: Format = "bf16"
    ffn: Format = "bf16"
    experts: Format = "bf16"

    def __post_init__(self) -> None:
        for field in ("attention", "ffn", "experts"):
            found = getattr(self, field)
            if found not in FORMAT_BITS:
                raise ModelError(f"weights.{field}: {found!r} is unknown; {_near(found)}")

    @classmethod
    def uniform(cls, weights: Format) -> WeightFormats:
        """Every matrix in one format."""
        return cls(weights, weights, weights)


BF16 = WeightFormats()
"""An unquantised checkpoint."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """What the ``quantization_config`` of a checkpoint says.

    Attributes:
        method: as the file names it, e.g. ``"fp8"``, ``"mxfp4"``, ``"compressed-tensors"``.
        weights: format of the layers' matrices.
        experts: format of the routed experts where it differs; None: as ``weights``.
        attention: format of the attention projections where it differs; None: as ``weights``.
        activations: what the quantised matrices are multiplied with: ``"bf16"`` is weight-only.
        kv: format of the KV cache the checkpoint asks for; None: it does not say.
        ignored: modules the file leaves in 16 bits, as it names them.
        notes: what is counted otherwise than the file says, in words.
    """

    method: str
    weights: Format
    experts: Format | None = None
    attention: Format | None = None
    activations: Format = "bf16"
    kv: Literal["bf16", "fp8"] | None = None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def formats(self) -> WeightFormats:
        """Format of every part."""
        return WeightFormats(
            attention=self.attention or self.weights,
            ffn=self.weights,
            experts=self.experts or self.weights,
        )


def _near(found: object) -> str:
    return suggest(found, FORMATS) if isinstance(found, str) else f"allowed: {', '.join(FORMATS)}."
