"""The routed experts of one layer: gather, gate and up, activation, down, weighted sum.

Routing is drawn once per case, uniform, and known beforehand, as it is to an engine's kernel once
its router has run. Where torch has a grouped GEMM for the device it computes all experts in one
kernel; elsewhere a loop over the experts does, and the rows say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from calibration.case import Case, work
from calibration.device import Device, Program
from calibration.timing import copies_needed

GROUPED = "torch_grouped_mm"
LOOP = "torch_expert_loop"


def moe_kernel(device: Device) -> str:
    """The kernel of this device: torch's grouped GEMM is one kernel on Hopper and data-centre Blackwell."""
    grouped = device.machine.capability // 10 in (9, 10) and hasattr(device.torch, "_grouped_mm")
    return GROUPED if grouped else LOOP


def moe_program(device: Device, case: Case) -> Program:
    """All experts of one rank on ``tokens`` tokens, ``topk`` of ``experts`` each."""
    s, held, torch = case.sizes, work(case).held_bytes, device.torch
    tokens, hidden, width, experts = s["tokens"], s["hidden"], s["width"], s["experts"]
    copies = copies_needed(3.0 * experts * hidden * width * 2.0, device.machine.cache_bytes, 16)
    arena, dtype = device.arena, case.dtype
    arena.reserve(dtype, copies * ((3 * experts * width + tokens) * hidden * 2 + 3 * 256))
    arena.reserve(dtype, copies * (tokens * hidden * 2 + 256), results=True)
    rows, counts = routing(tokens, s["topk"], experts)
    order = torch.as_tensor(rows, device=device.name)
    share = torch.full((len(rows), 1), 1.0 / s["topk"], dtype=torch.bfloat16, device=device.name)
    experts_of = _grouped if case.kernel == GROUPED else _looped
    calls = []
    for _ in range(copies):
        x = arena.take(dtype, tokens, hidden)
        w13 = arena.take(dtype, experts, 2 * width, hidden)
        w2 = arena.take(dtype, experts, hidden, width)
        out = arena.take(dtype, tokens, hidden, results=True)
        apply = experts_of(torch, w13, w2, counts)
        calls.append(_call(x, order, share.to(x.dtype), out, apply))
    return Program(calls, held)


def routing(tokens: int, topk: int, experts: int) -> tuple[Any, Any]:
    """A uniform draw of ``topk`` different experts a token.

    Returns:
        The token of each (token, expert) pair in the order of the experts, and pairs per expert.
    """
    rng = np.random.default_rng(7)
    chosen = np.argsort(rng.random((tokens, experts)), axis=1, kind="stable")[:, :topk]
    flat = chosen.ravel()
    order = np.argsort(flat, kind="stable")
    return order // topk, np.bincount(flat, minlength=experts)


def _call(x: Any, order: Any, share: Any, out: Any, apply: Callable[[Any], Any]) -> Any:
    def call() -> Any:
        y = apply(x.index_select(0, order))
        out.zero_()
        return out.index_add_(0, order, y.mul_(share))

    return call


def _grouped(torch: Any, w13: Any, w2: Any, counts: Any) -> Callable[[Any], Any]:
    ends = torch.as_tensor(np.cumsum(counts), dtype=torch.int32, device=w13.device)
    width = w2.shape[2]
    silu = torch.nn.functional.silu

    def apply(rows: Any) -> Any:
        h = torch._grouped_mm(rows, w13.transpose(-2, -1), offs=ends)
        h = silu(h[:, :width]) * h[:, width:]
        return torch._grouped_mm(h, w2.transpose(-2, -1), offs=ends)

    return apply


def _looped(torch: Any, w13: Any, w2: Any, counts: Any) -> Callable[[Any], Any]:
    width = w2.shape[2]
    silu, linear = torch.nn.functional.silu, torch.nn.functional.linear
    ends = np.cumsum(counts).tolist()
    spans = [
        (e, end - n, end) for e, (n, end) in enumerate(zip(counts.tolist(), ends, strict=True))
    ]
    touched = [span for span in spans if span[2] > span[1]]

    def apply(rows: Any) -> Any:
        parts = []
        for expert, start, end in touched:
            h = linear(rows[start:end], w13[expert])
            parts.append(linear(silu(h[:, :width]) * h[:, width:], w2[expert]))
        return torch.cat(parts)

    return apply
