"""Matrix multiplication ``y[m,n] = x[m,k] · W[k,n]`` with the weight stored as engines do, [n,k]."""

from __future__ import annotations

from functools import partial
from typing import Any

from calibration.case import Case, work
from calibration.device import Device, Program
from calibration.timing import copies_needed

FP8_OPERATOR = "_scaled_mm"


def gemm_program(device: Device, case: Case) -> Program:
    """``torch.mm``, or ``torch._scaled_mm`` for fp8."""
    sizes, held = case.sizes, work(case).held_bytes
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    copies = copies_needed(held, device.machine.cache_bytes)
    arena, size = device.arena, 1 if case.dtype == "fp8" else 2
    arena.reserve(case.dtype, copies * ((n + m) * k * size + 512))
    out_dtype = "bfloat16" if case.dtype == "fp8" else case.dtype
    arena.reserve(out_dtype, copies * (2 * m * n + 256), results=True)
    build = _fp8_call if case.dtype == "fp8" else _call
    calls = [
        build(
            device.torch,
            arena.take(case.dtype, m, k),
            arena.take(case.dtype, n, k),
            arena.take(out_dtype, m, n, results=True),
        )
        for _ in range(copies)
    ]
    return Program(calls, held)


def _call(torch: Any, x: Any, weight: Any, out: Any) -> Any:
    return partial(torch.mm, x, weight.t(), out=out)


def _fp8_call(torch: Any, x: Any, weight: Any, out: Any) -> Any:
    """Per-tensor scales, inputs already in fp8: the transposed view makes the weight column-major."""
    one = torch.ones((), dtype=torch.float32, device=x.device)
    return partial(
        getattr(torch, FP8_OPERATOR),
        x,
        weight.t(),
        scale_a=one,
        scale_b=one,
        out_dtype=out.dtype,
        use_fast_accum=True,
        out=out,
    )


def fp8_works(device: Device) -> bool:
    """Whether this torch multiplies fp8 matrices on this device; asked by doing it once.

    The GPU must have fp8 units (compute capability 8.9 or more): a CPU only emulates them.
    """
    if device.machine.capability < 89 or not hasattr(device.torch, FP8_OPERATOR):
        return False
    try:
        gemm_program(
            device,
            Case("gemm", "torch_scaled_mm", "fp8", (("m", 16), ("n", 256), ("k", 256))),
        ).calls[0]()
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    finally:
        device.arena.clear()
    return True
