"""At which sizes the operators of steps are evaluated, beside those their parameters come from.

A profile says of most operators which sizes were measured (``ranges``). ``evaluations`` lists the
operators of representative steps with the sizes they run at there, the time they take, and the
measurements behind them; ``ranges`` judges the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hwprofiles import Param
from hwprofiles.profile import Ranges
from simulator.model import GqaAttention
from simulator.perf.attention import GroupAttention
from simulator.perf.elementwise import Elementwise
from simulator.perf.experts import Experts, moe_params
from simulator.perf.fabric import AllReduce, Send
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import ACTIVATION_BYTES, Gemm, TokenOperator
from simulator.perf.operators import Operators
from simulator.perf.rank import RankCost
from simulator.perf.shape import Share, span_of
from simulator.perf.step import StepModel


@dataclass(frozen=True, slots=True)
class Prefills:
    """Prompts as they are prefilled; arrays of one shape.

    Attributes:
        prompt: its tokens.
        step: tokens of the steps it is prefilled in: more than ``prompt`` where others share them,
            fewer where it is cut into chunks.
    """

    prompt: Array
    step: Array


@dataclass(frozen=True, slots=True)
class Decodes:
    """Output tokens as they are decoded; arrays of one shape.

    Attributes:
        count: tokens decoded with this context.
        context: tokens in the cache when they are.
        batch: sequences of an attention rank that decode together.
    """

    count: Array
    context: Array
    batch: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One operator over some prompts or output tokens.

    Attributes:
        part: what the breakdown calls it, e.g. ``lm_head``.
        operator: section of the profile its parameters are in; empty for none.
        kind: type these are given for; empty where there is only one set.
        time_s: time it takes for each prompt, or for each group of output tokens [s].
        sizes: sizes it is evaluated at, by the names of ``ranges``: arrays like ``time_s``, or numbers.
        ranges: sizes that were measured; empty where the profile does not say.
        why: why its parameters are not those of measurements of it: ``borrowed`` from another
            GPU, ``stands_in`` (another operator's or engine's), ``assumed``; None where they are.
    """

    part: str
    operator: str
    kind: str
    time_s: Array
    sizes: Mapping[str, Size] = field(default_factory=dict)
    ranges: Ranges = ()
    why: str | None = None


def prefill_evaluations(step: StepModel, x: Prefills) -> list[Evaluation]:
    """Every operator of the prefill of some prompts, each prompt's share of the steps it is in.

    Args:
        step: the instance.
        x: the prompts.
    """
    ops, share = step.operators_per_gpu, x.prompt / x.step
    found = [_tokens(ops, op, x.step, share) for op in ops.tokens]
    found += [_tokens(ops, op, x.step * step.parallel.attention_dp, share) for op in ops.joint]
    together = np.maximum(1.0, x.step / x.prompt)
    found.append(_tokens(ops, ops.head, together, 1.0 / together))
    found += [_prefill_attention(ops, group, x, share) for group in ops.attention]
    return [*found, _framework(share * step.c0_s + step.c1_s)]


def decode_evaluations(step: StepModel, x: Decodes) -> list[Evaluation]:
    """Every operator of the decoding of some output tokens.

    Args:
        step: the instance.
        x: the tokens.
    """
    ops, pp = step.operators_per_gpu, step.parallel.pp
    held = np.full_like(x.context, max(1.0, x.batch / pp))
    share = x.count / max(x.batch, 1.0)
    everywhere = held * step.parallel.attention_dp
    found = [_tokens(ops, op, held, share) for op in ops.tokens]
    found += [_tokens(ops, op, everywhere, share) for op in ops.joint]
    found.append(_tokens(ops, ops.head, held, share))
    found += [_decode_attention(ops, group, x, held, share) for group in ops.attention]
    return [*found, _framework(share * step.c0_s + x.count * step.c1_s / pp)]


def _framework(time_s: Array) -> Evaluation:
    """The engine's own work: fitted to serving runs, not to kernels."""
    return Evaluation("framework", "", "", np.asarray(time_s, dtype=np.float64))


# --- operators over tokens ----------------------------------------------------------------------


def _tokens(ops: Operators, op: TokenOperator, m: Array, share: Array) -> Evaluation:
    time_s = np.asarray(op.calls * op.time_s(m) * share, dtype=np.float64)
    if isinstance(op, Gemm):
        return _gemm(ops, op, m, time_s)
    if isinstance(op, Experts):
        return _experts(ops, op, m, time_s)
    if isinstance(op, AllReduce):
        return _all_reduce(ops, op, m, time_s)
    if isinstance(op, Send):
        return _send(ops, op, m, time_s)
    assert isinstance(op, Elementwise)
    return Evaluation(op.name, "elementwise", "", time_s, why=_why(op.params))


def _gemm(ops: Operators, op: Gemm, m: Array, time_s: Array) -> Evaluation:
    params = dict(ops.family.gemm)[op.kernel]
    return Evaluation(
        op.name, "gemm", op.kernel, time_s, {"m": m, "n": op.n, "k": op.k}, params.ranges,
        _why(params) if op.own else "stands_in",
    )  # fmt: skip


def _experts(ops: Operators, op: Experts, m: Array, time_s: Array) -> Evaluation:
    how = ops.how.experts
    params = moe_params(ops.family, how)
    if params is None:
        return Evaluation(op.name, "gemm", how.kernel, time_s, why="stands_in")
    kind = next(kind for kind, known in ops.family.moe if known is params)
    own = kind in (how.stored, how.compute) if how.compute != "bf16" else _reads(how.stored, kind)
    sizes: dict[str, Size] = {
        "tokens": m,
        "hidden": op.down.n,
        "width": op.down.k,
        "topk": op.routing.per_token,
        "experts": op.routing.experts,
    }
    why = _why(params) if own else "stands_in"
    return Evaluation(op.name, "moe", kind, time_s, sizes, params.ranges, why)


def _reads(stored: str, kind: str) -> bool:
    """Whether experts of a kind are multiplied in bf16 from just that format."""
    return kind == stored or kind == f"{stored.split('_')[0]}_weight_only"


def _all_reduce(ops: Operators, op: AllReduce, m: Array, time_s: Array) -> Evaluation:
    params = ops.family.all_reduce
    bus = op.fabric.bus(op.gpus)
    known = bus if isinstance(params, tuple) else params
    kind = "" if bus is None else str(bus.gpus)
    sizes: dict[str, Size] = {"n_gpus": op.gpus, "bytes": m * op.width * ACTIVATION_BYTES}
    ranges = () if known is None else known.ranges
    return Evaluation(op.name, "all_reduce", kind, time_s, sizes, ranges, _why(known))


def _send(ops: Operators, op: Send, m: Array, time_s: Array) -> Evaluation:
    """An exchange of tokens; hops between pipeline stages take what an all-reduce reaches."""
    own, parallel = ops.family.all_to_all, ops.parallel
    measured = own is not None and ops.gpu.nvlink_bytes_per_s is not None
    if (
        op.name == "pipeline_hop"
        or not measured
        or parallel.stage_gpus > ops.gpu.gpus_per_node.value
    ):
        return Evaluation(op.name, "all_reduce", "", time_s, why="stands_in")
    assert own is not None
    most = float(m.max())  # bytes are proportional to tokens
    sizes: dict[str, Size] = {
        "n_gpus": parallel.stage_gpus,
        "bytes": m * (op.traffic_bytes(most) / most),
    }
    return Evaluation(op.name, "all_to_all", "", time_s, sizes, own.ranges, _why(own))


# --- attention ----------------------------------------------------------------------------------


def _prefill_attention(
    ops: Operators, group: GroupAttention, x: Prefills, share: Array
) -> Evaluation:
    cost, span = group.prefill, span_of(group.group)
    seen = np.minimum(x.prompt, span)
    pairs = 0.5 * seen * seen + seen * (x.prompt - seen)
    memory = cost.memory_s(x.prompt, x.prompt)
    # of a step's row of tiles a prompt answers for its share
    each = cost.fixed_s * share + cost.compute_s(pairs, share * seen) + memory
    operator, kind, params, why = _attention_params(ops, group, "prefill")
    return Evaluation(
        "prefill_attention", operator, kind, group.layers * each,
        {"isl": seen, **_heads(ops, group)}, params.ranges, why,
    )  # fmt: skip


def _decode_attention(
    ops: Operators, group: GroupAttention, x: Decodes, held: Array, share: Array
) -> Evaluation:
    seen = np.minimum(x.context, span_of(group.group))
    alone = RankCost(replace(ops, attention=(group,)), 0.0, 0.0, Share(ranks=1, stages=1))
    step_s = alone.decode_attention_s(held, (held * seen,), np.ones_like(held))
    operator, kind, params, why = _attention_params(ops, group, "decode")
    return Evaluation(
        "decode_attention", operator, kind, share * step_s,
        {"batch": held, "kv_len": seen, **_heads(ops, group)}, params.ranges, why,
    )  # fmt: skip


def _heads(ops: Operators, group: GroupAttention) -> dict[str, Size]:
    attention, tp = group.group.attention, ops.parallel.tp
    if not isinstance(attention, GqaAttention):
        return {"n_heads": attention.heads // tp}
    return {
        "n_heads": attention.heads // tp,
        "n_kv_heads": attention.kv_heads_per_gpu(tp),
        "head_dim": attention.head_dim,
    }


def _attention_params(
    ops: Operators, group: GroupAttention, phase: str
) -> tuple[str, str, Any, str | None]:
    """Section, type and parameters of a group's attention, and why they are not its own."""
    latent = not isinstance(group.group.attention, GqaAttention)
    wanted = f"mla_{phase}" if latent else f"{phase}_attention"
    operator = wanted if getattr(ops.family, wanted) else f"{phase}_attention"
    known = dict(getattr(ops.family, operator))
    kind = ops.precision.kv if ops.precision.kv in known else "bf16"
    own = operator == wanted and kind == ops.precision.kv
    return operator, kind, known[kind], _why(known[kind]) if own else "stands_in"


def _why(params: object) -> str | None:
    """Why parameters are not those of measurements: the worst of their sources."""
    if params is None:
        return "assumed"
    found = [getattr(params, name) for name in getattr(params, "__slots__", ())]
    kinds = {p.source.kind for p in found if isinstance(p, Param) and p.source.kind != "datasheet"}
    if "borrowed" in kinds:
        return "borrowed"
    return "assumed" if kinds and kinds <= {"assumed"} else None
