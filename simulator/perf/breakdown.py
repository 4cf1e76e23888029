"""Where the time of one step goes, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from simulator.perf.forms import causal_pairs
from simulator.perf.operators import ACTIVATION_BYTES, Operators, largest

Bound = Literal["compute", "memory", "link", "latency", "host"]


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """One operator of a step, all its calls together, on each GPU of the instance.

    Attributes:
        name: e.g. ``"down_proj"``.
        calls: kernel launches.
        time_s: time of all calls [s].
        flops: arithmetic of all calls [FLOP].
        bytes: bytes moved by all calls, through memory or (all-reduce) as messages [bytes].
        bound: its largest part: ``compute``, ``memory``, ``link``, ``latency`` (fixed costs) or
            ``host`` (the engine's own work).
    """

    name: str
    calls: int
    time_s: float
    flops: float
    bytes: float
    bound: Bound


@dataclass(frozen=True, slots=True)
class StepShape:
    """The sufficient statistics of a step.

    Attributes:
        batch: decoding sequences.
        kv_tokens: KV tokens they read.
        prefills: chunks.
        new: prompt tokens computed.
        pairs: query-key pairs of the chunks.
        read: KV tokens the chunks read back.
        rows: tokens sampled.
    """

    batch: int
    kv_tokens: float
    prefills: int
    new: int
    pairs: float
    read: int
    rows: int

    @classmethod
    def of(
        cls, batch: int, kv_tokens: float, chunks: Sequence[tuple[int, int]], rows: int | None
    ) -> StepShape:
        """Sum up ``(cached, new)`` chunks; ``rows`` None: every sequence samples."""
        return cls(
            batch=batch,
            kv_tokens=kv_tokens,
            prefills=len(chunks),
            new=sum(c for _, c in chunks),
            pairs=sum(float(causal_pairs(p, c)) for p, c in chunks),
            read=sum(p + c for p, c in chunks),
            rows=batch + len(chunks) if rows is None else rows,
        )

    @property
    def tokens(self) -> int:
        """New tokens of the step, decoded and prefilled."""
        return self.batch + self.new


def breakdown(
    ops: Operators, shape: StepShape, *, overhead_s: float, host_s: float
) -> list[OperatorTime]:
    """Operators of a step in the order a layer runs them.

    Args:
        ops: the bound kernels.
        shape: the step.
        overhead_s: framework overhead of this step [s].
        host_s: lower bound of the step [s]; where it binds, the rest is named ``host_wait``.

    Returns:
        Operators whose times add up to the step's time; those that do not run are left out.
    """
    parts = [
        *_gemms(ops, shape),
        _decode_attention(ops, shape),
        _prefill_attention(ops, shape),
        _all_reduces(ops, shape),
        _elementwise(ops, shape),
        _lm_head(ops, shape),
        OperatorTime("framework", 1, overhead_s if shape.tokens else 0.0, 0.0, 0.0, "host"),
    ]
    parts = [part for part in parts if part.time_s > 0.0]
    total = sum(part.time_s for part in parts)
    if host_s > total:
        parts.append(OperatorTime("host_wait", 1, host_s - total, 0.0, 0.0, "host"))
    return parts


def _gemms(ops: Operators, shape: StepShape) -> list[OperatorTime]:
    layers, m = ops.model.layers, float(shape.tokens)
    return [
        OperatorTime(
            name=gemm.name,
            calls=layers,
            time_s=layers * float(gemm.time_s(m)),
            flops=layers * 2.0 * m * gemm.n * gemm.k,
            bytes=layers * gemm.traffic_bytes(m),
            bound=_bound(gemm.bound(m)),
        )
        for gemm in ops.gemms
    ]


def _lm_head(ops: Operators, shape: StepShape) -> OperatorTime:
    rows, head = float(shape.rows), ops.head
    return OperatorTime(
        name=head.name,
        calls=1,
        time_s=float(head.time_s(rows)),
        flops=2.0 * rows * head.n * head.k,
        bytes=head.traffic_bytes(rows),
        bound=_bound(head.bound(rows)),
    )


def _decode_attention(ops: Operators, shape: StepShape) -> OperatorTime:
    model, attention, layers = ops.model, ops.attention, ops.model.layers
    fixed, sequence, token = ops.decode
    heads = attention.heads // ops.tp
    kv = model.kv_bytes_per_token_per_gpu(ops.tp, ops.precision.kv_bytes) * shape.kv_tokens
    q_o = layers * 2.0 * shape.batch * heads * attention.head_dim * ACTIVATION_BYTES
    streamed = token * shape.kv_tokens
    start = fixed + sequence * shape.batch
    return OperatorTime(
        name="decode_attention",
        calls=layers,
        time_s=layers * (start + streamed) if shape.batch else 0.0,
        flops=layers * 4.0 * heads * attention.head_dim * shape.kv_tokens,
        bytes=kv + q_o,
        bound=_bound(largest(memory=streamed, latency=start)),
    )


def _prefill_attention(ops: Operators, shape: StepShape) -> OperatorTime:
    model, attention, layers = ops.model, ops.attention, ops.model.layers
    fixed, per_pair, per_new, per_read = ops.prefill
    heads = attention.heads // ops.tp
    kv = model.kv_bytes_per_token_per_gpu(ops.tp, ops.precision.kv_bytes)
    q_o = layers * 2.0 * shape.new * heads * attention.head_dim * ACTIVATION_BYTES
    compute = per_pair * shape.pairs
    memory = per_new * shape.new + per_read * shape.read
    return OperatorTime(
        name="prefill_attention",
        calls=layers,
        time_s=layers * (fixed + compute + memory) if shape.prefills else 0.0,
        flops=layers * 4.0 * heads * attention.head_dim * shape.pairs,
        bytes=kv * (shape.new + shape.read) + q_o,
        bound=_bound(largest(compute=compute, memory=memory, latency=fixed)),
    )


def _all_reduces(ops: Operators, shape: StepShape) -> OperatorTime:
    calls, m = 2 * ops.model.layers, float(shape.tokens)
    time = float(ops.all_reduce_s(m))
    # A message of one token of width 1 would cost about the fixed part: compare with the rest.
    fixed = float(ops.all_reduce_s(1.0 / ops.model.hidden))
    return OperatorTime(
        name="all_reduce",
        calls=calls,
        time_s=calls * time,
        flops=0.0,
        bytes=calls * float(ops.message_bytes(m)),
        bound=_bound(largest(link=time - fixed, latency=fixed)),
    )


def _elementwise(ops: Operators, shape: StepShape) -> OperatorTime:
    layers, m = ops.model.layers, float(shape.tokens)
    params = ops.family.elementwise
    fixed = params.kernels_per_layer.value * params.t0_s.value
    time = float(ops.elementwise_s(m))
    return OperatorTime(
        name="elementwise",
        calls=round(layers * params.kernels_per_layer.value),
        time_s=layers * time,
        flops=0.0,
        bytes=layers * m * ops.elementwise_bytes_per_token,
        bound=_bound(largest(memory=time - fixed, latency=fixed)),
    )


def _bound(name: str) -> Bound:
    return cast(Bound, name)
