"""Kernels of experts and latent attention that a profile has of its own are the ones used."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from hwprofiles import GpuProfile, MlaDecodeParams, MlaPrefillParams, MoeParams, Param, load_gpu
from hwprofiles.param import Source
from simulator.model import FORMAT_BYTES, Parallel, load_model
from simulator.perf import forms
from simulator.perf.precision import Precision
from simulator.perf.step import StepModel
from tests.perf_kit import operator

SOURCE = Source("assumed", "round numbers for a test")
MOE = {
    "t0_s": 2e-5, "expert_s": 1e-7, "compute_eff": 0.5, "memory_eff": 0.7, "p": 2.0,
    "tile_rows": 8.0, "own_passes": 1.5, "all_passes": 0.5,
}  # fmt: skip
DECODE = {
    "t0_s": 1e-5, "sequence_s": 2e-7, "compute_eff": 0.6, "memory_eff": 0.8, "p": 3.0,
    "head_tile": 16.0,
}  # fmt: skip
PREFILL = {"t0_s": 1.5e-5, "compute_eff": 0.55, "memory_eff": 0.4}


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
