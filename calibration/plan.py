"""The list of cases of a device: operators in turn, so that a run cut short has some of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from math import gcd

from calibration import shapes
from calibration.case import OPERATORS, Case
from calibration.device import Device
from calibration.kernels.attention import working_backends
from calibration.kernels.gemm import fp8_works
from calibration.kernels.moe import moe_kernel
from calibration.kernels.moves import ELEMENTWISE
from calibration.shapes import Limits, Shape
from simulator.errors import InputError, suggest

COLLECTIVES = ("all_reduce", "alltoall")
"""By the names of the operator tables."""


def chosen_operators(asked: str | None) -> tuple[str, ...]:
    """The operators of ``--operators``; all when None.

    Raises:
        InputError: an unknown one, with the nearest name; or none.
    """
    if asked is None:
        return OPERATORS
    names = [name.strip().lower() for name in asked.split(",") if name.strip()]
    if not names:
        raise InputError(f"--operators is empty; allowed: {', '.join(OPERATORS)}.")
    for name in names:
        if name not in OPERATORS:
            raise InputError(f"--operators: '{name}' is unknown; {suggest(name, OPERATORS)}")
    return tuple(name for name in OPERATORS if name in names)


def cases(device: Device, operators: Sequence[str], *, quick: bool = False) -> list[Case]:
    """What to measure on ``device``: every case once, operators in turn.

    Args:
        device: asked which kernels it has.
        operators: those wanted, of ``OPERATORS``.
        quick: a third of the shapes.
    """
    limits = Limits.of(device.machine, quick=quick)
    makers = {
        "gemm": lambda: _gemms(device, limits),
        "attn_prefill": lambda: _attention(device, limits, "attn_prefill"),
        "attn_decode": lambda: _attention(device, limits, "attn_decode"),
        "moe": lambda: _all(
            "moe",
            moe_kernel(device),
            "bfloat16",
            shapes.moe_shapes(limits, limits.count(24, 12)),
        ),
        "elementwise": lambda: _elementwise(limits),
        "copy": lambda: _copies(device, limits),
        "comm": lambda: _collectives(device, limits),
        "launch": lambda: [
            *_all("launch", "torch_issue", "bfloat16", [()]),
            *_all("launch", "torch_graph_node", "bfloat16", [()]),
        ],
    }
    return _in_turn([makers[name]() for name in operators])


def _gemms(device: Device, limits: Limits) -> list[Case]:
    found = _all("gemm", "torch_mm", "bfloat16", shapes.gemm_shapes(limits, limits.count(48, 24)))
    if limits.cpu:
        return found
    if fp8_works(device):
        found += _all(
            "gemm", "torch_scaled_mm", "fp8", shapes.gemm_shapes(limits, limits.count(48, 0), 11)
        )
    return found + _all(
        "gemm", "torch_mm", "float16", shapes.gemm_shapes(limits, limits.count(18, 0), 12)
    )


def _attention(device: Device, limits: Limits, operator: str) -> list[Case]:
    kernels = working_backends(device, "bfloat16")[operator]
    if operator == "attn_prefill":
        found = shapes.prefill_shapes(limits, limits.count(12, 12))
    else:
        found = shapes.decode_shapes(limits, limits.count(20, 16))
    lists = [_all(operator, kernel, "bfloat16", found) for kernel in kernels]
    return _in_turn(lists)


def _elementwise(limits: Limits) -> list[Case]:
    top = limits.weight_bytes / 4.0 if limits.cpu else min(256e6, limits.weight_bytes)
    sizes = shapes.byte_sizes(48 * 1024, top, limits.count(8, 8))
    lists = [
        _all("elementwise", kernel, "bfloat16", [(("bytes", size),) for size in sizes])
        for kernel in ELEMENTWISE
    ]
    return _in_turn(lists)


def _copies(device: Device, limits: Limits) -> list[Case]:
    machine = device.machine
    top = 4.0 * limits.weight_bytes if limits.cpu else min(512e6, limits.weight_bytes)
    sizes = shapes.byte_sizes(64 * 1024, top, limits.count(8, 8))
    kinds: list[tuple[tuple[str, int | str], ...]] = [(("op", "device"),)]
    if machine.kind != "cpu":
        kinds += [(("op", "h2d"),), (("op", "d2h"),)]
    if machine.devices > 1 and machine.kind != "cpu":
        kinds.append((("op", "peer"), ("peer", 1)))
    lists = [
        [Case("copy", "torch_copy", "bfloat16", (*kind, ("bytes", size))) for size in sizes]
        for kind in kinds
    ]
    return _in_turn(lists)


def _collectives(device: Device, limits: Limits) -> list[Case]:
    """All-reduce and all-to-all, for each number of ranks; not interleaved: ranks start once."""
    machine = device.machine
    top = 4e6 if limits.cpu else 64 * 2.0**20
    sizes = shapes.byte_sizes(4096, top, limits.count(12, 6))
    worlds = [2] if limits.cpu else [n for n in (2, 4, 8) if n <= machine.devices]
    kernel = "gloo" if limits.cpu else "NCCL"
    return [
        Case(
            "comm",
            kernel,
            "bfloat16",
            (("op", op), ("n_gpus", world), ("elements", size // 2), ("bytes", size)),
        )
        for world in worlds
        for op in COLLECTIVES
        for size in sizes
    ]


def _all(operator: str, kernel: str, dtype: str, found: Iterable[Shape]) -> list[Case]:
    unique = dict.fromkeys(found)
    return [Case(operator, kernel, dtype, shape) for shape in unique]


def _in_turn(lists: Sequence[Sequence[Case]]) -> list[Case]:
    """The first of each list, the second of each, …; each list in an order without a trend."""
    mixed = [_mixed(found) for found in lists]
    return [case for row in zip_longest(*mixed) for case in row if case is not None]


def _mixed(found: Sequence[Case]) -> list[Case]:
    """Steps of a fixed stride through the list: small and large shapes alternate."""
    count = len(found)
    stride = next(s for s in (5, 7, 11, 13, 1) if gcd(s, count) == 1)
    return [found[(i * stride) % count] for i in range(count)]
