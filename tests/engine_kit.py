"""Small deployments with round numbers, built without a scenario file, for tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwprofiles import load_gpu
from simulator.model import Parallel
from simulator.perf.table import AttentionGroupPlan, AttentionPiece, StepPiece, StepTable
from simulator.request import State
from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan
from simulator.workload import ClosedLoop, Requests

INF = float("inf")


def table(
    *,
    a0: float = 0.010,
    a1: float = 0.0002,
    per_kv: float = 1e-6,
    per_token: float = 2e-5,
    head: float = 1e-5,
    pair: float = 1e-9,
    host_s: float = 0.0,
    max_seqs: int = 64,
    max_tokens: int = 20000,
) -> StepTable:
    """Decode step a0 + a1·B + per_kv·S; a step over m new tokens adds per_token each."""
    batches = range(max_seqs + 1)
    token_s = [a0 + per_token * m for m in range(max_tokens + 1)]
    attn = [5e-5 * (b > 0) for b in batches]
    return plain_table(
        host_s=host_s,
        a=[token_s[b] + head * b + a1 * b + attn[b] if b else 0.0 for b in batches],
        b=[per_kv] * (max_seqs + 1),
        token_s=token_s,
        head_s=[head * r for r in range(max_seqs + 1)],
        seq_s=a1,
        attention=AttentionGroupPlan(
            (AttentionPiece(attn, [per_kv for _ in batches]),), 1e-4, pair, 1e-8, 1e-9
        ),
    )


def plain_table(
    *,
    a: list[float],
    b: list[float],
    token_s: list[float],
    head_s: list[float],
    seq_s: float,
    attention: AttentionGroupPlan,
    host_s: float = 0.0,
) -> StepTable:
    """One rank, one attention group, one affine piece."""
    return StepTable(
        host_s=host_s,
        token_s=token_s,
        head_s=head_s,
        seq_s=seq_s,
        groups=(attention,),
        pieces=(StepPiece(a, (b,)),),
    )


def grouped(plain: StepTable, kind: str = "plain", ranks: int = 1, stages: int = 1) -> StepTable:
    """A table with the same order of times, of a model or parallelism of another kind.

    Windows, chunks and the places where pieces cross are small, so that short tests meet them.
    """
    attention, piece = plain.groups[0], plain.pieces[0]
    per_kv = attention.decode[0].token_s[0]
    windowed = replace(attention, window=24, units=2, prefill_pair_s=3e-9, prefill_chain_s=1e-4)
    local = replace(attention, local_chunk=19, units=3, prefill_read_s=2e-9, prefill_chain_s=2e-4)
    if kind == "everything":  # the longest context counts, of many chunks
        attention = replace(attention, prefill_chain_s=1e-5)
    n = len(piece.a)
    half, twice = [0.5 * x for x in piece.b[0]], [2.0 * x for x in piece.b[0]]
    latency = AttentionPiece([1e-3 * (b > 0) for b in range(n)], [0.1 * per_kv] * n)
    groups = {
        "plain": (attention,),
        "pieces": (replace(attention, decode=(*attention.decode, latency)),),
        "windowed": (attention, windowed),
        "window": (replace(attention, window=40),),
        "local": (attention, local),
        "everything": (attention, windowed, replace(local, decode=(*local.decode, latency))),
    }[kind]
    g = len(groups)
    pieces = (StepPiece(piece.a, (piece.b[0], *[half] * (g - 1))),)
    if kind in ("pieces", "everything"):
        later, last = [0.98 * x for x in piece.a], [0.9 * x for x in piece.a]
        pieces += (
            StepPiece(later, (twice, *[half] * (g - 1))),
            StepPiece(last, (half, *[[4.0 * x for x in piece.b[0]]] * (g - 1))),
        )
    joint = [1e-3 * (m > 0) + 1e-5 * m for m in range(ranks * plain.max_tokens + 1)]
    graphs: dict[str, Any] = {"eager_s": 0.018, "graph_tokens": 6} if kind == "windowed" else {}
    return replace(
        plain,
        groups=groups,
        pieces=pieces,
        joint_s=joint if ranks > 1 else None,
        decode_joint_s=[1.1 * x for x in joint] if ranks > 1 and kind == "windowed" else None,
        **graphs,
        ranks=ranks,
        stages=stages,
    )


KINDS = ("plain", "pieces", "windowed", "window", "local", "everything")


def pool(role: str, **kw: Any) -> PoolPlan:
    """A pool of one GPU per instance, four NICs fewer than you think: one."""
    max_seqs = kw.get("max_num_seqs", 64)
    defaults: dict[str, Any] = {
        "name": role,
        "role": role,
        "gpu": load_gpu("h100_sxm"),
        "parallel": Parallel(tp=kw.pop("tp", 1)),
        "instances": 1,
        "step": None,
        "table": table(max_seqs=max_seqs),
        "block_tokens": 16,
        "capacity_blocks": 10_000,
        "max_num_seqs": max_seqs,
        "max_num_batched_tokens": 2048,
        "max_wait_s": 0.0,
        "nics": 1,
        "usd_per_gpu_hour": 2.0,
    }
    return PoolPlan(**(defaults | kw))


class TinyModel:
    """Stands for a ModelSpec where the engine only asks for the number of layers."""

    layers = 4
    kv_tensors = 8
    name = "tiny"
    max_position = 10**9


def link(**kw: Any) -> LinkPlan:
    """A fabric of 1 MB/s NICs with 1 ms latency."""
    defaults: dict[str, Any] = {
        "name": "test",
        "nic_bytes_per_s": 1e6,
        "base_latency_s": 1e-3,
        "message_s": 0.0,
        "coalesced": True,
        "spine_bytes_per_s": INF,
    }
    return LinkPlan(**(defaults | kw))


def deployment(*pools: PoolPlan, **kw: Any) -> Deployment:
    """A deployment of these pools; colocated if the first one is."""
    colocated = pools[0].role == "colocated"
    defaults: dict[str, Any] = {
        "name": "test",
        "mode": "colocated" if colocated else "disaggregated",
        "model": TinyModel,
        "pools": pools,
        "link": None if colocated else link(),
        "kv_wire_bytes_per_token": 10.0,
        "first_token": "decode",
        "reserve": "after_prefill",
        "transfer": "after_prefill",
        "prefill_router": "round_robin",
        "decode_router": "round_robin",
        "router_latency_s": 0.0,
    }
    return Deployment(**(defaults | kw))


def requests(
    arrival_s: Sequence[float],
    prompt_tokens: Sequence[int] | int,
    output_tokens: Sequence[int] | int,
    concurrency: int | None = None,
) -> Requests:
    """A workload from plain sequences."""
    n = len(arrival_s)
    return Requests(
        arrival_s=np.asarray(arrival_s, dtype=np.float64),
        prompt_tokens=np.broadcast_to(np.asarray(prompt_tokens, dtype=np.int64), (n,)).copy(),
        output_tokens=np.broadcast_to(np.asarray(output_tokens, dtype=np.int64), (n,)).copy(),
        source="test",
        stationary=True,
        closed_loop=None if concurrency is None else ClosedLoop(concurrency),
    )


class Trail:
    """Observer that writes down every change of state."""

    def __init__(self) -> None:
        self.events: list[tuple[float, int, str, int]] = []

    def on_state(self, t_s: float, request_id: int, state: State, instance: int) -> None:
        self.events.append((t_s, request_id, state.name, instance))
