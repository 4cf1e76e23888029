"""One thing to measure: an operator, the kernel that computes it, a type and a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OPERATORS = (
    "gemm",
    "attn_prefill",
    "attn_decode",
    "moe",
    "elementwise",
    "copy",
    "comm",
    "launch",
)
"""What can be measured, in the order of the report."""

BYTES_OF = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}
"""Bytes of one number, by the name the tables use for its type."""


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one shape.

    Attributes:
        operator: one of ``OPERATORS``.
        kernel: what computes it, e.g. ``"torch_mm"`` or ``"torch_sdpa_flash"``.
        dtype: type of the numbers, a key of ``BYTES_OF``.
        shape: names and sizes, in the words of the operator tables.
    """

    operator: str
    kernel: str
    dtype: str
    shape: tuple[tuple[str, int | str], ...]

    @property
    def key(self) -> str:
        """Text that tells this case from every other; stable between runs."""
        sizes = ",".join(f"{name}={value}" for name, value in self.shape)
        return f"{self.operator}/{self.kernel}/{self.dtype}/{sizes}"

    @property
    def sizes(self) -> dict[str, Any]:
        """The shape by name."""
        return dict(self.shape)

    def __str__(self) -> str:
        sizes = " ".join(f"{name} {value}" for name, value in self.shape)
        return f"{self.operator} {self.dtype} {sizes} ({self.kernel})"


@dataclass(frozen=True, slots=True)
class Work:
    """What one call of a case does.

    Attributes:
        flops: arithmetic [FLOP].
        bytes: least memory traffic: each operand once [bytes].
        held_bytes: memory one set of operands and results takes [bytes].
    """

    flops: float
    bytes: float
    held_bytes: float

    @property
    def intensity(self) -> float:
        """Arithmetic intensity [FLOP/byte]; 0 where nothing is moved."""
        return self.flops / self.bytes if self.bytes else 0.0


def work(case: Case) -> Work:
    """Arithmetic, traffic and memory of one call of ``case``."""
    return _WORK[case.operator](case.sizes, float(BYTES_OF[case.dtype]))


def _gemm(s: dict[str, Any], size: float) -> Work:
    m, n, k = s["m"], s["n"], s["k"]
    moved = (n * k + m * k) * size + 2.0 * m * n
    return Work(2.0 * m * n * k, moved, moved)


def _prefill(s: dict[str, Any], size: float) -> Work:
    tokens = s["batch"] * s["isl"]
    q_o = 2.0 * tokens * s["n_heads"] * s["head_dim"] * size
    kv = 2.0 * tokens * s["n_kv_heads"] * s["head_dim"] * size
    flops = 2.0 * tokens * s["isl"] * s["n_heads"] * s["head_dim"]
    return Work(flops, q_o + 2.0 * kv, q_o + 2.0 * kv)


def _decode(s: dict[str, Any], size: float) -> Work:
    tokens = s["batch"] * s["kv_len"]
    q_o = 2.0 * s["batch"] * s["n_heads"] * s["head_dim"] * size
    kv = 2.0 * tokens * s["n_kv_heads"] * s["head_dim"] * size
    return Work(4.0 * tokens * s["n_heads"] * s["head_dim"], q_o + kv, q_o + kv)


def _moe(s: dict[str, Any], size: float) -> Work:
    rows, hidden, width = s["tokens"] * s["topk"], s["hidden"], s["width"]
    touched = s["experts"] * (1.0 - (1.0 - s["topk"] / s["experts"]) ** s["tokens"])
    weights = 3.0 * hidden * width * size
    held = s["experts"] * weights + rows * (4.0 * hidden + 3.0 * width) * 2.0
    return Work(6.0 * rows * hidden * width, touched * weights + 4.0 * rows * hidden, held)


def _elementwise(s: dict[str, Any], size: float) -> Work:
    del size  # the shape gives bytes
    return Work(0.0, float(s["bytes"]), float(s["bytes"]))


def _copy(s: dict[str, Any], size: float) -> Work:
    del size
    return Work(0.0, 2.0 * s["bytes"], 2.0 * s["bytes"])


def _comm(s: dict[str, Any], size: float) -> Work:
    del size
    return Work(0.0, float(s["bytes"]), 2.0 * s["bytes"])


def _launch(s: dict[str, Any], size: float) -> Work:
    del s, size
    return Work(0.0, 0.0, 4096.0)


_WORK = {
    "gemm": _gemm,
    "attn_prefill": _prefill,
    "attn_decode": _decode,
    "moe": _moe,
    "elementwise": _elementwise,
    "copy": _copy,
    "comm": _comm,
    "launch": _launch,
}
