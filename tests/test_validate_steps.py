"""Whole steps: sums of measured kernels, and an engine whose host loop is the bottleneck."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hwprofiles import load_gpu
from simulator.validation.operators.tables import Table
from simulator.validation.steps.eager import bundled_eager, select, validate_eager
from simulator.validation.steps.summed import (
    Step,
    bundled_steps,
    measured_s,
    predicted_s,
    validate_summed,
)
from simulator.validation.steps.tables import MeasuredKernels


def kernels() -> MeasuredKernels:
    """Tables whose every kernel follows a power law, so that interpolation is exact."""
    gpu = load_gpu("h100_sxm")
    grid = [(n, k) for n in (1024, 4096, 16384, 32768) for k in (1024, 4096, 16384, 32768)]
    gemm = pd.DataFrame(
        [("vllm", "bfloat16", 8, n, k, n * k / 1e6) for n, k in grid],
        columns=["framework", "dtype", "m", "n", "k", "latency_us"],
    )
    attention = {"framework": ["vllm"], "kv_dtype": ["bfloat16"], "batch": [8], "window": [0]}
    heads = {"n_heads": [16], "n_kv_heads": [4], "head_dim": [128]}
    decode = pd.DataFrame({**attention, **heads, "kv_len": [16384], "latency_us": [40.0]})
    prefill = pd.DataFrame({**attention, **heads, "isl": [1], "latency_us": [9.0]})
    comm = pd.DataFrame(
        [("vllm", "all_reduce", 2, size, size / 1e3) for size in (1024, 10**6)],
        columns=["framework", "op", "n_gpus", "bytes", "latency_us"],
    )
    frames = {"gemm": gemm, "attn_decode": decode, "attn_prefill": prefill, "comm": comm}
    return MeasuredKernels([Table(f"h_{k}", k, gpu, f) for k, f in frames.items()], "vllm")


def test_a_step_is_the_sum_of_its_kernels_times_layers() -> None:
    # llama-3.1-8b at TP2: hidden 4096, 16 + 2·4 heads of 128, FFN 7168
    gemms = 3072 * 4096 + 4096 * 2048 + 14336 * 4096 + 4096 * 7168
    all_reduce = 2 * (2 * 8 * 4096) / 1e3
    expected = 32 * (gemms / 1e6 + 40.0 + all_reduce) * 1e-6
    found = measured_s(kernels(), Step("llama-3.1-8b", 2, "decode", 8, 16384))
    assert found == pytest.approx(expected, rel=1e-9)


def test_what_was_not_measured_is_not_guessed() -> None:
    k = kernels()
    assert np.isnan(measured_s(k, Step("llama-3.1-8b", 4, "decode", 8, 16384)))
    assert np.isnan(k.gemm_s(9, 4096, 4096))
    assert np.isnan(k.gemm_s(8, 65536, 4096))
    assert np.isnan(k.all_reduce_s(2e6, 2))
    assert k.all_reduce_s(2e6, 1) == 0.0


def test_decode_attention_served_from_the_cache_is_left_out() -> None:
    k = kernels()
    k._attentions["attn_decode"][8, 1024, 16, 4, 128] = 5.0
    assert np.isnan(k.decode_s(8, 1024, 16, 4, 128))  # 17 MB of KV: the L2 cache holds it
    assert k.decode_s(8, 16384, 16, 4, 128) == pytest.approx(40e-6)


def test_steps_agree_with_summed_kernels() -> None:
    found = validate_summed(bundled_steps())
    assert len(found) > 500
    assert found["error"].notna().all()
    assert np.isfinite(predicted_s("h100_sxm", Step("llama-3.1-8b", 1, "prefill", 1, 512)))
    size = found.assign(size=found["error"].abs()).groupby(["gpu", "phase"])["size"].mean()
    for gpu in ("h100_sxm", "h200_sxm", "a100_sxm_80gb", "l40s"):
        assert size[gpu, "decode"] < 0.05
        assert size[gpu, "prefill"] < 0.08


def test_the_eager_engine_is_bound_by_its_host() -> None:
    found = validate_eager(bundled_eager())
    tested = found[found["tested"]]
    alone = (tested["decode_model_s"] / tested["decode_s"] - 1.0).abs().mean()
    bound = (tested["decode_host_s"] / tested["decode_s"] - 1.0).abs().mean()
    assert bound < 0.2 < alone
    # TP8 does not make it faster than TP4, as it would if the GPU were the bottleneck
    host = found.groupby(["gpu", "tp"])["host_s"].first()
    for gpu in ("a100_sxm_80gb", "h100_sxm"):
        assert host[gpu, 8] > 0.9 * host[gpu, 4]


def test_selection_takes_medians_of_usable_rows() -> None:
    row = {
        "hardware": "h100-80gb", "tensor_parallel": 8, "batch_size": 1, "use": True,
        "prompt_tokens_per_request": 128, "output_tokens_per_request": 10,
        "model": "llama2-70b", "prompt_time_ms": 10.0, "token_time_ms": 5.0,
    }  # fmt: skip
    rows = [row, {**row, "token_time_ms": 7.0}, {**row, "token_time_ms": 6.0}]
    rows += [{**row, "use": False, "token_time_ms": 99.0}, {**row, "model": "bloom-176b"}]
    out = select(pd.DataFrame(rows))
    assert len(out) == 1
    assert out["decode_s"].iloc[0] == pytest.approx(0.006)
