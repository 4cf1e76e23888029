"""Prefill and decode attention through ``scaled_dot_product_attention``, grouped-query.

Tensors lie as an engine's cache holds them, [sequence, token, head, channel]. The calls write the
new K and V into the cache first, as an engine must and as the operator tables count it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from calibration.case import BYTES_OF, Case, work
from calibration.device import Device, Program
from calibration.timing import copies_needed

BACKENDS = {
    "torch_sdpa_flash": "FLASH_ATTENTION",
    "torch_sdpa_cudnn": "CUDNN_ATTENTION",
    "torch_sdpa_efficient": "EFFICIENT_ATTENTION",
    "torch_sdpa_math": "MATH",
}
"""Kernels by the name rows give them; the last is the fallback that always works."""

_HEADS = ("n_heads", "n_kv_heads", "head_dim")


def prefill_program(device: Device, case: Case) -> Program:
    """Causal attention of whole prompts: write their K and V, then attend."""
    sizes = case.sizes
    batch, length = sizes["batch"], sizes["isl"]
    heads, kv_heads, dim = (sizes[name] for name in _HEADS)
    q = (batch, length, heads, dim)
    cache = (2, batch, length, kv_heads, dim)
    return _program(device, case, q, cache, cache, partial(_prefill_call, heads != kv_heads))


def decode_program(device: Device, case: Case) -> Program:
    """One query a sequence: write its K and V at the end of the cache, then attend to all of it."""
    sizes = case.sizes
    batch, length = sizes["batch"], sizes["kv_len"]
    heads, kv_heads, dim = (sizes[name] for name in _HEADS)
    q = (batch, 1, heads, dim)
    cache = (2, batch, length, kv_heads, dim)
    new = (2, batch, kv_heads, dim)
    return _program(device, case, q, cache, new, partial(_decode_call, heads != kv_heads))


def _program(
    device: Device,
    case: Case,
    q: tuple[int, ...],
    cache: tuple[int, ...],
    new: tuple[int, ...],
    build: Callable[..., Any],
) -> Program:
    held = work(case).held_bytes
    copies = copies_needed(held, device.machine.cache_bytes)
    arena, size = device.arena, BYTES_OF[case.dtype]
    numbers = sum(_count(shape) for shape in (q, cache, new))
    arena.reserve(case.dtype, copies * (numbers * size + 3 * 256))
    calls = [
        build(device.torch, *(arena.take(case.dtype, *shape) for shape in (q, cache, new)))
        for _ in range(copies)
    ]
    return Program(calls, held, partial(_backend, device.torch, case.kernel))


def _prefill_call(grouped: bool, torch: Any, q: Any, cache: Any, new: Any) -> Callable[[], Any]:
    q, k, v = q.transpose(1, 2), cache[0].transpose(1, 2), cache[1].transpose(1, 2)
    attend = torch.nn.functional.scaled_dot_product_attention

    def call() -> Any:
        cache.copy_(new)
        return attend(q, k, v, is_causal=True, enable_gqa=grouped)

    return call


def _decode_call(grouped: bool, torch: Any, q: Any, cache: Any, new: Any) -> Callable[[], Any]:
    q, k, v = q.transpose(1, 2), cache[0].transpose(1, 2), cache[1].transpose(1, 2)
    last = cache[:, :, -1]
    attend = torch.nn.functional.scaled_dot_product_attention

    def call() -> Any:
        last.copy_(new)
        return attend(q, k, v, enable_gqa=grouped)

    return call


def _backend(torch: Any, kernel: str) -> Any:
    """Only this kernel: scaled_dot_product_attention refuses rather than take another."""
    del torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(getattr(SDPBackend, BACKENDS[kernel]))


def working_backends(device: Device, dtype: str) -> dict[str, list[str]]:
    """Kernels that compute grouped-query attention here, for ``attn_prefill`` and ``attn_decode``.

    Each is asked by doing it once. ``torch_sdpa_math`` counts only where nothing else works: it
    writes the whole score matrix, which no engine does.
    """
    shape = (("n_heads", 8), ("n_kv_heads", 2), ("head_dim", 128))
    found: dict[str, list[str]] = {}
    for operator, build in (("attn_prefill", prefill_program), ("attn_decode", decode_program)):
        length = "isl" if operator == "attn_prefill" else "kv_len"
        known: list[str] = []
        for kernel in BACKENDS:
            if kernel == "torch_sdpa_math" and known:
                continue
            case = Case(operator, kernel, dtype, (("batch", 1), (length, 128), *shape))
            if _works(device, build, case):
                known.append(kernel)
        found[operator] = known
    device.arena.clear()
    return found


def _works(device: Device, build: Callable[[Device, Case], Program], case: Case) -> bool:
    try:
        with warnings.catch_warnings(), device.torch.inference_mode():
            warnings.simplefilter("ignore")  # torch says there why a kernel refuses
            program = build(device, case)
            with program.scope():
                program.calls[0]()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return False
    return True


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
