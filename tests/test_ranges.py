"""Operators outside the sizes they were measured at: how much time they carry, and who says so."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hwprofiles import load_gpu
from simulator.cli import app
from simulator.model import Parallel, load_model
from simulator.perf.evaluated import Decodes, Prefills, decode_evaluations, prefill_evaluations
from simulator.perf.precision import Precision
from simulator.perf.ranges import Finding, findings, sentences
from simulator.perf.step import StepModel
from simulator.report.hardware import hardware_report


def model_on(model="llama-3.1-8b", gpu="h100_sxm", tp=1, precision=None, **kw) -> StepModel:
    return StepModel(
        load_model(model), load_gpu(gpu), Parallel(tp=tp), precision or Precision(), **kw
    )


def prefilled(step: StepModel, *prompts: float) -> list[Finding]:
    tokens = np.array(prompts, dtype=np.float64)
    found = prefill_evaluations(step, Prefills(tokens, tokens))
    return findings(found, phase="prefill", step=step)


def decoded(step: StepModel, batch: float, context: float) -> list[Finding]:
    x = Decodes(np.array([batch]), np.array([context]), batch)
    return findings(decode_evaluations(step, x), phase="decode", step=step)


def beyond(found: list[Finding]) -> dict[str, list[str]]:
    """Sizes outside by operator and type."""
    return {f.what: [s.name for s in f.sizes] for f in found if f.why == "outside"}


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-r1", "gpt-oss-20b"])
def test_evaluations_add_up_to_the_step(model):
    spec = load_model(model)
    tp = 8 if model == "deepseek-r1" else 1
    step = StepModel(spec, load_gpu("h200_sxm"), Parallel(tp=tp), Precision.of(spec))
    prompt, (batch, context) = 6000, (32, 5000)
    each = prefill_evaluations(step, Prefills(np.array([6000.0]), np.array([6000.0])))
    whole = sum(op.time_s for op in step.prefill_operators(1, prompt))
    assert sum(float(e.time_s.sum()) for e in each) == pytest.approx(whole, rel=1e-6)
    x = Decodes(np.array([float(batch)]), np.array([float(context)]), batch)
    total = sum(float(e.time_s.sum()) for e in decode_evaluations(step, x))
    assert total == pytest.approx(float(step.decode_s(batch, step.reads(batch, context))), rel=1e-6)


def test_a_long_prompt_is_outside_for_as_much_time_as_its_attention_takes():
    step = model_on()
    found = prefilled(step, 60_000.0)
    assert beyond(found) == {"prefill attention bf16": ["isl"], "gemm bf16": ["m"]}
    parts = {op.name: op.time_s for op in step.prefill_operators(1, 60_000)}
    attention = next(f for f in found if f.operator == "prefill_attention")
    assert attention.share == pytest.approx(parts["prefill_attention"] / sum(parts.values()))
    assert attention.sizes[0].times == pytest.approx(60_000 / 16_384)
    said = " ".join(sentences(found))
    assert "prompts of 60,000 tokens, measured to 16,384" in said
    assert f"({100 * attention.share:.0f} % of prefill time)" in said


def test_what_is_ordinary_is_quiet():
    step = model_on()
    for found in (prefilled(step, 20.0, 700.0, 8192.0, 17_000.0), decoded(step, 1, 40)):
        assert beyond(found) == {}
        assert sentences(found) == []
        assert {f.why for f in found} == {"assumed"}  # elementwise kernels, known as such


def test_one_long_prompt_among_many_counts_for_its_own_time():
    step = model_on()
    alone, among = (
        next(f for f in prefilled(step, *prompts) if f.operator == "prefill_attention")
        for prompts in ([40_000.0], [40_000.0, *[2000.0] * 40])
    )
    assert among.share < alone.share
    assert among.sizes == alone.sizes


def test_shapes_smaller_than_measured_are_outside_too():
    step = model_on("llama-3.1-8b", tp=8, precision=Precision(weights="fp8"))
    (gemm,) = (f for f in decoded(step, 32, 2000) if f.what == "gemm fp8")
    assert {s.name for s in gemm.sizes} == {"n", "k"}
    assert "o_proj" in gemm.parts
    assert "weights of 512 rows, measured from 1,536" in sentences([gemm])[0]


def test_large_messages_are_said_in_whole_megabytes():
    found = prefilled(model_on(tp=8), 120_000.0)
    assert not [f for f in found if f.operator == "all_reduce"]
    (reduce,) = (f for f in prefilled(model_on(tp=8), 600_000.0) if f.operator == "all_reduce")
    assert "messages of 4,915 MB, measured to 1,074 (" in sentences([reduce])[0]


def test_what_was_not_measured_is_told_apart():
    borrowed = {f.operator: f.why for f in prefilled(model_on(gpu="h100_pcie"), 1000.0)}
    assert borrowed["gemm"] == borrowed["prefill_attention"] == "borrowed"
    other = decoded(model_on(kernels="sglang"), 64, 4000)
    assert {f.operator: f.why for f in other}["decode_attention"] == "assumed"
    assert (
        "sglang kernels: decode attention bf16 was not measured in this engine"
        in (sentences(other)[0])
    )
    oss = load_model("gpt-oss-20b")
    found = decoded(StepModel(oss, load_gpu("h100_sxm"), Parallel(), Precision.of(oss)), 32, 2000)
    assert {f.operator: f.why for f in found}["moe"] == "stands_in"


def test_simulate_says_so():
    long = "workload.prompt_tokens={dist: fixed, tokens: 70000}"
    args = ["simulate", "quick_8b", "--json", "--set", "workload.requests=20", "--set", long]
    found = json.loads(CliRunner().invoke(app, args).stdout)
    assert any("prompts of 70,000 tokens, measured to 16,384" in w for w in found["warnings"])
    first = found["not_measured"][0]
    assert (first["operator"], first["pool"]) == ("prefill_attention", "prefill")
    assert first["sizes"] == [
        {"name": "isl", "used": [70_000.0, 70_000.0], "measured": [128.0, 16384.0]}
    ]
    assert 0.3 < first["share"] < 1.0


def test_a_profile_shows_the_sizes_behind_it():
    rows = {row["name"]: row["sizes"] for row in hardware_report("h100_sxm")["ranges"]}
    assert rows["kernels.vllm.gemm.bf16"]["m"] == [1.0, 8192.0]
    assert rows["kernels.vllm.all_reduce.nvlink"]["n_gpus"] == [2.0, 8.0]
    report = hardware_report("h100_sxm", "llama-3.1-8b", prompt=100_000)
    assert any("prompts of 100,000 tokens" in note for note in report["notes"])
