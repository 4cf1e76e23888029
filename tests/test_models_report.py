"""`xpyd models NAME`: known deployments decided rightly, facts, tables, bad options."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from hwprofiles import load_gpu
from simulator.cli import app
from simulator.model import Format, Parallel, load_model, usual_layouts
from simulator.perf.memory import activation_bytes, kv_room_tokens
from simulator.perf.precision import Precision
from simulator.report.model_tables import compact, layout_name, model_blocks, models_block
from simulator.report.models import MAX_TOKENS, MEMORY_FRACTION, model_list, model_report

TWO_NODES = Parallel(tp=8, pp=2)

# Who says so: vLLM recipes and SGLang's DeepSeek page (8 H200 or MI300X, two nodes of 8 H100); Meta's
# Llama 3.1 and Llama 4 announcements (405B: fp8 on one node of 8 H100, bf16 on two; Scout: one H100 in
# int4); OpenAI's gpt-oss model card (one 80 GB GPU); model cards of Qwen and Mistral by their bf16 sizes.
DEPLOYMENTS: list[tuple[str, Format | None, str, Parallel, bool]] = [
    ("deepseek-v3", None, "h200", Parallel(tp=8), True),
    ("deepseek-v3", None, "h200", Parallel(attention_dp=8, ep=8), True),
    ("deepseek-v3", None, "h100", Parallel(tp=8), False),
    ("deepseek-v3", None, "h100", TWO_NODES, True),
    ("deepseek-r1", None, "mi300x", Parallel(tp=8), True),
    ("llama-3.1-70b", None, "h100", Parallel(), False),
    ("llama-3.1-70b", None, "h100", Parallel(tp=2), True),
    ("llama-3.1-70b", "fp8", "h200", Parallel(), True),
    ("llama-3.1-405b", None, "h100", Parallel(tp=8), False),
    ("llama-3.1-405b", None, "h100", TWO_NODES, True),
    ("llama-3.1-405b", "fp8", "h100", Parallel(tp=8), True),
    ("gpt-oss-120b", None, "h100", Parallel(), True),
    ("gpt-oss-120b", "bf16", "h100", Parallel(tp=2), False),
    ("gpt-oss-20b", None, "l4", Parallel(), True),
    ("mixtral-8x7b", None, "a100", Parallel(), False),
    ("mixtral-8x7b", None, "a100", Parallel(tp=2), True),
    ("mixtral-8x22b", None, "h100", Parallel(tp=2), False),
    ("mixtral-8x22b", None, "h100", Parallel(tp=4), True),
    ("qwen3-30b-a3b", None, "h100", Parallel(), True),
    ("qwen3-30b-a3b", None, "l40s", Parallel(), False),
    ("qwen3-235b-a22b", None, "h100", Parallel(tp=4), False),
    ("qwen3-235b-a22b", None, "h100", Parallel(tp=8), True),
    ("qwen3-235b-a22b", "fp8", "h100", Parallel(tp=4), True),
    ("llama-4-scout", None, "h100", Parallel(tp=2), False),
    ("llama-4-scout", None, "h100", Parallel(tp=4), True),
    ("llama-4-scout", "int4", "h100", Parallel(), True),
]


def room(name: str, weights: Format | None, gpu: str, parallel: Parallel) -> float:
    spec = load_model(name)
    precision = Precision.of(spec, weights=weights)
    return kv_room_tokens(spec, load_gpu(gpu), parallel, precision, MEMORY_FRACTION, MAX_TOKENS)


@pytest.mark.parametrize(("name", "weights", "gpu", "parallel", "fits"), DEPLOYMENTS)
def test_known_deployments(
    name: str, weights: Format | None, gpu: str, parallel: Parallel, fits: bool
) -> None:
    found = room(name, weights, gpu, parallel)
    assert found > 4096 if fits else found == 0


def test_kimi_k2_needs_sixteen_h200_for_its_whole_context() -> None:
    """Moonshot's deployment guide: 16 GPUs are the least for 128 K tokens, on H200 too.

    Its terabyte of fp8 weights does load on eight, and leaves less than one such context.
    """
    eight = room("kimi-k2", None, "h200", Parallel(tp=8))
    assert 0 < eight < 131_072
    assert room("kimi-k2", None, "h200", TWO_NODES) > 131_072
    assert room("kimi-k2", None, "h200", Parallel(attention_dp=16, ep=16)) > 131_072
    assert room("kimi-k2", None, "h100", Parallel(tp=8)) == 0


# ------------------------------------------------------------------------------- the report


def rows(report: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [r for r in report["fits"] if all(r[key] == value for key, value in wanted.items())]


def test_a_row_is_what_weights_and_activations_leave() -> None:
    report = model_report("deepseek-v3", gpu="h200")
    (row,) = rows(report, tp=8, ep=1, pp=1)
    spec, layout = load_model("deepseek-v3"), Parallel(tp=8)
    assert row["weight_bytes_per_gpu"] == pytest.approx(85.1e9, rel=1e-3)
    left = 0.9 * row["memory_bytes_per_gpu"] - row["weight_bytes_per_gpu"]
    left -= activation_bytes(spec, layout, 8192)
    assert row["kv_tokens"] == int(left / 70_272)
    assert row["longest_tokens"] == spec.max_position
    # every attention rank has its own cache
    (spread,) = rows(report, attention_dp=8)
    assert spread["kv_tokens"] % 8 == 0
    assert spread["kv_tokens"] > 3 * row["kv_tokens"]


def test_windows_make_room_for_a_longer_sequence() -> None:
    (one,) = rows(model_report("gpt-oss-120b", gpu="h100"), gpus=1)
    assert one["kv_tokens"] < 131_072 == one["longest_tokens"]
    (less,) = rows(model_report("gpt-oss-120b", gpu="h100", memory_fraction=0.83), gpus=1)
    spec = load_model("gpt-oss-120b")
    held = spec.kv_bytes_of_sequence(less["longest_tokens"])
    assert 0 < less["kv_tokens"] < less["longest_tokens"] < 131_072
    assert held <= less["kv_tokens"] * spec.kv_bytes_per_token()
    longer = spec.kv_bytes_of_sequence(less["longest_tokens"] + 1)
    assert longer > less["kv_tokens"] * spec.kv_bytes_per_token()


def test_formats_follow_the_file_unless_asked() -> None:
    own = model_report("gpt-oss-20b", gpu="h100")
    assert own["precision"] == {
        "attention": "bf16",
        "ffn": "bf16",
        "experts": "mxfp4",
        "kv": "bf16",
    }
    assert own["quantization"]["method"] == "mxfp4"
    asked = model_report("gpt-oss-20b", gpu="h100", weights="fp8", kv="fp8")
    assert asked["precision"] == {"attention": "fp8", "ffn": "fp8", "experts": "fp8", "kv": "fp8"}
    assert asked["weight_bytes"]["configured"] == asked["weight_bytes"]["fp8"]
    both = model_report("deepseek-v3", gpu="b200", weights="fp8_block", experts="nvfp4")
    assert both["precision"]["experts"] == "nvfp4"


def test_parts_add_up_for_every_model() -> None:
    for m in model_list():
        assert sum(part["total"] for part in m["parameter_parts"].values()) == m["parameters"]
        assert m["active_parameters"] <= m["parameters"]
        assert sum(kind["layers"] for kind in m["kinds"]) == m["layers"]
        assert sum(group["layers"] for group in m["attention_groups"]) == m["layers"]


def test_usual_layouts_are_legal_and_distinct() -> None:
    for name in ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"):
        spec = load_model(name)
        for node in (1, 8, 72):
            layouts = usual_layouts(spec, node)
            assert len(set(layouts)) == len(layouts)
            assert all(layout.tp <= node for layout in layouts)
    assert Parallel(ep=16, attention_dp=16) not in usual_layouts(load_model("mixtral-8x7b"), 8)
    assert Parallel(tp=8, pp=2) in usual_layouts(load_model("mixtral-8x7b"), 8)
    assert all(layout.pp == 1 for layout in usual_layouts(load_model("deepseek-v3"), 72))


# ------------------------------------------------------------------------------- tables and options


def test_names_and_numbers_of_tables() -> None:
    row = {"tp": 8, "pp": 2, "ep": 1, "attention_dp": 1}
    assert layout_name(row) == "TP8 PP2"
    assert layout_name(row | {"tp": 1, "pp": 1}) == "one GPU"
    assert layout_name({"tp": 1, "pp": 1, "ep": 16, "attention_dp": 16}) == "DP16 EP16"
    assert [compact(n) for n in (950, 23_377, 1_058_875)] == ["950", "23.4 K", "1.06 M"]


def test_all_gpus_in_short_or_one_in_full() -> None:
    short = model_blocks(model_report("mixtral-8x7b"))
    assert [block.title for block in short] == [
        "mixtral-8x7b",
        "Parameters by part",
        "KV tokens an instance holds, tensor parallel (two nodes: a pipeline of two)",
        "KV tokens an instance holds, attention rank and experts on every GPU",
    ]
    h100 = next(row for row in short[2].rows if row[0] == "h100_sxm")
    assert h100[1] == "–"
    assert h100[2] == "422 K"
    full = model_blocks(model_report("mixtral-8x7b", gpu="h100"))
    assert [row[0] for row in full[2].rows][:3] == ["one GPU", "TP2", "TP4"]
    assert full[2].rows[0][-1] == "does not fit"
    assert len(model_blocks(model_report("qwen3-8b"))) == 3  # no experts, no second table


def test_the_list_says_how_each_is_stored() -> None:
    block = models_block(model_list())
    stored = {row[0]: row[4] for row in block.rows}
    assert stored["gpt-oss-120b"] == "bf16, experts mxfp4"
    assert stored["kimi-k2"] == "fp8_block"


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["models", *args])


def test_the_command() -> None:
    report = json.loads(run("qwen3-30b-a3b", "--weights", "fp8", "--gpu", "l40s", "--json").stdout)
    assert report["precision"]["experts"] == "fp8"
    assert {row["gpu"] for row in report["fits"]} == {"l40s"}
    text = run("gpt-oss-20b", "--gpu", "h200").stdout
    assert "20,914,757,184" in text
    assert "the latest 128 tokens" in text
    assert "DP8 EP8" in text


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["qwen3-8b", "--weights", "fp9"], "'fp9' is unknown; did you mean 'fp8'?"),
        (["qwen3-8b", "--kv", "int8"], "'int8' is unknown; allowed: bf16, fp8."),
        (["qwen3-8b", "--experts", "fp8"], "has no effect, qwen3-8b has no routed experts"),
        (["qwen3-8b", "--memory-fraction", "1.5"], "found 1.5; allowed: above 0, at most 1."),
        (["qwen3-8b", "--gpu", "h101"], "GPU 'h101' is unknown; did you mean 'h100'?"),
        (["--kv", "fp8"], "--kv has no effect without the NAME of a model."),
        (["--memory-fraction", "0.5"], "--memory-fraction has no effect without the NAME"),
        (["qwen4-8b"], "model 'qwen4-8b' is unknown; did you mean 'qwen3-8b'?"),
    ],
)
def test_bad_options_get_one_sentence(args: list[str], sentence: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert sentence in result.output
    assert "Traceback" not in result.output
