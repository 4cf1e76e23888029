"""Kernels of experts and latent attention that a profile has of its own are the ones used."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from hwprofiles import GpuProfile, MlaDecodeParams, MlaPrefillParams, MoeParams, Param, load_gpu
from hwprofiles.param import Source
from simulator.model import FORMAT_BYTES, Parallel, load_model
from simulator.perf import forms
from simulator.perf.fits.bundled import measurements
from simulator.perf.precision import Precision
from simulator.perf.step import StepModel
from simulator.validation.operators import mixtures
from tests.perf_kit import operator

SOURCE = Source("assumed", "round numbers for a test")
MOE = {
    "t0_s": 2e-5, "expert_s": 1e-7, "compute_eff": 0.5, "memory_eff": 0.7, "p": 2.0,
    "tile_rows": 8.0, "own_passes": 1.5, "all_passes": 0.5,
}  # fmt: skip
DECODE = {
    "t0_s": 1e-5, "sequence_s": 2e-7, "compute_eff": 0.6, "memory_eff": 0.8, "p": 3.0,
    "head_tile": 16.0, "head_s": 3e-9,
}  # fmt: skip
PREFILL = {"t0_s": 1.5e-5, "compute_eff": 0.55, "memory_eff": 0.4, "row_s": 1e-9}


def params(kind, values):
    known = {f.name for f in fields(kind)}
    assert set(values) <= known
    return kind(**{name: Param(value, "1", SOURCE) for name, value in values.items()})


def measured() -> GpuProfile:
    gpu = load_gpu("h200")
    family = replace(
        gpu.family(),
        moe=(("bf16", params(MoeParams, {**MOE, "t0_s": 1.0})), ("fp8", params(MoeParams, MOE))),
        mla_decode=(("bf16", params(MlaDecodeParams, DECODE)),),
        mla_prefill=(("bf16", params(MlaPrefillParams, PREFILL)),),
    )
    return replace(gpu, kernels=(family,))


def deepseek(gpu: GpuProfile) -> StepModel:
    model = load_model("deepseek-v3")
    return StepModel(model, gpu, Parallel(tp=8), Precision.of(model))


def test_measured_experts_take_the_form_of_experts() -> None:
    step = deepseek(measured())
    tokens = 64
    touched = 256 * (1 - (1 - 8 / 256) ** tokens)
    each = forms.moe_gemm_s(
        tokens * 8, touched, tokens * 8, hidden=7168, width=2048 // 8, peak_flops=1979e12,
        bandwidth=4.8e12, weight_bytes=FORMAT_BYTES["fp8_block"], **MOE,
    )  # fmt: skip
    part = operator(step.operators(tokens, tokens * 100), "experts")
    assert part.time_s == pytest.approx(58 * float(each), rel=1e-12)


def test_a_shape_without_tiles_of_its_own_keeps_a_share_beyond_as_many_tokens_as_experts() -> None:
    how = {k: MOE[k] for k in ("compute_eff", "memory_eff", "tile_rows")}
    sheet = {"hidden": 4096, "width": 1536, "peak_flops": 1e15, "bandwidth": 3e12}
    tuned = ((64, 1536), (128, 768))
    assert not forms.default_tiles(9999, local=8, width=5, tuned=None)
    flags = forms.default_tiles(
        [64, 65, 65], local=[64, 64, 128], width=[768, 768, 768], tuned=tuned
    )
    assert flags.tolist() == [False, True, False]
    # 64 experts of 10 rows each pad to a tile of 64; of 1000 rows, by half a tile
    for rows, padded in ((640, 64 * 64), (64_000, 64_000 + 64 * 32)):
        compute, memory = forms.moe_terms(
            rows, 64, untuned=True, untuned_compute=0.4, untuned_memory=0.7, **how, **sheet
        )
        assert float(compute) == pytest.approx(6 * padded * 4096 * 1536 / (1e15 * 0.5 * 0.4))
        assert float(memory) == pytest.approx(64 * 3 * 4096 * 1536 * 2 / (3e12 * 0.7 * 0.7))


def test_marlin_takes_the_smallest_tile_filled_to_nine_tenths_and_fills_whole_ones() -> None:
    tiles = (8, 16, 32, 48, 64)
    found = forms.chosen_tile([0.1, 7.1, 7.3, 14.5, 43.0, 44.0, 1e6], tiles)
    assert found.tolist() == [8, 8, 16, 32, 48, 64, 64]
    how = {k: MOE[k] for k in ("compute_eff", "memory_eff")}
    sheet = {"hidden": 4096, "width": 1536, "peak_flops": 1e15, "bandwidth": 3e12}
    for even, tile_counts in ((True, 2.0), (False, 1.25 + 0.5)):  # 80 rows an expert
        compute, _ = forms.moe_terms(800, 10, tile=64, even=even, tile_rows=0.0, **how, **sheet)
        rows = 10 * 64 * tile_counts
        assert float(compute) == pytest.approx(6 * rows * 4096 * 1536 / (1e15 * 0.5))


def test_a_rank_that_computes_its_visitors_other_pairs_takes_as_long_as_if_they_were_its_own() -> (
    None
):
    sheet = {"hidden": 4096, "width": 1536, "peak_flops": 1e15, "bandwidth": 3e12}
    some = forms.moe_gemm_s(800, 16, 6400, slots=6400, foreign_rows=1.0, **sheet, **MOE)
    assert float(some) == float(forms.moe_gemm_s(6400, 16, 6400, **sheet, **MOE))
    none = forms.moe_gemm_s(800, 16, 6400, slots=6400, foreign_rows=0.0, **sheet, **MOE)
    assert float(none) == float(forms.moe_gemm_s(800, 16, 6400, **sheet, **MOE))


def test_the_step_and_validate_see_the_same_shapes_without_tiles() -> None:
    gpu = load_gpu("h100")
    params = dict(gpu.family("sglang").moe)["bf16"]
    assert params.untuned_compute is not None
    assert params.untuned_compute.value < 0.6
    rows = measurements("h100_sxm", "moe").head(1).assign(
        dtype="bfloat16", hidden=2048, topk=8, experts=128, balanced=False, tokens=512
    )  # fmt: skip
    model = load_model("qwen3-30b-a3b")
    for tp in (1, 2, 4, 8):  # tiles for widths of 768, 384 and 192, none for 96
        step = StepModel(model, gpu, Parallel(tp=tp), Precision("bf16"), kernels="sglang")
        part = operator(step.operators(512, 512 * 100), "experts")
        row = rows.assign(width=768 // tp, ep=1)
        found, _ = mixtures.times("moe", row, gpu, gpu.family("sglang"), "bfloat16")
        assert part.time_s == pytest.approx(48 * float(found[0]), rel=1e-6)


def test_measured_latent_attention_takes_its_own_form() -> None:
    step = deepseek(measured())
    each = forms.mla_decode_s(
        32, 32 * 4000, heads=16, kv_lora_rank=512, qk_rope_head_dim=64, peak_flops=989e12,
        bandwidth=4.8e12, **DECODE,
    )  # fmt: skip
    part = operator(step.operators(32, 32 * 4000), "decode_attention")
    assert part.time_s == pytest.approx(61 * float(each), rel=1e-12)
    whole = forms.mla_prefill_s(
        3000, 3000**2 / 2, 3000, heads=16, qk_head_dim=192, v_head_dim=128, peak_flops=989e12,
        bandwidth=4.8e12, **PREFILL,
    )  # fmt: skip
    part = operator(step.prefill_operators(1, 3000), "prefill_attention")
    assert part.time_s == pytest.approx(61 * float(whole), rel=1e-12)


def test_notes_say_what_is_missing_only_where_it_is() -> None:
    assert deepseek(measured()).notes == ()
    gpu = load_gpu("h200")
    bare = replace(gpu, kernels=(replace(gpu.family(), moe=(), mla_decode=(), mla_prefill=()),))
    text = " ".join(deepseek(bare).notes)
    assert "no measured expert kernels" in text
    assert "no measured latent attention" in text
