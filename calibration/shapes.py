"""Which shapes are measured: many weights with few batch sizes each, spread evenly in logarithms.

Sizes follow the device: its cache, its memory and how much it computes in a few milliseconds. The
same device gets the same shapes every time, which is what lets an interrupted run go on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from calibration.machine import Machine

Shape = tuple[tuple[str, int], ...]

GEMM_M = (1, 8192)
"""Rows of a GEMM: one decoding sequence to a full prefill batch."""
GEMM_CROWDED_M = (64, 512)
"""Where the roofline's corner lies on most GPUs: sampled twice as densely."""

_HEADS = ((32, 8, 128), (8, 1, 128), (64, 8, 128), (16, 2, 128))
_CPU_HEADS = ((16, 4, 128), (8, 2, 128))
_MOES = ((8, 2, 4096, 7168), (64, 6, 2048, 1408), (128, 8, 2048, 768), (16, 1, 4096, 2048))
_CPU_MOES = ((8, 2, 512, 512), (16, 4, 512, 256))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a shape may ask of a device.

    Attributes:
        cpu: whether it is a processor: fewer and smaller shapes.
        quick: a third of the shapes, to try things out.
        cache_bytes: last-level cache [bytes].
        weight_bytes: largest weight or KV cache of one call [bytes].
        flops: most arithmetic of one call [FLOP].
    """

    cpu: bool
    quick: bool
    cache_bytes: float
    weight_bytes: float
    flops: float

    @classmethod
    def of(cls, machine: Machine, *, quick: bool = False) -> Limits:
        """The limits of a machine: a call of a few milliseconds, operands that leave room."""
        if machine.kind == "cpu":
            weight = 2e6 if quick else 16e6
            return cls(True, quick, machine.cache_bytes, weight, 1.5e8 if quick else 2e9)
        weight = min(1e9, machine.memory_bytes / 12)
        return cls(False, quick, machine.cache_bytes, weight, 3e10 * machine.sms)

    def count(self, gpu: int, cpu: int) -> int:
        """How many shapes: of a GPU or of a processor, a third of them when quick (at least 6)."""
        full = cpu if self.cpu else gpu
        return max(6, full // 3) if self.quick else full


def gemm_shapes(limits: Limits, count: int, seed: int = 1) -> list[Shape]:
    """Shapes (m, n, k): as many weights as shapes, m log-uniform and dense between 64 and 512.

    Two thirds of the m spread over the whole range, a third over the crowded part. Weights of 16
    bits span 8 MB to 1 GB where the device has room, their aspect 1:6 to 6:1.
    """
    rng = np.random.default_rng(seed)
    low = 0.5e6 if limits.cpu else 8e6
    top_m = 1024 if limits.cpu else GEMM_M[1]
    crowded = count // 3
    m = np.concatenate(
        [
            _spread(GEMM_M[0], top_m, count - crowded, rng),
            _spread(*GEMM_CROWDED_M, crowded, rng),
        ]
    )
    size = rng.permutation(_spread(low, limits.weight_bytes, count, rng))
    aspect = rng.permutation(_spread(1 / 6, 6.0, count, rng))
    found: list[Shape] = []
    seen: set[tuple[int, int]] = set()
    for rows, weight, ratio in zip(m, size, aspect, strict=True):
        numbers = min(weight / 2.0, limits.flops / (2.0 * rows))
        n = _multiple(math.sqrt(numbers * ratio), 128)
        k = _multiple(math.sqrt(numbers / ratio), 128)
        while (n, k) in seen:
            n += 128
        seen.add((n, k))
        found.append((("m", _rows(rows)), ("n", n), ("k", k)))
    return found


def decode_shapes(limits: Limits, count: int, seed: int = 2) -> list[Shape]:
    """Batches of sequences with a KV cache each.

    A fifth have less than 2 MB of KV, the rest more than the cache holds. Of these a quarter are
    large batches of short sequences, where the cost of a tile shows beside that of the bytes.
    """
    rng = np.random.default_rng(seed)
    small = max(2, count // 5)
    crowded = max(2, count // 5)
    low, high = _kv_range(limits)
    kv = np.concatenate(
        [
            _spread(1e5, 1.8e6, small, rng),
            _spread(low, min(3.0 * low, high), crowded, rng),
            _spread(low, high, count - small - crowded, rng),
        ]
    )
    most_batch = 32 if limits.cpu else 256
    batches = np.concatenate(
        [
            _spread(1, 8, small, rng),
            _spread(most_batch / 2, 2 * most_batch, crowded, rng),
            rng.permutation(_spread(1, most_batch, count - small - crowded, rng)),
        ]
    )
    heads = _CPU_HEADS if limits.cpu else _HEADS
    found: list[Shape] = []
    for i, (total, batch) in enumerate(zip(kv, batches, strict=True)):
        few = small <= i < small + crowded  # the configuration with most KV heads
        n_heads, n_kv, dim = heads[0] if few else heads[i % len(heads)]
        per_token = 4.0 * n_kv * dim
        most = min(131072.0, total / per_token)
        rows = max(1, round(min(batch, most / 16.0)))
        length = max(16, min(131072, round(total / (rows * per_token))))
        found.append(
            (
                ("batch", rows),
                ("kv_len", length),
                *_heads(n_heads, n_kv, dim),
            )
        )
    return found


def _kv_range(limits: Limits) -> tuple[float, float]:
    """KV bytes of the large decode points: from 1.5 × the cache, where it is small enough."""
    top = limits.weight_bytes * (1.0 if limits.cpu else 2.0)
    return min(1.5 * limits.cache_bytes, top / 8.0), top


def prefill_shapes(limits: Limits, count: int) -> list[Shape]:
    """One and several prompts of 128 to 16,384 tokens, two head configurations and a narrow head."""
    low, high = (32, 512) if limits.cpu else (128, 16384)
    heads = (*(_CPU_HEADS if limits.cpu else _HEADS[:2]), (16, 4, 64))
    steps = math.ceil(count / 2)
    lengths = [round(low * (high / low) ** (i / (steps - 1))) for i in range(steps)]
    found: list[Shape] = []
    for i in range(count):
        batch = (1, 2 if limits.cpu else 8)[i % 2]
        n_heads, n_kv, dim = heads[2] if i % 6 == 5 else heads[(i // 2) % 2]
        most = math.sqrt(4.0 * limits.flops / (2.0 * batch * n_heads * dim))
        length = _multiple(min(lengths[i // 2], most), 16)
        found.append((("batch", batch), ("isl", length), *_heads(n_heads, n_kv, dim)))
    return list(dict.fromkeys(found))


def moe_shapes(limits: Limits, count: int, seed: int = 3) -> list[Shape]:
    """Layers of few large and many small experts, from one token to thousands."""
    rng = np.random.default_rng(seed)
    layers = _CPU_MOES if limits.cpu else _MOES
    tokens = _spread(1, 256 if limits.cpu else 8192, count, rng)
    found: list[Shape] = []
    for i, number in enumerate(tokens):
        experts, topk, hidden, width = layers[i % len(layers)]
        most = limits.flops / (6.0 * topk * hidden * width)
        shrink = min(1.0, 1.5 * limits.weight_bytes / (6.0 * experts * hidden * width))
        found.append(
            (
                ("tokens", max(1, _rows(min(number, most)))),
                ("hidden", hidden),
                ("width", _multiple(width * shrink, 128)),
                ("topk", topk),
                ("experts", experts),
            )
        )
    return found


def byte_sizes(low: float, high: float, count: int) -> list[int]:
    """Sizes spread evenly in logarithms, whole multiples of 4 KiB [bytes]."""
    steps = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
    return [4096 * max(1, round(size / 4096)) for size in steps]


def _heads(n_heads: int, n_kv: int, dim: int) -> Shape:
    return (("n_heads", n_heads), ("n_kv_heads", n_kv), ("head_dim", dim))


def _spread(low: float, high: float, count: int, rng: np.random.Generator) -> list[float]:
    """One draw in each of ``count`` equal parts of the logarithmic range, ascending."""
    if count == 0:
        return []
    parts = (np.arange(count) + rng.random(count)) / count
    return [float(low * (high / low) ** part) for part in parts]


def _multiple(value: float, of: int) -> int:
    return max(of, of * round(value / of))


def _rows(value: float) -> int:
    """Rows as engines have them: any small number, multiples of 8 above 16."""
    rounded = max(1, round(value))
    return rounded if rounded <= 16 else 8 * round(rounded / 8)
