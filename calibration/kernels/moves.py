"""Operators that only move bytes: norms, activations, copies; and what starting a kernel costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from calibration.case import BYTES_OF, Case, work
from calibration.device import Device, Program
from calibration.timing import copies_needed

WIDTH = 4096
"""Channels of a row of the elementwise operators."""

ELEMENTWISE = ("torch_rms_norm", "torch_mul")


def elementwise_program(device: Device, case: Case) -> Program:
    """RMS norm (1 read, 1 write), or a product as in a gated activation (2 reads, 1 write)."""
    held = work(case).held_bytes
    passes = 2 if case.kernel == "torch_rms_norm" else 3
    size = BYTES_OF[case.dtype]
    rows = max(1, round(held / (passes * WIDTH * size)))
    copies = copies_needed(held, device.machine.cache_bytes)
    arena = device.arena
    arena.reserve(case.dtype, copies * (2 * rows * WIDTH * size + 2 * 256))
    arena.reserve(case.dtype, copies * (rows * WIDTH * size + 256), results=True)
    build = _norm if case.kernel == "torch_rms_norm" else _gate
    calls = [
        build(
            device.torch,
            arena.take(case.dtype, rows, WIDTH),
            arena.take(case.dtype, rows, WIDTH),
            arena.take(case.dtype, rows, WIDTH, results=True),
        )
        for _ in range(copies)
    ]
    return Program(calls, held)


def _norm(torch: Any, x: Any, other: Any, out: Any) -> Callable[[], Any]:
    del out
    weight = other[0]
    return partial(torch.nn.functional.rms_norm, x, (WIDTH,), weight, 1e-5)


def _gate(torch: Any, x: Any, other: Any, out: Any) -> Callable[[], Any]:
    return partial(torch.mul, x, other, out=out)


def copy_program(device: Device, case: Case) -> Program:
    """A copy within the device, or between it and pinned memory of the host, or another device."""
    count = case.sizes["bytes"]
    builders = {"device": _within, "h2d": _across, "d2h": _across, "peer": _to_peer}
    return builders[case.sizes["op"]](device, case, count)


def _within(device: Device, case: Case, count: int) -> Program:
    copies = copies_needed(2.0 * count, device.machine.cache_bytes)
    arena, numbers = device.arena, count // BYTES_OF[case.dtype]
    arena.reserve(case.dtype, copies * (count + 256))
    arena.reserve(case.dtype, copies * (count + 256), results=True)
    calls = [
        partial(
            arena.take(case.dtype, numbers, results=True).copy_, arena.take(case.dtype, numbers)
        )
        for _ in range(copies)
    ]
    return Program(calls, 2.0 * count)


def _across(device: Device, case: Case, count: int) -> Program:
    """Host and device; the copy engine moves it while the host goes on."""
    torch, numbers = device.torch, count // BYTES_OF[case.dtype]
    device.arena.reserve(case.dtype, count)
    here = device.arena.take(case.dtype, numbers)
    there = torch.empty(numbers, dtype=here.dtype, pin_memory=True)
    to, source = (here, there) if case.sizes["op"] == "h2d" else (there, here)
    return Program([partial(to.copy_, source, non_blocking=True)], count, graph=False)


def _to_peer(device: Device, case: Case, count: int) -> Program:
    """To another GPU of this machine, ``case.sizes['peer']`` places after this one."""
    torch, numbers = device.torch, count // BYTES_OF[case.dtype]
    device.arena.reserve(case.dtype, count)
    here = device.arena.take(case.dtype, numbers)
    index = (here.device.index + case.sizes["peer"]) % device.machine.devices
    there = torch.empty(numbers, dtype=here.dtype, device=f"cuda:{index}")
    return Program([partial(there.copy_, here, non_blocking=True)], count, graph=False)


def launch_program(device: Device, case: Case) -> Program:
    """A kernel with next to nothing to do: in a graph, or issued one by one by the host."""
    device.arena.reserve(case.dtype, 4096)
    tiny = device.arena.take(case.dtype, 64)
    return Program([partial(tiny.mul_, 1.0)], 4096.0, host=case.kernel == "torch_issue")
