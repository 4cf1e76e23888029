"""Operands: views into one block of random normal numbers per type.

Random numbers are drawn once, not for every case. They matter: a GPU computes zeros faster than
random numbers, because it draws less power. Cases take views one behind the other, so that sets of
operands which take turns lie in different memory. Results go to a block of their own, so that the
random numbers stay as they are.
"""

from __future__ import annotations

import math
from typing import Any

ALIGN_BYTES = 256
_CHUNK = 1 << 22
"""Numbers drawn at a time; further ones repeat them on a CPU, where drawing is slow."""


class Arena:
    """Blocks of memory on one device, by type."""

    def __init__(self, torch: Any, device: str) -> None:
        self._torch = torch
        self._device = device
        self._blocks: dict[str, Any] = {}
        self._used: dict[str, int] = {}

    def clear(self) -> None:
        """Give all memory back."""
        self._blocks.clear()
        self._used.clear()

    def begin(self) -> None:
        """Start a new case: what was taken before may be handed out again."""
        self._used = dict.fromkeys(self._used, 0)

    def reserve(self, dtype: str, total_bytes: float, *, results: bool = False) -> None:
        """Have room for ``total_bytes`` of operands (or of results) of a type.

        Views handed out before must no longer be in use.

        Args:
            dtype: a name of the operator tables.
            total_bytes: what the case will take, all sets together [bytes].
            results: room for results, whose numbers do not matter.
        """
        key = _key(dtype, results)
        torch_dtype = torch_type(self._torch, dtype)
        numbers = math.ceil(total_bytes / torch_dtype.itemsize) + _CHUNK // 64
        block = self._blocks.get(key)
        if block is None or block.numel() < numbers:
            self._blocks.pop(key, None)
            del block  # the old one goes before the new one comes
            make = self._empty if results else self._normal
            self._blocks[key] = make(numbers, torch_dtype)
        self._used[key] = 0

    def take(self, dtype: str, *shape: int, results: bool = False) -> Any:
        """The next view of this shape; ``reserve`` must have made room."""
        key = _key(dtype, results)
        block = self._blocks[key]
        start, count = self._used[key], math.prod(shape)
        step = ALIGN_BYTES // block.element_size()
        self._used[key] = start + step * math.ceil(count / step)
        return block[start : start + count].view(*shape)

    def _empty(self, numbers: int, torch_dtype: Any) -> Any:
        return self._torch.zeros(numbers, dtype=torch_dtype, device=self._device)

    def _normal(self, numbers: int, torch_dtype: Any) -> Any:
        torch = self._torch
        block = torch.empty(numbers, dtype=torch_dtype, device=self._device)
        generator = torch.Generator(device=self._device).manual_seed(20260101)
        drawn = min(numbers, _CHUNK)
        chunk = None
        for start in range(0, numbers, drawn):
            if chunk is None or self._device != "cpu":
                chunk = torch.randn(
                    drawn, dtype=torch.float32, device=self._device, generator=generator
                ).to(torch_dtype)
            end = min(start + drawn, numbers)
            block[start:end] = chunk[: end - start]
        return block


def torch_type(torch: Any, dtype: str) -> Any:
    """The torch type of a name of the operator tables."""
    return torch.float8_e4m3fn if dtype == "fp8" else getattr(torch, dtype)


def _key(dtype: str, results: bool) -> str:
    return f"{dtype} results" if results else dtype
