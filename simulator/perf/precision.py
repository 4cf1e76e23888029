"""Number formats of weights, arithmetic and KV cache: three separate choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from simulator.errors import ModelError

Dtype = Literal["bf16", "fp8"]
Activations = Literal["dynamic", "static"]
DTYPE_BYTES: dict[str, float] = {"bf16": 2.0, "fp8": 1.0}


@dataclass(frozen=True, slots=True)
class Precision:
    """How numbers are stored and multiplied.

    Attributes:
        weights: type of the layers' matrices as stored; embedding, LM head and norms stay bf16.
        compute: type of their multiplication; None means that of the weights. A GPU without fp8
            units computes in bf16 whatever is asked, with the weights read as stored
            (weight-only), as serving engines do.
        kv: type of the KV cache.
        activations: who scales the inputs of an fp8 multiplication. ``dynamic``: a kernel of its
            own before every GEMM, as in the measured tables; ``static``: the checkpoint holds the
            scales, and the kernel before writes fp8 already.
    """

    weights: Dtype = "bf16"
    compute: Dtype | None = None
    kv: Dtype = "bf16"
    activations: Activations = "dynamic"

    def __post_init__(self) -> None:
        if self.activations not in get_args(Activations):
            raise ModelError(
                f"precision.activations: {self.activations!r} is unknown; allowed: "
                f"{', '.join(get_args(Activations))}."
            )
        for field in ("weights", "compute", "kv"):
            found = getattr(self, field)
            if found not in get_args(Dtype) and not (field == "compute" and found is None):
                raise ModelError(
                    f"precision.{field}: {found!r} is unknown; allowed: {', '.join(DTYPE_BYTES)}."
                )
        if self.weights == "bf16" and self.compute == "fp8":
            raise ModelError(
                "precision.compute: 'fp8' needs weights in fp8, found 'bf16'; "
                "allowed: bf16 (or weights: fp8)."
            )

    @property
    def weight_bytes(self) -> float:
        """Bytes of one stored weight."""
        return DTYPE_BYTES[self.weights]

    @property
    def kv_bytes(self) -> float:
        """Bytes of one stored K or V number."""
        return DTYPE_BYTES[self.kv]
