"""Where the time of one step goes, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from simulator.perf.attention import GroupAttention
from simulator.perf.kernels import Gemm, TokenOperator, largest
from simulator.perf.operators import Operators
from simulator.perf.shape import StepShape

Bound = Literal["compute", "memory", "link", "latency", "host"]


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator of a step, all its calls together, on each GPU of the instance.

    Attributes:
        name: e.g. ``"down_proj"``.
        calls: kernel launches.
        time_s: time of all calls [s].
        flops: arithmetic of all calls [FLOP].
        bytes: bytes moved by all calls, through memory or (collectives) as messages [bytes].
        bound: its largest part: ``compute``, ``memory``, ``link``, ``latency`` (fixed costs) or
            ``host`` (the engine's own work).
    """

    name: str
    calls: int
    time_s: float
    flops: float
    bytes: float
    bound: Bound


def breakdown(
    ops: Operators, shape: StepShape, *, overhead_s: float, host_s: float
) -> list[OperatorTime]:
    """Operators of a step in the order a layer runs them.

    Args:
        ops: the bound kernels.
        shape: the step as one GPU sees it.
        overhead_s: framework overhead of this step [s].
        host_s: lower bound of the step [s]; where it binds, the rest is named ``host_wait``.

    Returns:
        Operators whose times add up to the step's time; those that do not run are left out, and
        those of one name (in layers of different kinds) are one entry.
    """
    gemms = [op for op in ops.tokens if isinstance(op, Gemm)]
    others = [op for op in ops.tokens if not isinstance(op, Gemm)]
    empty = shape.tokens == 0.0
    parts = [
        *(_operator(op, shape.tokens) for op in gemms),
        *(_decode(group, shape, i) for i, group in enumerate(ops.attention)),
        *(_prefill(group, shape, i) for i, group in enumerate(ops.attention)),
        *(_operator(op, shape.all_tokens) for op in ops.joint),
        *(_operator(op, shape.tokens) for op in others),
        _operator(ops.head, shape.rows),
        OperatorTime("framework", 1, 0.0 if empty else overhead_s, 0.0, 0.0, "host"),
    ]
    merged: dict[str, OperatorTime] = {}
    for part in parts:
        if part.time_s > 0.0:
            merged[part.name] = _together(merged.get(part.name), part)
    found = list(merged.values())
    total = sum(part.time_s for part in found)
    if host_s > total:
        found.append(OperatorTime("host_wait", 1, host_s - total, 0.0, 0.0, "host"))
    return found


def _together(one: OperatorTime | None, two: OperatorTime) -> OperatorTime:
    if one is None:
        return two
    return OperatorTime(
        name=one.name,
        calls=one.calls + two.calls,
        time_s=one.time_s + two.time_s,
        flops=one.flops + two.flops,
        bytes=one.bytes + two.bytes,
        bound=max(one, two, key=lambda part: part.time_s).bound,
    )


def _operator(op: TokenOperator, m: float) -> OperatorTime:
    return OperatorTime(
        name=op.name,
        calls=round(op.calls * op.kernels),
        time_s=op.calls * float(op.time_s(m)),
        flops=op.calls * op.flops(m),
        bytes=op.calls * op.traffic_bytes(m),
        bound=cast(Bound, op.bound(m)),
    )


def _decode(group: GroupAttention, shape: StepShape, i: int) -> OperatorTime:
    reads, layers = shape.reads[i], group.layers
    batch = np.asarray(shape.batch, dtype=np.float64)
    start, streamed, bound = max(
        ((float(p.start_s(batch)), float(p.token_s(batch)) * reads, p.bound) for p in group.decode),
        key=lambda part: part[0] + part[1],
    )
    return OperatorTime(
        name="decode_attention",
        calls=layers,
        time_s=layers * (start + streamed) if shape.batch else 0.0,
        flops=layers * group.decode_pair_flops * reads,
        bytes=layers * (group.kv_bytes * reads + group.decode_io_bytes * shape.batch),
        bound=cast(Bound, largest(**{bound: streamed, "latency": start})),
    )


def _prefill(group: GroupAttention, shape: StepShape, i: int) -> OperatorTime:
    cost, layers = group.prefill, group.layers
    compute = float(cost.compute_s(shape.pairs[i], shape.longest[i]))
    memory = float(cost.memory_s(np.asarray(shape.new), np.asarray(shape.read[i])))
    moved = group.kv_bytes * (shape.new + shape.read[i]) + group.prefill_io_bytes * shape.new
    return OperatorTime(
        name="prefill_attention",
        calls=layers,
        time_s=layers * (cost.fixed_s + compute + memory) if shape.prefills else 0.0,
        flops=layers * group.prefill_pair_flops * shape.pairs[i],
        bytes=layers * moved,
        bound=cast(Bound, largest(compute=compute, memory=memory, latency=cost.fixed_s)),
    )
