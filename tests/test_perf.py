"""Step time: forms by hand, golden steps, monotonicity, and the table against the vectorised form."""

from __future__ import annotations

import dataclasses
import math
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprofiles import load_gpu
from simulator.errors import ModelError, ProfileError
from simulator.model import ModelSpec, load_model
from simulator.perf import forms
from simulator.perf.step import Precision, StepModel, StepTable

BF16 = Precision()
FP8 = Precision(weights="fp8", kv="fp8")
SETUPS = [
    ("llama-3.1-8b", "h100", 1, BF16),
    ("llama-3.1-70b", "h200", 4, FP8),
    ("llama-3.1-70b", "a100", 8, Precision(weights="fp8", kv="fp8")),
    ("qwen3-32b", "l40s", 2, BF16),
    ("llama-3.1-405b", "h100", 8, FP8),
    ("llama-2-7b", "l40s", 1, Precision(weights="fp8", compute="bf16", kv="bf16")),
]
MAX_SEQS, MAX_TOKENS = 128, 4096
setups = st.sampled_from(SETUPS)


@cache
def step(
    model: str,
    gpu: str,
    tp: int = 1,
    precision: Precision = BF16,
    *,
    c0_s: float = 0.8e-3,
    c1_s: float = 0.03e-3,
    host_s: float = 0.0,
) -> StepModel:
    return StepModel(
        load_model(model), load_gpu(gpu), tp, precision, host_s=host_s, c0_s=c0_s, c1_s=c1_s
    )


@cache
def table(setup: tuple[str, str, int, Precision]) -> StepTable:
    return step(*setup).table(MAX_SEQS, MAX_TOKENS)


def kernels_only(model: str, gpu: str, tp: int) -> StepModel:
    return step(model, gpu, tp, BF16, c0_s=0.0, c1_s=0.0)


def prefill_s(model: StepModel, chunks: list[tuple[int, int]], rows: int) -> float:
    """A step of chunks only, through the vectorised form."""
    new = sum(c for _, c in chunks)
    pairs = sum(c * p + c * c / 2 for p, c in chunks)
    read = sum(p + c for p, c in chunks)
    return float(model.mixed_s(0, 0, new, pairs, read, rows, len(chunks)))


# ------------------------------------------------------------------------------- forms by hand

UNIT = {"t0_s": 1.0, "peak_flops": 2.0, "bandwidth": 1.0, "compute_eff": 1.0, "memory_eff": 1.0}


def test_gemm_joins_its_two_limits_by_a_p_norm() -> None:
    # m = n = 1, k = 3: compute 2·3/2 = 3; traffic (3·w + 3·i + 1·o)/1 = 4 with w = 1, i = o = 1/4.
    sizes = {"weight_bytes": 1.0, "input_bytes": 0.25, "output_bytes": 0.25}
    assert forms.gemm_s(1, 1, 3, p=2.0, **UNIT, **sizes) == pytest.approx(1 + 5)
    assert forms.gemm_s(1, 1, 3, p=1.0, **UNIT, **sizes) == pytest.approx(1 + 7)
    assert forms.gemm_s(1, 1, 3, p=16.0, **UNIT, **sizes) == pytest.approx(1 + 4, rel=1e-3)


def test_gemm_quantises_its_input_in_five_bytes_a_number() -> None:
    without = forms.gemm_s(2, 7, 3, p=2.0, **UNIT)
    assert forms.gemm_s(2, 7, 3, p=2.0, quant_eff=0.5, **UNIT) == pytest.approx(
        without + 5 * 6 / 0.5
    )


def test_decode_attention_by_hand() -> None:
    # 2 sequences, 10 tokens, 4 query heads and 1 KV head of width 2, bandwidth 4·0.5 = 2 bytes/s:
    # 7 + 3·2·1/6 + (2·10·1·2·1 [KV, 1 byte] + 2·2·4·2·2 [Q, O])/2 = 7 + 1 + (40 + 64)/2.
    time = forms.decode_attention_s(
        2, 10, heads=4, kv_heads=1, head_dim=2, t0_s=7.0, tile_s=3.0, memory_eff=0.5,
        bandwidth=4.0, sms=6.0, kv_bytes=1.0,
    )  # fmt: skip
    assert time == pytest.approx(60.0)


PREFILL: dict[str, Any] = {
    "heads": 4, "kv_heads": 2, "head_dim": 64, "t0_s": 1e-5, "compute_eff": 0.5, "memory_eff": 0.25,
    "peak_flops": 1e12, "bandwidth": 1e11,
}  # fmt: skip


@pytest.mark.parametrize(("batch", "length"), [(1, 128), (8, 2048)])
def test_prefill_attention_of_whole_prompts_is_the_textbook_form(batch: int, length: int) -> None:
    # t0 + 2·b·h·hd·L²/(P·eC) + 2·b·L·hd·(2h + 4·hkv)/(BW·eB)
    textbook = (
        1e-5
        + 2 * batch * 4 * 64 * length**2 / (1e12 * 0.5)
        + 2 * batch * length * 64 * (2 * 4 + 4 * 2) / (1e11 * 0.25)
    )
    tokens = batch * length
    time = forms.prefill_attention_s(tokens, batch * length**2 / 2, tokens, **PREFILL)
    assert time == pytest.approx(textbook, rel=1e-12)


def test_head_dim_scales_prefill_efficiency_from_128_and_stops_at_the_peak() -> None:
    def compute_s(head_dim: int, exponent: float) -> float:
        args = PREFILL | {"head_dim": head_dim, "t0_s": 0.0, "memory_eff": 1e12}
        return float(forms.prefill_attention_s(1, 1e6, 1, head_dim_exponent=exponent, **args))

    assert compute_s(128, 0.45) == pytest.approx(compute_s(128, 0.0))
    assert compute_s(64, 1.0) == pytest.approx(2 * compute_s(64, 0.0))
    assert compute_s(1024, 1.0) == pytest.approx(compute_s(1024, 0.0) / 2)  # 0.5 · 8, capped at 1


@given(cached=st.integers(0, 10_000), chunks=st.lists(st.integers(1, 4000), min_size=1, max_size=8))
def test_chunks_of_a_prompt_add_up_to_the_pairs_of_the_whole(
    cached: int, chunks: list[int]
) -> None:
    done, pairs = cached, 0.0
    for chunk in chunks:
        pairs += float(forms.causal_pairs(done, chunk))
        done += chunk
    assert pairs == pytest.approx(done**2 / 2 - cached**2 / 2, rel=1e-12)


REDUCE = {
    "t0_s": 4e-6, "rank_s": 1e-6, "one_shot_eff": 0.5, "two_shot_s": 10e-6, "two_shot_eff": 0.5,
    "link_bytes_per_s": 100e9,
}  # fmt: skip


def test_all_reduce_is_one_shot_when_small_and_two_shot_when_large() -> None:
    # 4 ranks: 7 µs + 3·50 kB/50 GB/s = 10 µs against 7 + 10 + 1.5·50 kB/50 GB/s = 18.5 µs.
    assert forms.all_reduce_s(50e3, 4, **REDUCE) == pytest.approx(10e-6)
    # 50 MB: 7 µs + 3 ms one-shot against 17 µs + 1.5 ms two-shot.
    assert forms.all_reduce_s(50e6, 4, **REDUCE) == pytest.approx(1517e-6)


def test_bus_all_reduce_moves_two_shares_of_every_other_rank() -> None:
    time = forms.all_reduce_ring_s(4e9, 4, alpha_s=1.0, bus_bytes_per_s=2e9)
    assert time == pytest.approx(1.0 + 2 * 3 / 4 * 4e9 / 2e9)


def test_elementwise_by_hand() -> None:
    time = forms.elementwise_s(800.0, kernels=4, t0_s=3.0, memory_eff=0.8, bandwidth=100.0)
    assert time == pytest.approx(4 * 3 + 10)


def test_nothing_costs_nothing() -> None:
    assert forms.gemm_s(0, 8, 8, p=2.0, **UNIT) == 0.0
    assert forms.all_reduce_s(1e6, 1, **REDUCE) == 0.0
    assert forms.all_reduce_s(0, 4, **REDUCE) == 0.0
    assert forms.all_reduce_ring_s(1e6, 1, alpha_s=1.0, bus_bytes_per_s=1.0) == 0.0
    assert forms.elementwise_s(0, t0_s=1.0, memory_eff=1.0, bandwidth=1.0) == 0.0
    assert forms.prefill_attention_s(0, 0, 0, **PREFILL) == 0.0


sizes = st.integers(1, 200_000)


@given(m=sizes, n=sizes, k=sizes, p=st.floats(1, 16), grow=st.integers(1, 1000))
def test_gemm_time_never_falls_with_a_size(m: int, n: int, k: int, p: float, grow: int) -> None:
    def time(m: int, n: int, k: int) -> float:
        args = {"t0_s": 3e-6, "peak_flops": 9e14, "bandwidth": 3e12, "compute_eff": 0.8}
        return float(forms.gemm_s(m, n, k, memory_eff=0.8, p=p, quant_eff=0.5, **args))

    base = time(m, n, k) * (1 - 1e-12)
    assert all(
        t >= base for t in (time(m + grow, n, k), time(m, n + grow, k), time(m, n, k + grow))
    )


@given(size=st.integers(1, 10**9), gpus=st.integers(2, 16), grow=st.integers(1, 10**6))
def test_all_reduce_time_never_falls_with_bytes_or_ranks(size: int, gpus: int, grow: int) -> None:
    base = float(forms.all_reduce_s(size, gpus, **REDUCE)) * (1 - 1e-12)
    assert forms.all_reduce_s(size + grow, gpus, **REDUCE) >= base
    assert forms.all_reduce_s(size, gpus + 1, **REDUCE) >= base


@settings(max_examples=50)
@given(setup=setups, data=st.data())
def test_step_time_never_falls_with_any_size(
    setup: tuple[str, str, int, Precision], data: st.DataObject
) -> None:
    draw = data.draw
    base = {
        "batch": draw(st.integers(1, 500)), "kv_tokens": draw(st.integers(500, 10**6)),
        "new": draw(st.integers(1, 20_000)), "pairs": draw(st.integers(1, 10**9)),
        "read": draw(st.integers(1, 10**6)), "rows": draw(st.integers(1, 500)),
        "prefills": draw(st.integers(1, 64)),
    }  # fmt: skip
    before = float(step(*setup).mixed_s(**base))
    for name, value in base.items():
        after = float(step(*setup).mixed_s(**(base | {name: value + draw(st.integers(1, 1000))})))
        assert after >= before * (1 - 1e-12), name


# ------------------------------------------------------------------------------- golden steps

# Llama-3.1-70B, bf16, TP 4, milliseconds, no framework overhead: decode (batch 1, context 1,024),
# decode (128, 4,096), prefill 2,048, prefill 8,192. "roofline": an independent prototype of the same
# forms and parameters. "measured": operator times interpolated in the aiconfigurator-core 0.12.0
# tables (Apache-2.0) and summed.
GOLDEN = {
    "h100_sxm": {"roofline": (15.7, 33.8, 131.0, 533.0), "measured": (15.1, 33.4, 130.0, 588.0)},
    "a100_sxm_80gb": {
        "roofline": (28.0, 70.5, 349.0, 1454.0),
        "measured": (27.4, 70.3, 337.0, 1375.0),
    },
}


def golden_steps(gpu: str) -> list[float]:
    model = kernels_only("llama-3.1-70b", gpu, 4)
    decode = [float(model.decode_s(1, 1024)), float(model.decode_s(128, 128 * 4096))]
    return [
        1e3 * t
        for t in (*decode, prefill_s(model, [(0, 2048)], 1), prefill_s(model, [(0, 8192)], 1))
    ]


@pytest.mark.parametrize("gpu", sorted(GOLDEN))
def test_golden_steps_of_an_independent_prototype(gpu: str) -> None:
    assert golden_steps(gpu) == pytest.approx(GOLDEN[gpu]["roofline"], rel=0.005)


@pytest.mark.parametrize("gpu", sorted(GOLDEN))
def test_golden_steps_of_summed_measured_operators(gpu: str) -> None:
    assert golden_steps(gpu) == pytest.approx(GOLDEN[gpu]["measured"], rel=0.10)


# ------------------------------------------------------------------------------- table and step

chunk_lists = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 900)), max_size=4)


@settings(max_examples=200)
@given(setup=setups, batch=st.integers(0, MAX_SEQS), context=st.integers(1, 100_000))
def test_the_table_is_the_vectorised_decode_step(
    setup: tuple[str, str, int, Precision], batch: int, context: int
) -> None:
    kv_tokens = batch * context
    exact = float(step(*setup).decode_s(batch, kv_tokens))
    assert table(setup).decode_s(batch, kv_tokens) == pytest.approx(exact, rel=1e-12)


@settings(max_examples=300)
@given(
    setup=setups,
    batch=st.integers(0, MAX_SEQS),
    context=st.integers(1, 100_000),
    chunks=chunk_lists,
    ends=st.integers(0, 4),
)
def test_the_table_is_the_vectorised_mixed_step(
    setup: tuple[str, str, int, Precision],
    batch: int,
    context: int,
    chunks: list[tuple[int, int]],
    ends: int,
) -> None:
    rows = batch + min(ends, len(chunks))
    new = sum(c for _, c in chunks)
    pairs = sum(c * p + c * c / 2 for p, c in chunks)
    read = sum(p + c for p, c in chunks)
    exact = float(step(*setup).mixed_s(batch, batch * context, new, pairs, read, rows, len(chunks)))
    tabulated = table(setup).mixed_s(batch, batch * context, chunks, rows)
    assert tabulated == pytest.approx(exact, rel=1e-12)


@settings(max_examples=100)
@given(
    setup=setups,
    batch=st.integers(0, MAX_SEQS),
    context=st.integers(1, 100_000),
    chunks=chunk_lists,
)
def test_operator_times_add_up_to_the_step(
    setup: tuple[str, str, int, Precision],
    batch: int,
    context: int,
    chunks: list[tuple[int, int]],
) -> None:
    rows = batch + len(chunks)
    parts = step(*setup).operators(batch, batch * context, chunks)
    whole = table(setup).mixed_s(batch, batch * context, chunks, rows)
    assert math.fsum(part.time_s for part in parts) == pytest.approx(whole, rel=1e-12)


def test_a_mixed_step_without_chunks_is_a_decode_step() -> None:
    model = step(*SETUPS[0])
    assert model.mixed_s(7, 9000, 0, 0, 0, 7, 0) == model.decode_s(7, 9000)


def test_an_empty_step_takes_no_time() -> None:
    for setup in SETUPS:
        assert step(*setup).decode_s(0, 0) == 0.0
        assert table(setup).decode_s(0, 0) == 0.0
        assert table(setup).token_s[0] == table(setup).head_s[0] == 0.0


def test_arrays_broadcast() -> None:
    model = step(*SETUPS[1])
    batch = np.array([1, 8, 64])[:, None]
    context = np.array([128, 4096])[None, :]
    times = model.decode_s(batch, batch * context)
    assert times.shape == (3, 2)
    assert times[2, 1] == model.decode_s(64, 64 * 4096)


def test_the_table_reaches_its_limits_and_not_beyond() -> None:
    small = step(*SETUPS[0]).table(64, 16)  # a budget below the batch still decodes the batch
    assert small.max_tokens == 64
    assert len(small.decode_a) == len(small.decode_b) == 65
    assert table(SETUPS[0]).max_tokens == MAX_TOKENS


def test_the_engine_gets_plain_floats() -> None:
    for field in dataclasses.fields(StepTable):
        value = getattr(table(SETUPS[0]), field.name)
        assert type(value[0] if isinstance(value, list) else value) is float


def test_the_host_loop_bounds_a_step_from_below() -> None:
    model = step("llama-3.1-8b", "h100", 1, BF16, host_s=0.030)
    free = step("llama-3.1-8b", "h100")
    assert float(model.decode_s(1, 100)) == 0.030
    assert model.table(8, 64).decode_s(1, 100) == 0.030
    parts = model.decode_operators(1, 100)
    assert math.fsum(part.time_s for part in parts) == pytest.approx(0.030, rel=1e-12)
    assert (parts[-1].name, parts[-1].bound) == ("host_wait", "host")
    assert parts[-1].time_s == pytest.approx(0.030 - float(free.decode_s(1, 100)))
    # A prefill longer than the host's loop does not notice it.
    assert prefill_s(model, [(0, 8192)], 1) == prefill_s(free, [(0, 8192)], 1) > 0.030


def test_default_overheads_are_the_documented_ones() -> None:
    assert StepModel(load_model("llama-3.1-8b"), load_gpu("h100")) == step("llama-3.1-8b", "h100")


def test_overheads_are_per_step_and_per_sequence() -> None:
    bare = kernels_only("llama-3.1-8b", "h100", 1)
    model = step("llama-3.1-8b", "h100", 1, BF16, c0_s=0.5e-3, c1_s=0.02e-3)
    added = float(model.decode_s(10, 5000)) - float(bare.decode_s(10, 5000))
    assert added == pytest.approx(0.5e-3 + 10 * 0.02e-3)
    added = prefill_s(model, [(0, 100), (50, 20)], 2) - prefill_s(bare, [(0, 100), (50, 20)], 2)
    assert added == pytest.approx(0.5e-3 + 2 * 0.02e-3)


# ------------------------------------------------------------------------------- what decides


def test_decode_reads_each_kv_byte_once() -> None:
    # One more token: 131,072 bytes of KV of Llama-3.1-8B at 0.911 of 3.35 TB/s.
    model = step("llama-3.1-8b", "h100")
    slope = float(model.decode_s(4, 2_000_000) - model.decode_s(4, 1_000_000)) / 1e6
    assert slope == pytest.approx(131_072 / (0.911 * 3.35e12), rel=1e-9)


def test_the_lm_head_runs_on_sampled_rows_only() -> None:
    model = step("llama-3.1-8b", "h100")
    head = prefill_s(model, [(0, 2048)], 1) - prefill_s(model, [(0, 2048)], 0)
    table_bytes = 128_256 * 4096 * 2
    assert head == pytest.approx(3.53e-6 + table_bytes / (0.875 * 3.35e12), rel=0.01)


def test_two_all_reduces_a_layer_and_only_with_tensor_parallelism() -> None:
    def calls(tp: int) -> int:
        parts = step("llama-3.1-8b", "h100", tp).decode_operators(8, 512)
        return sum(part.calls for part in parts if part.name == "all_reduce")

    assert calls(1) == 0
    assert calls(2) == 2 * 32


def test_a_cached_prefix_is_cheaper_than_computing_it_and_dearer_than_none() -> None:
    model = step("llama-3.1-70b", "h100", 4)
    alone = prefill_s(model, [(0, 1000)], 1)
    after = prefill_s(model, [(7000, 1000)], 1)
    whole = prefill_s(model, [(0, 8000)], 1)
    assert alone < after < whole / 3


def test_fp8_on_a_gpu_without_fp8_units_is_weight_only() -> None:
    asked = Precision(weights="fp8", compute="fp8", kv="bf16")
    bf16, fp8 = step("llama-3.1-70b", "a100", 4), step("llama-3.1-70b", "a100", 4, asked)
    assert fp8.compute == "bf16"
    assert fp8.peak_flops_per_s == 4 * 312e12
    assert any("weight-only" in note for note in fp8.notes)
    assert bf16.notes == ()
    # A small batch streams half the weights; a long prompt is bound by the same arithmetic.
    assert float(fp8.decode_s(1, 100)) < 0.7 * float(bf16.decode_s(1, 100))
    assert prefill_s(fp8, [(0, 8192)], 1) == pytest.approx(
        prefill_s(bf16, [(0, 8192)], 1), rel=0.02
    )


def test_fp8_units_make_a_long_prefill_faster() -> None:
    bf16, fp8 = step("llama-3.1-70b", "h100", 4), step("llama-3.1-70b", "h100", 4, FP8)
    assert fp8.compute == "fp8"
    assert fp8.notes == ()
    assert prefill_s(fp8, [(0, 8192)], 1) < 0.9 * prefill_s(bf16, [(0, 8192)], 1)


def test_kv_without_its_own_kernels_borrows_bf16_ones_and_says_so() -> None:
    model = step("llama-3.1-8b", "a100", 1, Precision(kv="fp8"))
    slope = float(model.decode_s(1, 2_000_000) - model.decode_s(1, 1_000_000)) / 1e6
    assert slope == pytest.approx(131_072 / 2 / (0.726 * 2.039e12), rel=1e-9)
    assert any("fp8 KV" in note for note in model.notes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weights": "int4"}, r"precision\.weights: 'int4' is unknown; allowed: bf16, fp8\."),
        ({"kv": None}, r"precision\.kv: None is unknown; allowed: bf16, fp8\."),
        ({"compute": "fp16"}, r"precision\.compute: 'fp16' is unknown; allowed: bf16, fp8\."),
        ({"compute": "fp8"}, r"precision\.compute: 'fp8' needs weights in fp8, found 'bf16'"),
    ],
)
def test_bad_precisions_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        Precision(**fields)


# ------------------------------------------------------------------------------- fabric


def test_tp_must_shard_the_model_and_fit_a_node() -> None:
    with pytest.raises(ModelError, match=r"tp: 3 does not shard llama-3\.1-70b"):
        step("llama-3.1-70b", "h100", 3)
    with pytest.raises(ProfileError, match="tp: 16 exceeds one node of h100_sxm; allowed: up to 8"):
        step("llama-3.1-70b", "h100", 16)


def test_a_gpu_without_all_reduce_runs_alone_only() -> None:
    gpu = load_gpu("h100")
    alone = dataclasses.replace(gpu, kernels=(dataclasses.replace(gpu.family(), all_reduce=None),))
    model = load_model("llama-3.1-8b")
    assert float(StepModel(model, alone).decode_s(1, 10)) == float(
        StepModel(model, gpu).decode_s(1, 10)
    )
    with pytest.raises(ProfileError, match="have no all_reduce, which tp 2 needs; allowed: tp 1"):
        StepModel(model, alone, 2)


TWELVE = ModelSpec(
    name="twelve", architecture="LlamaForCausalLM", hidden=1536, layers=2, heads=12, kv_heads=12,
    head_dim=128, ffn=4608, vocab=32000, max_position=4096,
)  # fmt: skip


def test_a_bus_uses_the_next_larger_measured_number_of_gpus() -> None:
    # TP 3 takes the parameters at 4 GPUs: 12.7 µs + 2·(2/3)·bytes/4 GB/s, twice a layer.
    parts = StepModel(TWELVE, load_gpu("l40s"), 3).decode_operators(64, 128)
    reduce = next(part for part in parts if part.name == "all_reduce")
    message = 64 * 1536 * 2
    assert reduce.time_s == pytest.approx(4 * (12.7e-6 + 4 / 3 * message / 4e9), rel=1e-12)


def test_a_bus_without_a_large_enough_entry_is_refused() -> None:
    gpu = load_gpu("l40s")
    bus = gpu.family().all_reduce
    assert isinstance(bus, tuple)
    pair = dataclasses.replace(
        gpu, kernels=(dataclasses.replace(gpu.family(), all_reduce=bus[:1]),)
    )
    with pytest.raises(ProfileError, match="no entry for tp 4; allowed: up to 2"):
        StepModel(load_model("llama-3.1-8b"), pair, 4)


# ------------------------------------------------------------------------------- work and memory


def test_flops_of_a_decode_token_are_twice_the_weights_and_four_a_pair() -> None:
    model = step("llama-3.1-8b", "h100")
    spec = model.model
    weights = spec.linear_parameters + spec.head_parameters
    attention = 4 * 32 * 32 * 128 * 1000  # layers, heads, head_dim, context
    assert float(model.flops(1, 1000, 1)) == 2 * weights + attention


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def test_operator_flops_and_bytes_are_those_of_the_step(
    setup: tuple[str, str, int, Precision],
) -> None:
    model = step(*setup)
    parts = model.decode_operators(16, 3000)
    replicated = model.model.kv_heads_per_gpu(model.tp) * model.tp / model.model.kv_heads
    assert replicated == 1.0  # no set-up here replicates KV heads, so the sum is the whole
    total = model.tp * math.fsum(part.flops for part in parts)
    padding = 2 * 16 * (model.model.padded_vocab(model.tp) - model.model.vocab) * model.model.hidden
    assert total == pytest.approx(float(model.flops(16, 16 * 3000, 16)) + padding, rel=1e-12)
    attention = next(part for part in parts if part.name == "decode_attention")
    q_o = model.model.layers * 2 * 16 * model.model.heads // model.tp * model.model.head_dim * 2
    assert attention.bytes == model.kv_bytes_per_token_per_gpu * 16 * 3000 + q_o


@settings(max_examples=100)
@given(
    setup=setups,
    batch=st.integers(1, 512),
    context=st.integers(1, 100_000),
    prompt=st.integers(1, 100_000),
)
def test_no_step_beats_the_data_sheet(
    setup: tuple[str, str, int, Precision], batch: int, context: int, prompt: int
) -> None:
    model = step(*setup)
    decode = float(model.decode_s(batch, batch * context))
    prefill = prefill_s(model, [(0, prompt)], 1)
    assert float(model.flops(batch, batch * context, batch)) < decode * model.peak_flops_per_s
    assert float(model.read_bytes(batch * context)) < decode * model.peak_bytes_per_s
    assert float(model.flops(prompt, prompt**2 / 2, 1)) < prefill * model.peak_flops_per_s
    assert float(model.read_bytes(0)) < prefill * model.peak_bytes_per_s


def test_kv_capacity_is_what_weights_and_activations_leave() -> None:
    model = step("llama-3.1-8b", "h100")
    # 0.9 of 81,559 MiB, less 2 bytes a weight, less 2·8192·(2·4096 + 3·14336) and 1.5 GiB.
    left = (
        0.9 * 81_559 * 2**20 - 2 * 8_030_261_248 - 2 * 8192 * (2 * 4096 + 3 * 14336) - 1.5 * 2**30
    )
    assert model.kv_capacity_tokens(0.9, 8192) == int(left / 131_072)


def test_a_model_that_does_not_fit_has_no_capacity() -> None:
    assert step("llama-3.1-70b", "l40s").kv_capacity_tokens(0.9, 8192) == 0


def test_tp_beyond_the_kv_heads_replicates_and_does_not_add_capacity_per_token() -> None:
    few = dataclasses.replace(TWELVE, heads=12, kv_heads=2)
    two, four = (StepModel(few, load_gpu("h100"), tp) for tp in (2, 4))
    assert two.kv_bytes_per_token_per_gpu == four.kv_bytes_per_token_per_gpu


def test_step_models_are_values() -> None:
    setup = SETUPS[2]
    twin = StepModel(load_model(setup[0]), load_gpu(setup[1]), setup[2], setup[3])
    assert twin == step(*setup)
    assert hash(twin) == hash(step(*setup))
    assert pickle.loads(pickle.dumps(twin)) == twin
    assert twin != dataclasses.replace(twin, c0_s=1.0)
