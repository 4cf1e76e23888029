"""The quantization_config of a checkpoint: formats by part, exclusions, refusals."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.model import (
    FORMAT_BITS,
    ModelSpec,
    Parallel,
    Quantization,
    WeightFormats,
    load_model,
)
from simulator.model.patterns import Patterns
from tests.model_kit import published, read, write_config


def quantized(spec: ModelSpec) -> Quantization:
    assert spec.quantization is not None
    return spec.quantization


def dense(folder: Path, config: dict[str, Any]) -> Quantization:
    return quantized(read(folder, quantization_config=config))


def moe(folder: Path, config: dict[str, Any]) -> Quantization:
    return quantized(published(folder, "qwen1.5-moe-a2.7b", quantization_config=config))


def tensors(
    weights: dict[str, Any], inputs: dict[str, Any] | None = None, **others: Any
) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}} | others


FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}


def test_bits_include_scales() -> None:
    assert FORMAT_BITS["fp8_block"] == 8 + 32 / (128 * 128)
    assert FORMAT_BITS["mxfp4"] == 4.25
    assert FORMAT_BITS["nvfp4"] == 4.5
    # a group of 128 4-bit weights, a 16-bit scale and a 4-bit zero point
    assert FORMAT_BITS["int4"] == (128 * 4 + 16 + 4) / 128


def test_deepseek_v3_is_fp8_in_blocks_everywhere() -> None:
    found = quantized(load_model("deepseek-v3"))
    assert found.formats == WeightFormats.uniform("fp8_block")
    assert found.activations == "fp8"


def test_gpt_oss_has_only_its_experts_in_mxfp4() -> None:
    found = quantized(load_model("gpt-oss-120b"))
    assert found.formats == WeightFormats("bf16", "bf16", "mxfp4")
    assert found.activations == "bf16"
    assert "lm_head" in found.ignored


def test_an_unquantised_file_says_nothing() -> None:
    assert load_model("llama-3.1-8b").quantization is None


@pytest.mark.parametrize(
    ("config", "weights", "activations"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block", "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fp8", "fp8"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "fp8", "fp8"),
        (tensors(FP8, FP8), "fp8", "fp8"),
        (tensors(FP8 | {"strategy": "block"}, FP8), "fp8_block", "fp8"),
        (tensors({"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "int"}), "int8", "int8"),
        (tensors({"num_bits": 4, "type": "int", "group_size": 128}), "int4", "bf16"),
        (tensors({"num_bits": 4, "type": "int", "group_size": 32}), "int4_g32", "bf16"),
        (tensors({"num_bits": 4, "type": "float", "group_size": 16}), "nvfp4", "bf16"),
        (tensors({"num_bits": 4, "type": "float", "group_size": 32}), "mxfp4", "bf16"),
    ],
)
def test_methods_and_types(
    config: dict[str, Any], weights: str, activations: str, tmp_path: Path
) -> None:
    found = dense(tmp_path, config)
    assert found.method == config["quant_method"]
    assert (found.weights, found.activations) == (weights, activations)
    assert found.formats == WeightFormats(found.weights, found.weights, found.weights)
    assert found.notes == ()


@pytest.mark.parametrize(
    "config",
    [
        tensors(FP8, kv_cache_scheme={"num_bits": 8, "type": "float"}),
        {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    ],
)
def test_the_kv_cache_type_is_read(config: dict[str, Any], tmp_path: Path) -> None:
    assert dense(tmp_path, config).kv == "fp8"
    assert dense(tmp_path, {"quant_method": "fp8"}).kv is None


@pytest.mark.parametrize(
    "ignored",
    [
        ["lm_head", "self_attn"],
        ["model.layers.*.self_attn"],
        ["model.layers.*.self_attn*"],
        ["re:.*self_attn.*"],
        [f"model.layers.{i}.self_attn.{m}_proj" for i in range(24) for m in "qkvo"],
    ],
)
def test_excluded_attention_stays_in_16_bits(ignored: list[str], tmp_path: Path) -> None:
    found = moe(tmp_path, tensors(FP8, FP8, ignore=ignored))
    assert found.formats == WeightFormats("bf16", "fp8", "fp8")
    assert found.notes == ()


def test_an_excluded_router_changes_nothing(tmp_path: Path) -> None:
    ignored = ["mlp.gate", "re:.*mlp.gate$", "model.layers.3.mlp.gate"]
    assert moe(tmp_path, tensors(FP8, ignore=ignored)).formats == WeightFormats.uniform("fp8")


def test_excluded_shared_experts_stay_in_16_bits(tmp_path: Path) -> None:
    found = moe(tmp_path, {"quant_method": "fp8", "modules_to_not_convert": ["shared_expert"]})
    assert found.formats == WeightFormats("fp8", "bf16", "fp8")


def test_scheme_of_experts_only(tmp_path: Path) -> None:
    config = tensors({"num_bits": 4, "type": "int", "group_size": 128})
    config["config_groups"]["group_0"]["targets"] = [r"re:.*mlp\.experts.*"]
    found = moe(tmp_path, config)
    assert found.formats == WeightFormats("bf16", "bf16", "int4")


def test_gptq_rules_that_skip_modules(tmp_path: Path) -> None:
    config = {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*self_attn.*": {}}}
    assert moe(tmp_path, config).formats == WeightFormats("bf16", "int4", "int4")


def test_layers_that_differ_from_most_are_noted(tmp_path: Path) -> None:
    # as in Llama-3.1-405B-FP8, whose first and last layers are not converted
    config = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.0.mlp"]}
    found = dense(tmp_path, config)
    assert found.formats == WeightFormats.uniform("fp8")
    assert found.notes == (
        "dense and shared feed-forward: 1 of 3 layers are bf16, counted as fp8 like the other 2",
    )


def test_int4_groups_of_another_size_are_noted(tmp_path: Path) -> None:
    found = dense(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 64})
    assert found.notes[0] == (
        "attention: int4 in groups of 64, counted as in groups of 128 (4.16 bits a weight)"
    )


def test_a_multimodal_file_is_quantised_at_its_top(tmp_path: Path) -> None:
    config = {
        "quant_method": "fp8",
        "modules_to_not_convert": ["language_model.model.layers.*.self_attn"],
    }
    found = quantized(published(tmp_path, "mistral-small-3.1", quantization_config=config))
    assert found.formats == WeightFormats("bf16", "fp8", "fp8")


def test_weights_of_gpt_oss_are_those_of_its_checkpoint() -> None:
    # 60.8 GiB and 12.8 GiB of checkpoint: gpt-oss model card, arXiv:2508.10925, table 1
    for name, gib in (("gpt-oss-120b", 60.8), ("gpt-oss-20b", 12.8)):
        spec = load_model(name)
        held = spec.weight_bytes_per_gpu(Parallel(), quantized(spec).formats)
        assert held / 2**30 == pytest.approx(gib, abs=0.05)


def test_kimi_k2_thinking_has_its_experts_in_int4_groups_of_32(tmp_path: Path) -> None:
    # 594 GB of files: huggingface.co/moonshotai/Kimi-K2-Thinking
    config = json.loads((files("simulator") / "models" / "kimi-k2.json").read_text("utf-8"))
    ignored = ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*"]
    ignored.append(r"re:.*mlp\.(gate|up|gate_up|down)_proj.*")
    config["quantization_config"] = tensors(
        {"num_bits": 4, "type": "int", "group_size": 32}, ignore=ignored
    )
    spec = load_model(write_config(tmp_path, config))
    assert quantized(spec).formats == WeightFormats("bf16", "bf16", "int4_g32")
    held = spec.weight_bytes_per_gpu(Parallel(), quantized(spec).formats)
    assert held == pytest.approx(594e9, rel=0.01)


# ------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "module", "expected"),
    [
        ("mlp.gate", "model.layers.0.mlp.gate_proj", False),
        ("mlp.gate_proj", "model.layers.0.mlp.gate_proj", True),
        ("model.layers.1", "model.layers.10.mlp.gate_proj", False),
        ("model.layers.1", "model.layers.1.mlp.gate_proj", True),
        ("model.layers.*.self_attn", "model.layers.7.self_attn.q_proj", True),
        ("model.layers.*.mlp.gate", "model.layers.7.mlp.gate_proj", False),
        ("re:.*gate$", "model.layers.7.mlp.gate_proj", False),
        ("lm_head", "model.layers.7.mlp.gate_proj", False),
        ("Linear", "model.layers.7.mlp.gate_proj", True),
    ],
)
def test_patterns_name_modules(pattern: str, module: str, expected: bool) -> None:
    assert Patterns([pattern]).names(module) is expected


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"quant_method": "bitsandbytes"},
            "quant_method 'bitsandbytes' is not supported; allowed:",
        ),
        ({"quant_method": "mxfp5"}, "quant_method 'mxfp5' is not supported; did you mean 'mxfp4'?"),
        ({}, "quant_method None is not supported; allowed: awq"),
        (5, "quantization_config is 5; allowed: null or a JSON object."),
        ({"quant_method": "gptq", "bits": 3}, "bits is 3; allowed: 4, 8."),
        ({"quant_method": "gptq"}, "key 'bits' is missing."),
        ({"quant_method": "awq", "group_size": "all"}, "group_size is 'all'; allowed: a whole"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:a": {"bits": 8}}}, "dynamic has '+:a'"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"-:(": {}}}, "which is no regular expr"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_MX"}, "quant_algo 'W4A8_MX' is not"),
        ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "allowed: a list of module"),
        ({"quant_method": "compressed-tensors"}, "key 'config_groups' is missing."),
        (tensors({"num_bits": 2, "type": "int"}), "found type 'int' of 2 bits; allowed: float 4"),
        (tensors({"type": "int"}), "key 'num_bits' is missing."),
        (tensors(FP8, ignore=["re:("]), "ignore has 're:(', which is no regular expression."),
        (
            tensors(FP8, kv_cache_scheme={"num_bits": 4, "type": "int"}),
            "only a KV cache of type float and 8 bits is supported.",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}},
            "group_0 has no weights.",
        ),
    ],
)
def test_what_is_not_understood_is_refused(config: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        read(tmp_path, quantization_config=config)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: ")
    assert "quantization_config" in message
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message
