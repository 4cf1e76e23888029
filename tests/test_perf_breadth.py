"""Every bundled model, legal parallelism and format: work conserved, time monotone, table exact."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwprofiles import (
    DecodeAttentionParams,
    ElementwiseParams,
    GemmParams,
    GpuProfile,
    KernelFamily,
    NvlinkAllReduce,
    Param,
    PrefillAttentionParams,
    Source,
    load_gpu,
)
from simulator.errors import ModelError
from simulator.model import (
    FORMAT_BYTES,
    FORMATS,
    DenseFfn,
    GqaAttention,
    MoeFfn,
    Parallel,
    load_model,
    model_names,
)
from simulator.perf.experts import Experts
from simulator.perf.graphs import Graphs
from simulator.perf.kernels import Gemm
from simulator.perf.precision import COMPUTE_OF, Precision
from simulator.perf.step import StepModel, StepTable
from tests.perf_kit import operator

GPUS = ("h100", "h200", "a100", "b200")
SETTINGS = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)

Case = tuple[str, str, Parallel, Precision, float]


@cache
def parallelisms(name: str) -> list[Parallel]:
    """Legal ways to spread a model over at most 32 GPUs, attention ranks of at most 8."""
    model, found = load_model(name), []
    for tp in (tp for tp in model.allowed_tp() if tp <= 8):
        for pp in (1, 2, 4):
            for dp in (1, 2, 8):
                for ep in (1, 2, 4, 8, 16):
                    try:
                        parallel = Parallel(tp, pp, ep, dp)
                        model.check_parallel(parallel)
                    except ModelError:
                        continue
                    if parallel.gpus <= 32:
                        found.append(parallel)
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(model_names()))
    weights = draw(st.sampled_from(FORMATS))
    experts = draw(st.sampled_from([None, *FORMATS]))
    compute = draw(st.sampled_from([None, *COMPUTE_OF[weights]]))
    kv = draw(st.sampled_from(["bf16", "fp8"]))
    skew = draw(st.sampled_from([0.0, 0.0, 0.7]))
    return (
        name,
        draw(st.sampled_from(GPUS)),
        draw(st.sampled_from(parallelisms(name))),
        Precision(weights, compute, kv, experts),
        skew if load_model(name).is_moe else 0.0,
    )


@cache
def model_of(case: Case, graphs: Graphs | None = None) -> StepModel:
    name, gpu, parallel, precision, skew = case
    plain = StepModel(load_model(name), load_gpu(gpu), parallel, precision, skew=skew)
    return plain if graphs is None else replace(plain, graphs=graphs, eager_layer_s=4e-4)


@cache
def table_of(case: Case, rounds: bool, graphs: Graphs | None = None) -> StepTable:
    return model_of(case, graphs).table(16, 600, rounds=rounds)


# ------------------------------------------------------------------------------- conservation


def replicated_flops(step: StepModel, batch: int, context: int) -> float:
    """Arithmetic a decode step repeats on several GPUs, or does beyond the model's definition."""
    model, tp = step.model, step.tp
    extra = 2.0 * batch * (model.padded_vocab(tp) - model.vocab) * model.hidden
    for kind in model.kinds:
        attention, each = kind.attention, 0.0
        if isinstance(attention, GqaAttention):
            # K and V projections on tp / kv_heads ranks each
            copies = max(tp // attention.kv_heads, 1) - 1
            each += copies * 2 * attention.kv_heads * attention.head_dim * model.hidden
        else:
            down = attention.kv_lora_rank + attention.qk_rope_head_dim
            down += attention.q_lora_rank or 0
            each += (tp - 1) * down * model.hidden
            # absorbed: Q and O of a head are as wide as the latent
            wider = 2 * attention.kv_lora_rank + attention.qk_rope_head_dim
            wider -= attention.qk_head_dim + attention.v_head_dim
            extra += kind.count * 2.0 * batch * context * attention.heads * wider
        if isinstance(kind.ffn, MoeFfn):
            each += (tp - 1) * kind.ffn.router(model.hidden)
        extra += kind.count * 2.0 * batch * each
    return extra


@SETTINGS
@given(case=cases(), each=st.integers(1, 40), context=st.integers(1, 20_000))
def test_the_flops_of_all_gpus_are_those_of_the_model_and_stated_replicas(
    case: Case, each: int, context: int
) -> None:
    step = model_of(case)
    parallel = step.parallel
    # so many that ranks and microbatches are equally full
    micro = each * parallel.attention_dp
    batch = micro * parallel.pp
    reads = step.reads(batch, context)
    parts = step.operators(batch, reads)
    ranks = parallel.stage_gpus * math.fsum(p.flops for p in parts if p.name != "experts")
    model = step.model
    routed = sum(
        kind.count * 2.0 * micro * kind.ffn.experts_per_token * kind.ffn.expert(model.hidden)
        for kind in model.kinds
        if isinstance(kind.ffn, MoeFfn)
    )
    one = [n / parallel.pp for n in reads]
    expected = float(step.flops(micro, tuple(one), micro)) - routed
    attention = sum(n * g.layers for n, g in zip(one, model.attention_groups, strict=True))
    extra = (
        replicated_flops(step, micro, 0)
        + (replicated_flops(step, 1, 1) - replicated_flops(step, 1, 0)) / model.layers * attention
    )
    assert ranks == pytest.approx(expected + extra, rel=1e-9)
    if routed:
        # every GPU is charged with what the busiest does: the mean where one group holds all
        computed = parallel.stage_gpus * operator(parts, "experts").flops
        assert computed >= routed * (1 - 1e-9)
        if parallel.ep == 1:
            assert computed == pytest.approx(routed, rel=1e-9)


@SETTINGS
@given(case=cases())
def test_the_weights_operators_read_are_those_the_model_has(case: Case) -> None:
    step = model_of(case)
    ops, model, formats = step.operators_per_gpu, step.model, step.precision.formats
    gpus = step.parallel.stage_gpus
    read = ops.head.weight_bytes
    for op in (*ops.tokens, *ops.joint):
        if isinstance(op, Gemm):
            read += op.calls * op.weight_bytes
        elif isinstance(op, Experts):
            both = op.gate_up.weight_bytes + op.down.weight_bytes
            read += op.calls * op.routing.local * both
    expected = 0.0
    for kind in model.kinds:
        each = (
            kind.attention.linear_per_gpu(model.hidden, step.tp) * FORMAT_BYTES[formats.attention]
        )
        if isinstance(kind.ffn, DenseFfn):
            each += kind.ffn.linear(model.hidden) / step.tp * FORMAT_BYTES[formats.ffn]
        else:
            each += kind.ffn.router(model.hidden) * 2.0
            each += kind.ffn.shared(model.hidden) / step.tp * FORMAT_BYTES[formats.ffn]
            routed = kind.ffn.experts * kind.ffn.expert(model.hidden)
            each += routed / gpus * FORMAT_BYTES[formats.experts]
        expected += kind.count * each
    expected += model.padded_vocab(step.tp) / step.tp * model.hidden * 2.0
    assert read == pytest.approx(expected, rel=1e-12)
    # and what is kept in memory is that, the embedding, and norms and biases
    held = sum(model.stage_weight_bytes(step.parallel, formats))
    table = model.padded_vocab(step.tp) / step.tp * model.hidden * 2.0
    unread = held - expected - (0.0 if model.tied_embeddings and step.parallel.pp == 1 else table)
    unread -= 2.0 * model.encoder_parameters / step.tp
    assert -8.0 <= unread <= 0.02 * held


@SETTINGS
@given(case=cases(), tokens=st.integers(1, 4_000))
def test_a_step_reads_no_more_than_all_its_weights(case: Case, tokens: int) -> None:
    step = model_of(case)
    some, every = float(step.read_bytes(0, tokens)), float(step.read_bytes(0))
    assert 0.0 < some <= every * (1 + 1e-12)
    if not step.model.is_moe:
        assert some == every
    assert float(step.read_bytes(0, tokens + 100)) >= some


# ------------------------------------------------------------------------------- monotone, positive


@SETTINGS
@given(case=cases(), data=st.data())
def test_time_is_positive_and_rises_with_every_size(case: Case, data: st.DataObject) -> None:
    step, draw = model_of(case), data.draw
    groups = len(step.model.attention_groups)
    batch, more = draw(st.integers(1, 300)), draw(st.integers(1, 50))
    each = tuple(draw(st.integers(1, 20_000)) for _ in range(groups))
    reads = tuple(batch * r for r in each)
    before = float(step.decode_s(batch, reads))
    assert before > 0.0
    assert float(step.decode_s(batch + more, tuple((batch + more) * r for r in each))) >= before * (
        1 - 1e-12
    )
    for g in range(groups):
        longer = tuple(r + (more if i == g else 0) for i, r in enumerate(reads))
        assert float(step.decode_s(batch, longer)) >= before * (1 - 1e-12)
    new, cached = draw(st.integers(1, 5_000)), draw(st.integers(0, 20_000))

    def prefill(p: int, c: int) -> float:
        return math.fsum(op.time_s for op in step.operators(0, 0, [(p, c)], rounds=False))

    assert 0.0 < prefill(cached, new) <= prefill(cached, new + more) * (1 + 1e-12)


@SETTINGS
@given(case=cases(), batch=st.integers(1, 200), context=st.integers(1, 30_000))
def test_more_memory_bandwidth_is_not_slower(case: Case, batch: int, context: int) -> None:
    step = model_of(case)
    bandwidth = step.gpu.memory_bytes_per_s
    wide = replace(step.gpu, memory_bytes_per_s=replace(bandwidth, value=1.5 * bandwidth.value))
    faster = replace(step, gpu=wide)
    reads = step.reads(batch, context)
    assert float(faster.decode_s(batch, reads)) <= float(step.decode_s(batch, reads))


@SETTINGS
@given(case=cases(), batch=st.integers(1, 400), context=st.integers(1, 50_000))
def test_no_step_beats_the_data_sheet(case: Case, batch: int, context: int) -> None:
    step = model_of(case)
    reads = step.reads(batch, context)
    time = float(step.decode_s(batch, reads))
    peak = max(
        step.gpu.peak_flops(how.compute)
        for how in (step.operators_per_gpu.how.ffn, step.operators_per_gpu.how.experts)
    )
    assert float(step.flops(batch, reads, batch)) < time * max(
        step.peak_flops_per_s, step.parallel.gpus * peak
    )
    if step.parallel.pp == 1:  # a round of a pipeline reads the weights for every microbatch
        assert float(step.read_bytes(reads, batch)) < time * step.peak_bytes_per_s


# ------------------------------------------------------------------------------- the table


CAPTURED = [
    Graphs((1, 2, 4, 8)),
    Graphs((1, 5, 14), padding=False),
    Graphs((2, 12, 250), mixed=True),
]


@SETTINGS
@given(
    case=cases(),
    batch=st.integers(0, 16),
    context=st.integers(1, 30_000),
    chunks=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 140)), max_size=4),
    rounds=st.booleans(),
    graphs=st.sampled_from([None, None, *CAPTURED]),
)
def test_the_table_is_the_vectorised_step(
    case: Case,
    batch: int,
    context: int,
    chunks: list[tuple[int, int]],
    rounds: bool,
    graphs: Graphs | None,
) -> None:
    """Every attention rank with the same sequences, in either form."""
    step, table = model_of(case, graphs), table_of(case, rounds, graphs)
    ranks = step.parallel.attention_dp
    reads = step.reads(batch, context)
    new = sum(c for _, c in chunks)
    tokens = ranks * (batch + new)
    if chunks:
        slowest = table.rank_mixed_s(batch, reads, chunks, batch + len(chunks))
    else:
        slowest = table.rank_decode_s(batch, reads)
    parts = step.operators(
        ranks * batch, tuple(ranks * r for r in reads), chunks * ranks, rounds=rounds
    )
    whole = math.fsum(part.time_s for part in parts)
    joined_s = table.joined_s(slowest, tokens, decodes=not chunks)
    assert joined_s == pytest.approx(whole, rel=1e-9)
    plans = table.groups
    pairs = tuple(float(ranks * sum(plan.pairs(p, c) for p, c in chunks)) for plan in plans)
    read = tuple(float(ranks * sum(plan.read_back(p, c) for p, c in chunks)) for plan in plans)
    exact = step.mixed_s(
        ranks * batch,
        tuple(ranks * r for r in reads),
        ranks * new,
        pairs,
        read,
        ranks * (batch + len(chunks)),
        ranks * len(chunks),
        longest=tuple(float(plan.longest(chunks)) if chunks else 0.0 for plan in plans),
        rounds=rounds,
    )
    assert float(exact) == pytest.approx(whole, rel=1e-9)


def test_a_bare_statistic_holds_for_every_group() -> None:
    step = StepModel(load_model("gpt-oss-20b"), load_gpu("h100"))
    assert float(step.decode_s(4, 400)) == float(step.decode_s(4, (400, 400)))
    assert float(step.decode_s(4, (40_000, 512))) < float(step.decode_s(4, 40_000))
    with pytest.raises(ValueError, match="each of 2 attention groups"):
        step.decode_s(4, (1, 2, 3))


# ------------------------------------------------------------------------------- whole steps by hand


FP8 = {"t0_s": 8.15e-6, "compute_eff": 0.73, "memory_eff": 0.806, "p": 1.57, "quant_eff": 0.316}


def roofline(m: float, n: float, k: float, weights: float, *, fp8: bool = False) -> float:
    """A GEMM on an H200 with the parameters of ``plain_h200``; weights: bytes of all it reads."""
    if fp8:
        t0, eff, mem, p, quant = FP8.values()
        peak, size = 1979e12, 1
    else:
        t0, eff, mem, p, quant, peak, size = 3.86e-6, 0.812, 0.841, 3.1, math.inf, 989e12, 2
    compute = 2 * m * n * k / (peak * eff)
    memory = (weights + m * k * size + m * n * 2) / (4.8e12 * mem)
    return t0 + (compute**p + memory**p) ** (1 / p) + 5 * m * k / (4.8e12 * quant)


def all_reduce(size: float, gpus: int) -> float:
    start = 4.44e-6 + 4.1e-8 * (gpus - 1)
    one = (gpus - 1) * size / (450e9 * 0.6)
    two = 3.8e-6 + 2 * (gpus - 1) / gpus * size / (450e9 * 0.75)
    return start + min(one, two)


def elementwise(bytes_: float, kernels: float = 4) -> float:
    return kernels * 3e-6 + bytes_ / (0.8 * 4.8e12)


def plain_h200() -> GpuProfile:
    """An H200 with round parameters, and none of experts, latent attention or exchanges."""
    gpu = load_gpu("h200")

    def values(**given: float) -> dict[str, Param]:
        return {k: Param(v, "1", Source("assumed", "by hand")) for k, v in given.items()}

    gemm = GemmParams(**values(t0_s=3.86e-6, compute_eff=0.812, memory_eff=0.841, p=3.1))
    fp8 = GemmParams(**values(**FP8))
    decode = DecodeAttentionParams(**values(t0_s=1.23e-5, tile_s=2.37e-6, memory_eff=0.884))
    prefill = PrefillAttentionParams(
        **values(t0_s=1.3e-5, compute_eff=0.676, memory_eff=0.35, head_dim_exponent=0.45)
    )
    links = NvlinkAllReduce(
        **values(
            t0_s=4.44e-6, rank_s=4.1e-8, one_shot_eff=0.6, two_shot_s=3.8e-6, two_shot_eff=0.75
        )
    )
    family = KernelFamily(
        name="plain",
        gemm=(("bf16", gemm), ("fp8", fp8)),
        decode_attention=(("bf16", decode),),
        prefill_attention=(("bf16", prefill),),
        elementwise=ElementwiseParams(**values(t0_s=3e-6, memory_eff=0.8, kernels_per_layer=4)),
        all_reduce=links,
    )
    return replace(gpu, kernels=(family,))


def test_a_decode_step_of_a_mixture_of_experts_by_hand() -> None:
    """Mixtral 8x7B, bf16, two H200: 16 sequences of 1,000 tokens.

    32 layers; hidden 4096; 32 heads and 8 KV heads of 128; 8 experts of 14336, 2 a token.
    """
    b, context, h = 16, 1000, 4096
    gemm = roofline(b, 16 * 128 + 2 * 4 * 128, h, 2 * (2048 + 1024) * h)
    gemm += roofline(b, h, 2048, 2 * 2048 * h)
    gemm += roofline(b, 8, h, 2 * 8 * h)  # router
    visited = 8 * (1 - (1 - 2 / 8) ** b)
    rows, width = 2 * b, 14336 // 2
    experts = roofline(rows, 2 * width, h, visited * 2 * 2 * width * h)
    experts += roofline(rows, h, width, visited * 2 * width * h)
    experts += elementwise(rows * (3 * width + h) * 2)
    memory = 4.8e12 * 0.884
    attention = 1.23e-5 + 2.37e-6 * b * 4 / 132
    attention += (b * 2 * 2048 * 2 + b * context * 2 * 4 * 128 * 2) / memory
    other = 2 * all_reduce(b * h * 2, 2) + elementwise(b * 2 * (8 * h + 2 * (16 + 4) * 128))
    head = roofline(b, 32000 // 2, h, 2 * 16000 * h)
    expected = 32 * (gemm + experts + attention + other) + head
    step = StepModel(load_model("mixtral-8x7b"), plain_h200(), Parallel(tp=2), c0_s=0.0, c1_s=0.0)
    assert float(step.decode_s(b, b * context)) == pytest.approx(expected, rel=1e-9)


def test_a_decode_step_of_latent_attention_by_hand() -> None:
    """DeepSeek-V3, fp8 in blocks, eight attention ranks on eight H200: 32 sequences on each.

    61 layers, 3 of them dense (18432), 58 with 256 experts of 2048, 8 a token, and one shared of
    2048; hidden 7168; 128 heads, latents 1536 and 512, heads 128 + 64 and 128 wide.
    """
    b, context, h = 32, 2000, 7168
    size = 1 + 4 / 128**2

    def fp8(m: float, n: float, k: float, copies: float = 1.0) -> float:
        return roofline(m, n, k, copies * n * k * size, fp8=True)

    layer = fp8(b, 1536 + 512 + 64, h) + fp8(b, 128 * 192, 1536)
    layer += fp8(b, 128 * 256, 512) + fp8(b, h, 128 * 128)
    # absorbed: 512 numbers of Q and of O and 64 of rotary a head; 576 of KV a token
    memory = 4.8e12 * 0.884
    start = 1.23e-5 + b * (2.37e-6 / 132 + 128 * 1088 * 2 / memory)
    per_token = max(576 * 2 / memory, 2 * 128 * 1088 / (989e12 * 0.676))
    layer += start + b * context * per_token
    moved = 8 * h + 2 * (1536 + 512 + 129 * 64)
    dense = fp8(b, 2 * 18432, h) + fp8(b, h, 18432) + elementwise(b * 2 * (moved + 3 * 18432))
    mixed = fp8(b, 2 * 2048, h) + fp8(b, h, 2048) + elementwise(b * 2 * (moved + 3 * 2048))
    mixed += roofline(b, 256, h, 2 * 256 * h)
    # the busiest of 8 groups of 32 experts: 1.4236 standard deviations above the mean
    t = 8 * b
    spread = math.sqrt(t * 8 * (1 / 8) * (7 / 8) * (248 / 255))
    rows = t * 8 / 8 + 1.42360 * spread
    touched = 1 - (1 - 8 / 256) ** t
    visited = min(32, 32 * touched + 1.42360 * math.sqrt(32 * touched * (1 - touched) * 7 / 8))
    mixed += fp8(rows, 2 * 2048, h, visited) + fp8(rows, h, 2048, visited)
    mixed += elementwise(rows * (3 * 2048 + h) * 2)
    missed = math.comb(224, 8) / math.comb(256, 8)
    sent = min(t, t * (1 - missed) * rows / t) * 7 / 8
    link = 450e9 * 0.75
    mixed += 2 * (4.44e-6 + 7 * 4.1e-8) + sent * h * (1 + 2) / link
    expected = 61 * layer + 3 * dense + 58 * mixed + roofline(b, 129280, h, 2 * 129280 * h)
    step = StepModel(
        load_model("deepseek-v3"),
        plain_h200(),
        Parallel(ep=8, attention_dp=8),
        Precision.of(load_model("deepseek-v3")),
        c0_s=0.0,
        c1_s=0.0,
    )
    assert float(step.decode_s(8 * b, 8 * b * context)) == pytest.approx(expected, rel=1e-5)
