"""Serving validation: reading runs, what each was, its prediction, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from simulator.analysis import analyze
from simulator.cli.app import app
from simulator.engine_profiles import load_engine
from simulator.errors import InputError
from simulator.validation.rows import COLUMNS
from simulator.validation.serving.clients import (
    DSR1_TRT,
    INFERENCE_MAX,
    LLAMA_70B_TRT_WAITS,
    client_of,
)
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.doubts import doubt
from simulator.validation.serving.mapping import Unpredictable, model_of, scenario_of
from simulator.validation.serving.predict import predict, predict_all, waiting_steps
from simulator.validation.serving.runs import Workers, read_runs
from simulator.validation.serving.scores import joined, score, worst

RUN: dict[str, Any] = {
    "backend": "vllm",
    "backend_version": "0.18.0",
    "model_path": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "h200_sxm",
    "precision": "fp8",
    "gemm_quant_mode": "fp8",
    "mode": "agg",
    "isl": 100,
    "osl": 20,
    "concurrency": 4.0,
    "tp_size": 4.0,
    "tp_size_fixed": 2.0,
    "silicon_ttft_ms": 30.0,
    "silicon_tpot_ms": 5.0,
    "src_dump": "2026-04-06.csv",
}


def table(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    file = tmp_path / "runs.parquet"
    pd.DataFrame([{**RUN, **row} for row in rows]).to_parquet(file)
    return file


def test_a_row_becomes_a_run_with_its_fixed_parallelism(tmp_path: Path) -> None:
    (run,) = read_runs(table(tmp_path, {}))
    assert run.workers == Workers(tp=2)
    assert (run.gpus, run.layout, run.documented) == (2, "TP2", True)
    assert run.latency_ms == 30.0 + 19 * 5.0


def test_a_tp_multiplied_by_ep_is_undone_and_said(tmp_path: Path) -> None:
    (run,) = read_runs(table(tmp_path, {"tp_size_fixed": 64.0, "moe_ep_size_fixed": 8.0}))
    assert run.workers == Workers(tp=8, ep=8)
    assert "multiplied" in run.notes[0]


def test_a_disaggregated_row_has_two_kinds_of_workers(tmp_path: Path) -> None:
    split = {
        "mode": "disagg", "prefill_num_workers": 2, "prefill_tp_size": 4, "decode_num_workers": 3,
        "decode_tp_size": 1, "decode_attention_dp_size": 8, "decode_moe_ep_size": 8,
    }  # fmt: skip
    (run,) = read_runs(table(tmp_path, split))
    assert run.prefill == Workers(instances=2, tp=4)
    assert run.layout == "2×TP4 + 3×TP1 DP8 EP8"
    assert run.gpus == 32


def test_the_scenario_is_what_the_client_and_the_engine_did(tmp_path: Path) -> None:
    (run,) = read_runs(table(tmp_path, {}))
    config = scenario_of(run, client_of(run), load_engine("vllm")).config
    assert config.model == "llama-3.1-8b"
    assert (config.precision.weights, config.precision.kv) == ("fp8", "fp8")
    assert config.precision.activations == "static"
    assert config.workload.closed_loop is not None
    assert config.workload.closed_loop.requests == 40
    assert config.workload.prompt_tokens is not None
    assert config.workload.prompt_tokens.dist == "uniform_ratio"
    assert config.routing.latency_s == load_engine("vllm")["front_s"]
    assert config.pools["colocated"].tp == 2


def test_an_inferred_client_is_said_to_be(tmp_path: Path) -> None:
    (run,) = read_runs(table(tmp_path, {"src_dump": "Some_Model.csv"}))
    assert not run.documented
    found = predict(run)
    assert any("inferred" in note for note in found.notes)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-405B", "llama-3.1-405b"),
        ("Qwen/Qwen3-32B-FP8", "qwen3-32b"),
    ],
)
def test_models_are_found_by_their_hugging_face_path(path: str, name: str) -> None:
    assert model_of(path) == name


def test_what_cannot_be_predicted_says_why(tmp_path: Path) -> None:
    rows = [
        {"usable": False},
        {"model_path": "nobody/Unheard-Of-7B", "usable": True},
        {"system": "z9000", "usable": True},
        {"backend": "tgi", "usable": True},
        {"isl": 0, "usable": True},
        {"tp_size_fixed": 7.0, "usable": True},
    ]
    found = predict_all(read_runs(table(tmp_path, *rows)))
    says = ["not usable", "not bundled", "no profile of the GPU", "no profile of the engine"]
    for prediction, text in zip(found, [*says, "isl is missing", "tp"], strict=True):
        assert text in prediction.reason
    with pytest.raises(Unpredictable):
        model_of("nobody/Unheard-Of-7B")


def test_a_prediction_is_the_mean_the_client_reports(tmp_path: Path) -> None:
    (run,) = read_runs(table(tmp_path, {}))
    found = predict(run)
    assert found.reason == ""
    assert found == predict(run)
    assert 5.0 < found.ttft_ms < 100.0
    assert 1.0 < found.tpot_ms < 10.0
    assert found.latency_ms == pytest.approx(found.ttft_ms + 19 * found.tpot_ms)


def test_scores_by_hand() -> None:
    found = score(pd.Series([-0.1, 0.2, 0.6, float("nan")]))
    assert (found.rows, found.median, found.bias) == (3, pytest.approx(0.2), pytest.approx(0.2))
    assert found.mean == pytest.approx(0.3)
    assert score(pd.Series([float("nan")])).rows == 0


def test_the_worst_are_worst_by_ratio() -> None:
    errors = pd.DataFrame({"ttft_error": [0.5, -0.9, 0.1, float("nan")]})
    assert worst(errors, "ttft", 2).index.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"silicon_ttft_ms": "soon"}, "row 0, silicon_ttft_ms: found 'soon'; allowed: a number"),
        ({"mode": "both"}, "row 0, mode: found 'both'; allowed: agg, disagg"),
    ],
)
def test_a_bad_cell_is_one_sentence(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        read_runs(table(tmp_path, change))
    assert says in str(error.value)


def test_a_bad_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "none.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_runs(broken)
    short = tmp_path / "short.csv"
    short.write_text("backend,isl\nvllm,1\n")
    with pytest.raises(InputError, match="column 'model_path' is missing"):
        read_runs(short)


def test_the_command_writes_two_rows_a_run(tmp_path: Path) -> None:
    file = table(tmp_path, {}, {"system": "z9000"})
    out = tmp_path / "rows.parquet"
    command = ["validate", "--serving", str(file), "--rows", str(out), "--jobs", "1", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    rows = pd.read_parquet(out)
    assert tuple(rows.columns) == COLUMNS
    assert rows["metric"].tolist() == ["ttft_ms", "tpot_ms"] * 2
    assert rows["row"].tolist() == [0, 0, 1, 1]
    assert set(rows["table"]) == {"runs"}
    assert rows["predicted"].notna().tolist() == [True, True, False, False]
    assert "no profile of the GPU" in rows["note"].iloc[3]
    assert len(json.loads(done.stdout)["runs"]) == 2


def test_a_refused_command_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    done = CliRunner().invoke(
        app, ["validate", "--serving", str(tmp_path / "x"), "--rows", str(out)]
    )
    assert done.exit_code == 2
    assert not out.exists()


def test_bundled_runs_are_usable_and_of_hopper() -> None:
    runs = read_runs(bundled_runs())
    assert len(runs) > 100
    assert all(run.usable and run.relevant and run.gpu in ("h100_sxm", "h200_sxm") for run in runs)


def test_the_table_shows_measured_beside_predicted(tmp_path: Path) -> None:
    from simulator.report.serving import serving_blocks

    runs = read_runs(table(tmp_path, {}, {"system": "z9000"}))
    blocks = serving_blocks(joined(runs, predict_all(runs)))
    text = "\n".join(" ".join(row) for block in blocks for row in block.rows)
    assert "no profile of the GPU 'z9000'" in text
    assert "TP2" in text


def test_what_is_doubtful_says_why(tmp_path: Path) -> None:
    rows = [{}, {"backend": "sglang", "concurrency": 512.0}, {"model_path": "Qwen/Qwen3-32B"}]
    found = [doubt(run) for run in read_runs(table(tmp_path, *rows))]
    assert "prefix cache" in found[0]
    assert "front-end process" in found[1]
    assert found[2] == ""


def test_the_benchmarks_scripts_say_what_the_table_lost(tmp_path: Path) -> None:
    """DeepSeek on TensorRT-LLM: as many expert groups as GPUs, attention DP from some load on."""
    row = {"backend": "trtllm", "model_path": "deepseek-ai/DeepSeek-V3", "tp_size_fixed": 8.0}
    loads = [{**row, "isl": 8192, "concurrency": c} for c in (32.0, 64.0)]
    few, many = read_runs(table(tmp_path, *loads))
    assert client_of(few) is DSR1_TRT
    assert few.workers == Workers(tp=8, ep=8)
    assert many.workers == Workers(attention_dp=8, ep=8)
    assert "script" in many.notes[0]
    split = {
        **row, "mode": "disagg", "isl": 8192, "prefill_attention_dp_size": 8,
        "prefill_moe_ep_size": 8, "decode_attention_dp_size": 8, "decode_moe_ep_size": 8,
    }  # fmt: skip
    (run,) = read_runs(table(tmp_path, split))
    assert run.layout == "TP8 EP8 + TP1 DP8 EP8"


def test_prompts_that_wait_for_company_come_later(tmp_path: Path) -> None:
    """With nobody else to come a prompt waits all 20 steps, with very many half of them."""
    row = {"backend": "trtllm", "model_path": "meta-llama/Llama-3.1-70B", "isl": 1024, "osl": 1024}
    (run,) = read_runs(table(tmp_path, row))
    client = client_of(run)
    assert client is LLAMA_70B_TRT_WAITS
    alone, crowd = (waiting_steps(replace(run, concurrency=c), client) for c in (0, 10**9))
    assert alone == pytest.approx(0.9 * 20.0)
    assert crowd == pytest.approx(0.9 * 10.0, rel=1e-6)
    assert waiting_steps(run, INFERENCE_MAX) == 0.0


@pytest.mark.parametrize(
    ("model", "precision", "isl", "concurrency"),
    [
        ("meta-llama/Llama-3.1-8B", "fp8", 1024.0, 16.0),
        ("meta-llama/Llama-3.1-8B", "", 2048.0, 4.0),
        ("openai/gpt-oss-120b", "fp4", 1024.0, 32.0),
    ],
)
def test_closed_form_and_simulation_agree_on_the_documented_client(
    tmp_path: Path, model: str, precision: str, isl: float, concurrency: float
) -> None:
    """Two ways to one number: within 5 % away from KV limits."""
    row = {"model_path": model, "precision": precision, "isl": isl, "osl": 512.0}
    (run,) = read_runs(table(tmp_path, {**row, "concurrency": concurrency}))
    client = analyze(scenario_of(run, client_of(run), load_engine("vllm"))).client
    assert client is not None
    assert client.ttft_s is not None
    found = predict(run)
    assert 1e3 * client.ttft_s == pytest.approx(found.ttft_ms, rel=0.05)
    assert 1e3 * client.tpot_s == pytest.approx(found.tpot_ms, rel=0.05)
