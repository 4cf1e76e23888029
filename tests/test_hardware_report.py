"""The hardware report: plain, complete, consistent with the step model, and readable."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from hwprofiles import load_gpu
from simulator.errors import InputError, ModelError, ProfileError
from simulator.model import load_model
from simulator.perf.step import Parallel, Precision, StepModel
from simulator.report.hardware import hardware_report, hardware_view


def shown(report: dict[str, Any], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(hardware_view(report))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_profile_alone_lists_every_parameter_with_its_source() -> None:
    report = hardware_report("h100")
    assert set(report) == {
        "schema",
        "gpu",
        "description",
        "calibrated",
        "borrowed_from",
        "caution",
        "parameters",
        "ranges",
    }
    assert report["calibrated"]
    assert report["caution"] is None
    expected = {path: param.value for path, param in load_gpu("h100").parameters()}
    assert {row["name"]: row["value"] for row in report["parameters"]} == expected
    assert all(row["unit"] and row["source"] and row["source_text"] for row in report["parameters"])


def test_a_borrower_says_so_alone_and_with_a_model() -> None:
    for report in (hardware_report("b200"), hardware_report("b200", "llama-3.1-8b")):
        assert not report["calibrated"]
        assert report["borrowed_from"] == "h200_sxm"
        shown_once = " ".join(shown(report, width=1000).split())
        assert "b200 is not calibrated: its kernel efficiencies are borrowed from h200_sxm" in (
            shown_once
        )
        assert "6-20 % for gemm, 6-28 % for decode attention and 11-61 % for prefill" in shown_once


def test_every_parameter_and_every_source_is_shown() -> None:
    report = hardware_report("l40s")
    text = " ".join(shown(report, width=1000).split())
    for row in report["parameters"]:
        assert row["name"].removeprefix("kernels.") in text
        assert row["source_text"] in text
    for quantity in ("48.31 GB", "362.0 TFLOP/s", "864.0 GB/s", "142", "350 W", "4.82 µs"):
        assert quantity in text


def test_the_report_is_json() -> None:
    report = hardware_report("a100", "llama-3.1-70b", 4)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_steps_are_those_of_the_step_model() -> None:
    precision = Precision(weights="fp8", kv="fp8")
    report = hardware_report(
        "h200", "llama-3.1-70b", 2, batch=48, context=3000, prompt=5000, precision=precision
    )
    step = StepModel(load_model("llama-3.1-70b"), load_gpu("h200"), Parallel(tp=2), precision)
    assert report["decode"]["time_s"] == float(step.decode_s(48, 48 * 3000))
    assert report["decode"]["tokens_per_s"] == pytest.approx(48 / report["decode"]["time_s"])
    prefill_s = float(step.mixed_s(0, 0, 5000, 5000**2 / 2, 5000, 1, 1))
    assert report["prefill"]["time_s"] == pytest.approx(prefill_s, rel=1e-12)
    assert report["memory"]["kv_capacity_tokens"] == step.kv_capacity_tokens(0.9, 8192)
    formats = {"weights": "fp8", "experts": None, "compute": "fp8", "kv": "fp8"}
    assert report["precision"] == formats
    assert report["parallel"] == {"tp": 2, "pp": 1, "ep": 1, "attention_dp": 1}


def test_windows_and_attention_ranks_count_in_what_fits() -> None:
    # gpt-oss-120b: half of its layers keep 128 of 8,192 tokens
    memory = hardware_report("h200", "gpt-oss-120b", context=8192)["memory"]
    held = (8192 + 128) / 2
    assert memory["sequences_of_context"] == int(memory["kv_capacity_tokens"] // held)
    ranks = hardware_report("h200", "deepseek-v3", attention_dp=8, ep=8, context=2048)
    each = ranks["memory"]["kv_capacity_tokens"] // 2048
    assert ranks["memory"]["sequences_of_context"] == 8 * each
    assert {"dispatch", "combine", "experts"} <= {op["name"] for op in ranks["decode"]["operators"]}


@pytest.mark.parametrize("which", ["decode", "prefill"])
def test_shares_add_up_and_times_add_up_to_the_step(which: str) -> None:
    part = hardware_report("h100", "llama-3.1-8b", 2)[which]
    assert math.fsum(op["share"] for op in part["operators"]) == pytest.approx(1.0)
    assert math.fsum(op["time_s"] for op in part["operators"]) == pytest.approx(part["time_s"])


def test_mfu_of_the_step_is_the_time_weighted_mean_of_its_operators() -> None:
    part = hardware_report("h100", "llama-3.1-8b")["prefill"]
    weighted = math.fsum(op["share"] * (op["mfu"] or 0.0) for op in part["operators"])
    assert part["mfu"] == pytest.approx(weighted, rel=1e-9)


def test_a_decode_step_is_bound_by_memory_and_a_long_prefill_by_compute() -> None:
    report = hardware_report("h100", "llama-3.1-70b", 4, batch=8, prompt=16384)
    decode = {op["name"]: op["bound"] for op in report["decode"]["operators"]}
    prefill = {op["name"]: op["bound"] for op in report["prefill"]["operators"]}
    assert decode["gate_up_proj"] == "memory"
    assert prefill["gate_up_proj"] == prefill["prefill_attention"] == "compute"
    assert prefill["all_reduce"] == "link"
    assert decode["elementwise"] == "latency"
    assert report["decode"]["mbu"] > 0.5 > 0.1 > report["decode"]["mfu"]
    assert report["prefill"]["mfu"] > 0.4 > 0.1 > report["prefill"]["mbu"]


def test_an_all_reduce_has_no_memory_utilisation() -> None:
    parts = hardware_report("h100", "llama-3.1-8b", 2)["decode"]["operators"]
    assert next(op["mbu"] for op in parts if op["name"] == "all_reduce") is None


def test_memory_adds_up() -> None:
    memory = hardware_report("a100", "qwen3-32b", 2, context=4096)["memory"]
    left = memory["usable_bytes"] - memory["weight_bytes"] - memory["activation_bytes"]
    assert memory["kv_capacity_tokens"] == int(left // memory["kv_bytes_per_token"])
    assert memory["sequences_of_context"] == memory["kv_capacity_tokens"] // 4096
    assert memory["fits"]


def test_what_does_not_fit_is_said() -> None:
    report = hardware_report("l40s", "llama-3.1-70b")
    assert not report["memory"]["fits"]
    assert "does not fit, raise tp" in shown(report)
    tight = hardware_report("a100", "llama-3.1-70b", 2, batch=64, context=8192)
    assert tight["memory"]["fits"]
    assert not tight["decode"]["fits"]
    assert "this batch exceeds the KV capacity" in shown(tight)


def test_the_view_names_the_step_its_operators_and_its_notes() -> None:
    precision = Precision(weights="fp8", kv="bf16")
    report = hardware_report("a100", "llama-3.1-70b", 4, precision=precision, prompt=8192)
    text = shown(report)
    assert "llama-3.1-70b on a100_sxm_80gb, TP4; weights fp8, compute bf16, KV bf16" in text
    assert "decode step: 32 sequences with 2,048 tokens each" in text
    assert "prefill: one prompt of 8,192 tokens" in text
    for op in report["decode"]["operators"] + report["prefill"]["operators"]:
        assert op["name"] in text
    assert "weight-only" in text


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"gpu": "h101"}, ProfileError, "GPU 'h101' is unknown"),
        ({"model": "llama-9"}, ModelError, "model 'llama-9' is unknown"),
        ({"tp": 3}, ModelError, "tp: 3 does not shard"),
        ({"batch": 0}, InputError, "batch: found 0; allowed: a whole number from 1."),
        ({"prompt": -5}, InputError, "prompt: found -5; allowed"),
        ({"memory_fraction": 1.5}, InputError, "memory_fraction: found 1.5; allowed: over 0"),
    ],
)
def test_bad_input_is_refused(
    arguments: dict[str, Any], error: type[InputError], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        hardware_report(**({"gpu": "h100", "model": "llama-3.1-8b"} | arguments))


def test_a_model_is_shown_as_its_checkpoint_stores_it() -> None:
    report = hardware_report("h200", "gpt-oss-20b")
    assert report["memory"]["weight_bytes"] == pytest.approx(13.8e9, rel=0.01)
