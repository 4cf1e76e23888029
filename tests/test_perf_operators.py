"""What the operators of a step cost by hand: precisions, fabric, work, bytes and memory."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwprofiles import Param, load_gpu
from simulator.errors import ModelError, ProfileError
from simulator.model import load_model
from simulator.perf.step import OperatorTime, Parallel, Precision, StepModel
from tests.perf_kit import (
    BF16,
    FP8,
    SETUPS,
    TWELVE,
    Setup,
    operator,
    prefill_s,
    setups,
    step,
    twelve,
)


def gemm_values(gpu: str, dtype: str) -> dict[str, float]:
    params = dict(load_gpu(gpu).family().gemm)[dtype]
    found = {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}
    return {name: p.value for name, p in found.items() if isinstance(p, Param)}


def bus_values(gpus: int) -> tuple[float, float]:
    entries = load_gpu("l40s").family().all_reduce
    assert isinstance(entries, tuple)
    entry = next(e for e in entries if e.gpus == gpus)
    return entry.alpha_s.value, entry.bus_bytes_per_s.value


# ------------------------------------------------------------------------------- what decides


def test_decode_reads_each_kv_byte_once() -> None:
    # One more token: 131,072 bytes of KV of Llama-3.1-8B at the share of 3.35 TB/s in the profile.
    model = step("llama-3.1-8b", "h100")
    share = dict(load_gpu("h100").family().decode_attention)["bf16"].memory_eff.value
    slope = float(model.decode_s(4, 2_000_000) - model.decode_s(4, 1_000_000)) / 1e6
    assert slope == pytest.approx(131_072 / (share * 3.35e12), rel=1e-9)


def test_the_lm_head_runs_on_sampled_rows_only() -> None:
    model = step("llama-3.1-8b", "h100")
    head = prefill_s(model, [(0, 2048)], 1) - prefill_s(model, [(0, 2048)], 0)
    table_bytes = 128_256 * 4096 * 2
    gemm = gemm_values("h100", "bf16")
    assert head == pytest.approx(
        gemm["t0_s"] + table_bytes / (gemm["memory_eff"] * 3.35e12), rel=0.01
    )


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


def test_an_fp8_gemm_by_hand() -> None:
    # down_proj of Llama-3.1-8B on an L40S over 1,000 tokens, x[m,k]·W[k,n], m 1000, n 4096, k 14336:
    # inputs and weights of 1 byte, outputs of 2, and the input quantised on the way.
    m, n, k = 1000, 4096, 14336
    model = step("llama-3.1-8b", "l40s", 1, FP8)
    v = gemm_values("l40s", "fp8")
    compute = 2 * m * n * k / (733e12 * v["compute_eff"])
    memory = (n * k + m * k + 2 * m * n) / (864e9 * v["memory_eff"])
    roofline = (compute ** v["p"] + memory ** v["p"]) ** (1 / v["p"])
    one = v["t0_s"] + roofline + 5 * m * k / (864e9 * v["quant_eff"])
    part = operator(model.prefill_operators(1, m), "down_proj")
    assert part.time_s == pytest.approx(32 * one, rel=1e-12)
    assert part.bytes == 32 * (n * k + m * k + 2 * m * n)


def test_weight_only_reads_one_byte_a_weight_and_two_an_input() -> None:
    m, n, k = 64, 4096, 14336
    asked = Precision(weights="fp8", compute="bf16")
    part = operator(step("llama-3.1-8b", "l40s", 1, asked).prefill_operators(1, m), "down_proj")
    assert part.bytes == 32 * (n * k + 2 * m * k + 2 * m * n)
    v = gemm_values("l40s", "bf16")
    compute = 2 * m * n * k / (362e12 * v["compute_eff"])
    memory = part.bytes / 32 / (864e9 * v["memory_eff"])
    roofline = (compute ** v["p"] + memory ** v["p"]) ** (1 / v["p"])
    assert part.time_s == pytest.approx(32 * (v["t0_s"] + roofline), rel=1e-12)


def test_the_lm_head_of_an_fp8_model_stays_bf16() -> None:
    def head(precision: Precision) -> OperatorTime:
        return operator(
            step("llama-3.1-8b", "h100", 1, precision).decode_operators(8, 10), "lm_head"
        )

    assert head(FP8) == head(BF16)


def test_elementwise_bytes_by_hand() -> None:
    # Qwen3-8B (norms of Q and K), TP 2, one token: 2 add-and-norms of 4·4096, gate and up in and
    # their product out 3·6144, and Q and K of 16 + 4 heads of 128 in and out, once for the norm and
    # once for the rotation; 2 bytes each.
    part = operator(step("qwen3-8b", "h100", 2).decode_operators(1, 1), "elementwise")
    per_layer = 2 * (2 * 4 * 4096 + 3 * 6144 + 4 * (16 + 4) * 128)
    assert part.bytes == 36 * per_layer
    assert part.time_s == pytest.approx(36 * (4 * 3e-6 + per_layer / (0.8 * 3.35e12)), rel=1e-12)
    # Llama-3.1-8B has none: Q and K move twice instead of four times.
    part = operator(step("llama-3.1-8b", "h100", 2).decode_operators(1, 1), "elementwise")
    assert part.bytes == 32 * 2 * (2 * 4 * 4096 + 3 * 7168 + 2 * (16 + 4) * 128)


def test_hopper_prefills_narrow_heads_less_efficiently() -> None:
    narrow = twelve(head_dim=64)
    for gpu, exponent in (("h100", 0.45), ("l40s", 0.0)):
        wide, slim = (StepModel(spec, load_gpu(gpu)).table(1, 1) for spec in (TWELVE, narrow))
        expected = 0.5 / 0.5**exponent
        ratio = slim.groups[0].prefill_pair_s / wide.groups[0].prefill_pair_s
        assert ratio == pytest.approx(expected, rel=1e-12)


def test_kv_without_its_own_kernels_borrows_bf16_ones_and_says_so() -> None:
    model = step("llama-3.1-8b", "a100", 1, Precision(kv="fp8"))
    slope = float(model.decode_s(1, 2_000_000) - model.decode_s(1, 1_000_000)) / 1e6
    share = dict(load_gpu("a100").family().decode_attention)["bf16"].memory_eff.value
    assert slope == pytest.approx(131_072 / 2 / (share * 2.039e12), rel=1e-9)
    assert any("fp8 KV" in note for note in model.notes)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weights": "fp6"}, r"precision\.weights: 'fp6' is unknown; did you mean 'fp8'\?"),
        ({"experts": "int3"}, r"precision\.experts: 'int3' is unknown; did you mean 'int8'\?"),
        ({"kv": None}, r"precision\.kv: None is unknown; allowed: bf16, fp8\."),
        ({"compute": "fp16"}, r"precision\.compute: 'fp16' is unknown; did you mean 'bf16'\?"),
        (
            {"compute": "fp8"},
            r"precision\.compute: 'fp8' does not go with weights in bf16; allowed: bf16\.",
        ),
        (
            {"weights": "int4", "experts": "nvfp4", "compute": "int8"},
            r"'int8' does not go with weights in int4 and nvfp4; allowed: bf16, fp8, fp4\.",
        ),
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
        StepModel(model, alone, Parallel(tp=2))


def test_a_bus_uses_the_next_larger_measured_number_of_gpus() -> None:
    # TP 3 takes the parameters at 4 GPUs: alpha + 2·(2/3)·bytes/bus, twice a layer.
    alpha, bus = bus_values(4)
    parts = StepModel(TWELVE, load_gpu("l40s"), Parallel(tp=3)).decode_operators(64, 128)
    reduce = operator(parts, "all_reduce")
    message = 64 * 1536 * 2
    assert reduce.time_s == pytest.approx(4 * (alpha + 4 / 3 * message / bus), rel=1e-12)


@pytest.mark.parametrize("tp", [2, 4])
def test_a_bus_uses_the_parameters_of_its_number_of_gpus(tp: int) -> None:
    alpha, bus = bus_values(tp)
    reduce = operator(
        StepModel(TWELVE, load_gpu("l40s"), Parallel(tp=tp)).decode_operators(64, 128), "all_reduce"
    )
    message = 64 * 1536 * 2
    assert reduce.time_s == pytest.approx(
        4 * (alpha + 2 * (tp - 1) / tp * message / bus), rel=1e-12
    )


def test_a_bus_without_a_large_enough_entry_is_refused() -> None:
    gpu = load_gpu("l40s")
    bus = gpu.family().all_reduce
    assert isinstance(bus, tuple)
    pair = dataclasses.replace(
        gpu, kernels=(dataclasses.replace(gpu.family(), all_reduce=bus[:1]),)
    )
    with pytest.raises(ProfileError, match="no entry for tp 4; allowed: up to 2"):
        StepModel(load_model("llama-3.1-8b"), pair, Parallel(tp=4))


# ------------------------------------------------------------------------------- work and memory


def test_flops_of_a_decode_token_are_twice_the_weights_and_four_a_pair() -> None:
    model = step("llama-3.1-8b", "h100")
    spec = model.model
    weights = spec.linear_parameters + spec.head_parameters
    attention = 4 * 32 * 32 * 128 * 1000  # layers, heads, head_dim, context
    assert float(model.flops(1, 1000, 1)) == 2 * weights + attention


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: f"{setup[0]}-{setup[1]}")
def test_operator_flops_and_bytes_are_those_of_the_step(
    setup: Setup,
) -> None:
    model = step(*setup)
    parts = model.decode_operators(16, 3000)
    layer = model.model.kinds[0].attention
    replicated = layer.kv_heads_per_gpu(model.tp) * model.tp / layer.kv_heads
    assert replicated == 1.0  # no set-up here replicates KV heads, so the sum is the whole
    total = model.tp * math.fsum(part.flops for part in parts)
    padding = 2 * 16 * (model.model.padded_vocab(model.tp) - model.model.vocab) * model.model.hidden
    assert total == pytest.approx(float(model.flops(16, 16 * 3000, 16)) + padding, rel=1e-12)
    attention = operator(parts, "decode_attention")
    q_o = model.model.layers * 2 * 16 * layer.heads // model.tp * layer.head_dim * 2
    assert attention.bytes == model.kv_bytes_per_token_per_gpu * 16 * 3000 + q_o


@settings(max_examples=100)
@given(
    setup=setups,
    batch=st.integers(1, 512),
    context=st.integers(1, 100_000),
    prompt=st.integers(1, 100_000),
)
def test_no_step_beats_the_data_sheet(setup: Setup, batch: int, context: int, prompt: int) -> None:
    model = step(*setup)
    decode = float(model.decode_s(batch, batch * context))
    prefill = prefill_s(model, [(0, prompt)], 1)
    assert float(model.flops(batch, batch * context, batch)) < decode * model.peak_flops_per_s
    assert float(model.read_bytes(batch * context)) < decode * model.peak_bytes_per_s
    assert float(model.flops(prompt, prompt**2 / 2, 1)) < prefill * model.peak_flops_per_s
    assert float(model.read_bytes(0)) < prefill * model.peak_bytes_per_s


def test_prefill_attention_bytes_are_q_o_and_kv_written_and_read() -> None:
    parts = step("llama-3.1-8b", "h100", 1, Precision(kv="fp8")).operators(0, 0, [(300, 100)])
    kv_token = 32 * 2 * 8 * 128 * 1
    q_o = 32 * 2 * 100 * 32 * 128 * 2
    assert operator(parts, "prefill_attention").bytes == kv_token * (100 + 400) + q_o


def test_read_bytes_are_weights_once_and_kv_once_without_the_looked_up_table() -> None:
    spec = load_model("llama-3.1-8b")
    model = step("llama-3.1-8b", "h100")
    streamed = 2 * (spec.parameters - spec.embedding_parameters)
    assert float(model.read_bytes(0)) == streamed
    assert float(model.read_bytes(1000)) == streamed + 1000 * 131_072
    # Tied, the one table is the LM head, and is read.
    tied = dataclasses.replace(spec, tied_embeddings=True)
    assert float(StepModel(tied, load_gpu("h100")).read_bytes(0)) == streamed


def test_activations_shrink_with_the_sharded_ffn_only() -> None:
    one, four = step("llama-3.1-70b", "h100", 1), step("llama-3.1-70b", "h100", 4)
    saved = one.activation_bytes(1000) - four.activation_bytes(1000)
    assert saved == pytest.approx(2 * 1000 * 3 * 28672 * (1 - 1 / 4))


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
    few = twelve(kv_heads=2)
    two, four = (StepModel(few, load_gpu("h100"), Parallel(tp=tp)) for tp in (2, 4))
    assert two.kv_bytes_per_token_per_gpu == four.kv_bytes_per_token_per_gpu


def test_step_models_are_values() -> None:
    setup = SETUPS[2]
    twin = StepModel(load_model(setup[0]), load_gpu(setup[1]), Parallel(tp=setup[2]), setup[3])
    assert twin == step(*setup)
    assert hash(twin) == hash(step(*setup))
    assert pickle.loads(pickle.dumps(twin)) == twin
    assert twin != dataclasses.replace(twin, c0_s=1.0)


def test_static_scales_need_no_quantisation_kernel() -> None:
    dynamic = step("llama-3.1-70b", "h100", 2, Precision(weights="fp8", kv="fp8"))
    static = step(
        "llama-3.1-70b", "h100", 2, Precision(weights="fp8", kv="fp8", activations="static")
    )
    assert static.operators_per_gpu.tokens[0].args["quant_eff"] is None
    assert static.decode_s(8, 8_000) < dynamic.decode_s(8, 8_000)
    assert any("static" in note for note in static.notes)
    assert not any("static" in note for note in dynamic.notes)
