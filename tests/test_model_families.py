"""Every family of architectures: parameters against published ones, layers by kind, refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.model import (
    AttentionGroup,
    DenseFfn,
    GqaAttention,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    load_model,
    model_names,
)
from tests.model_kit import CONFIGS, published, read

# Total and active parameters in billions, as text, with the digits their publishers give.
# Dense models: the sum of the checkpoint's tensors that Hugging Face shows.
PUBLISHED: dict[str, tuple[str, str, str]] = {
    "llama-2-7b": ("6.738415616", "6.738415616", "huggingface.co/meta-llama/Llama-2-7b-hf"),
    "llama-2-13b": ("13.015864320", "13.015864320", "huggingface.co/meta-llama/Llama-2-13b-hf"),
    "llama-2-70b": ("68.976648192", "68.976648192", "huggingface.co/meta-llama/Llama-2-70b-hf"),
    "llama-3.1-8b": ("8.030261248", "8.030261248", "huggingface.co/meta-llama/Llama-3.1-8B"),
    "llama-3.1-70b": ("70.553706496", "70.553706496", "huggingface.co/meta-llama/Llama-3.1-70B"),
    "llama-3.1-405b": (
        "405.853388800",
        "405.853388800",
        "huggingface.co/meta-llama/Llama-3.1-405B",
    ),
    "qwen3-8b": ("8.190735360", "8.190735360", "huggingface.co/Qwen/Qwen3-8B"),
    "qwen3-32b": ("32.762123264", "32.762123264", "huggingface.co/Qwen/Qwen3-32B"),
    # Qwen cuts rather than rounds: 3.353 is given as 3.3.
    "qwen3-30b-a3b": ("30.532122624", "3.3", "model card, huggingface.co/Qwen/Qwen3-30B-A3B"),
    "qwen3-235b-a22b": ("235.093634560", "22", "model card, huggingface.co/Qwen/Qwen3-235B-A22B"),
    "mixtral-8x7b": ("46.702792704", "12.9", "Mixtral of Experts, arXiv:2401.04088"),
    "mixtral-8x22b": ("140.620634112", "39", "mistral.ai/news/mixtral-8x22b (141B, 39B active)"),
    "deepseek-v3": ("671", "36.7", "README_WEIGHTS.md of deepseek-ai/DeepSeek-V3, main model"),
    "deepseek-r1": ("671", "36.7", "trained on DeepSeek-V3-Base, arXiv:2501.12948"),
    "kimi-k2": ("1026.4", "32", "model card, huggingface.co/moonshotai/Kimi-K2-Instruct (1T)"),
    "gpt-oss-20b": ("20.91", "3.61", "gpt-oss model card, arXiv:2508.10925, table 1"),
    "gpt-oss-120b": ("116.83", "5.13", "gpt-oss model card, arXiv:2508.10925, table 1"),
    "llama-4-scout": ("108.641793536", "17", "model card (109B, 17B), huggingface.co/meta-llama"),
}

FURTHER = {  # sums of the checkpoints' tensors
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-7b": 7_615_616_512,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen3-0.6b": 596_049_920,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-1b": 999_885_952,
    "phi-3-mini-4k": 3_821_079_552,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "mistral-small-3.1": 23_572_403_200,  # its language model is that of Mistral-Small-24B-2501
}


def agrees(found: int, billions: str) -> bool:
    """Within 1 %, or the same digits when rounded or cut to those published."""
    digits = len(billions.partition(".")[2])
    scaled = found / 1e9 * 10**digits
    value = float(billions)
    same = round(value * 10**digits) in (round(scaled), math.floor(scaled))
    return same or abs(found / 1e9 / value - 1.0) <= 0.01


def test_every_bundled_model_is_counted_above() -> None:
    assert model_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_total_and_active_parameters_are_the_published_ones(name: str) -> None:
    total, active, _source = PUBLISHED[name]
    spec = load_model(name)
    assert abs(spec.parameters / 1e9 / float(total) - 1.0) <= 0.001
    assert agrees(spec.active_parameters, active)


@pytest.mark.parametrize("name", sorted(FURTHER))
def test_further_families_count_their_checkpoints_to_the_last_parameter(
    name: str, tmp_path: Path
) -> None:
    assert published(tmp_path, name).parameters == FURTHER[name]


def test_experts_a_token_does_not_visit_are_not_active() -> None:
    spec = load_model("mixtral-8x7b")
    idle = 32 * (8 - 2) * 3 * 4096 * 14336
    assert spec.parameters - spec.active_parameters == idle
    assert spec.linear_parameters - spec.active_linear_parameters == idle


def test_parts_of_deepseek_v3() -> None:
    count = load_model("deepseek-v3").count
    # 7168 wide, 128 heads; latents of 1536 and 512; query heads of 128 + 64, value heads of 128.
    attention = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    assert count.attention == 61 * attention
    assert count.dense_ffn == 3 * 3 * 7168 * 18432
    assert count.routed_experts == 58 * 256 * 3 * 7168 * 2048
    assert count.shared_experts == 58 * 3 * 7168 * 2048
    assert count.router == 58 * 256 * 7168
    # two norms a layer and the last one, the latents' norms, the balancing correction of the router
    assert count.small == (2 * 61 + 1) * 7168 + 61 * (1536 + 512) + 58 * 256
    assert count.embedding == count.head == 129280 * 7168
    assert count.total == 671_026_419_200


# ------------------------------------------------------------------------------- layers by kind


def test_deepseek_v3_has_three_dense_layers_then_mixtures() -> None:
    spec = load_model("deepseek-v3")
    attention = MlaAttention(128, 1536, 512, 128, 64, 128)
    moe = MoeFfn(256, 8, 2048, shared_width=2048, router_bias=True)
    assert spec.kinds == (
        LayerKind(attention, DenseFfn(18432), 3),
        LayerKind(attention, moe, 58),
    )
    assert spec.order == ()
    assert spec.attention_groups == (AttentionGroup(attention, 61),)
    assert spec.left_out == (
        "The multi-token-prediction module (num_nextn_predict_layers) is not counted.",
    )


def test_a_null_query_latent_projects_directly(tmp_path: Path) -> None:
    attention = published(tmp_path, "deepseek-v2-lite").kinds[0].attention
    assert isinstance(attention, MlaAttention)
    assert attention.q_lora_rank is None
    assert attention.linear(2048) == (
        2048 * 16 * 192 + 2048 * 576 + 512 * 16 * (128 + 128) + 16 * 128 * 2048
    )


def test_gpt_oss_alternates_between_a_window_and_everything() -> None:
    spec = load_model("gpt-oss-20b")
    assert spec.order == (0, 1) * 12
    window, full = (kind.attention for kind in spec.kinds)
    assert isinstance(window, GqaAttention)
    assert (window.window, full.window) == (128, None)
    assert window.sinks
    assert window.qkv_bias
    assert window.output_bias
    assert [(g.layers, g.window) for g in spec.attention_groups] == [(12, None), (12, 128)]


def test_gpt_oss_without_layer_types_alternates_the_same(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }
    spec = read(tmp_path, **config, num_hidden_layers=4)
    assert [spec.kinds[i].attention.window for i in spec.order] == [128, None, 128, None]


def test_llama_4_attends_in_chunks_but_for_every_fourth_layer() -> None:
    spec = load_model("llama-4-scout")
    assert spec.order == (0, 0, 0, 1) * 12
    chunked, full = (kind.attention for kind in spec.kinds)
    assert isinstance(chunked, GqaAttention)
    assert isinstance(full, GqaAttention)
    assert (chunked.local_chunk, full.local_chunk) == (8192, None)
    assert (chunked.qk_norm, full.qk_norm) == (True, False)
    assert spec.kinds[0].ffn == MoeFfn(16, 1, 8192, shared_width=8192)
    assert spec.count.encoder == 871_932_416
    assert spec.active_count.encoder == 0


def test_llama_4_without_a_vision_config_says_that_the_encoder_is_left_out(tmp_path: Path) -> None:
    spec = published(tmp_path, "llama-4-maverick")
    assert spec.count.encoder == 0
    assert spec.left_out == ("The encoders of images or sound are not counted.",)
    # every second layer is a mixture; every fourth attends to everything and is one of those
    assert [(k.count, isinstance(k.ffn, MoeFfn), k.attention.local_chunk) for k in spec.kinds] == [
        (24, False, 8192), (12, True, 8192), (12, True, None),
    ]  # fmt: skip


def test_llama_4_takes_its_lists_before_its_intervals(tmp_path: Path) -> None:
    text = CONFIGS["llama-4-maverick"]["text_config"]
    changed = text | {"moe_layers": [47], "no_rope_layers": [1] * 47 + [0]}
    spec = published(tmp_path, "llama-4-maverick", text_config=changed)
    assert [k.count for k in spec.kinds] == [47, 1]
    assert isinstance(spec.kinds[1].ffn, MoeFfn)
    assert spec.kinds[1].attention.local_chunk is None


def test_qwen_moe_steps_and_exceptions(tmp_path: Path) -> None:
    config = CONFIGS["qwen1.5-moe-a2.7b"] | {"num_hidden_layers": 6, "decoder_sparse_step": 2}
    spec = published(tmp_path, "qwen1.5-moe-a2.7b", **config, mlp_only_layers=[3])
    # layers 1, 3 and 5 are at the step; 3 is excepted
    assert spec.order == (0, 1, 0, 0, 0, 1)
    assert isinstance(spec.kinds[1].ffn, MoeFfn)


def test_qwen_windows_begin_at_a_layer_once_switched_on(tmp_path: Path) -> None:
    config = CONFIGS["qwen2.5-7b"] | {"max_window_layers": 20}
    off = published(tmp_path, "qwen2.5-7b", **config)
    assert [k.attention.window for k in off.kinds] == [None]
    on = published(tmp_path, "qwen2.5-7b", **(config | {"use_sliding_window": True}))
    assert [(k.count, k.attention.window) for k in on.kinds] == [(20, None), (8, 131072)]


def test_mistral_without_the_key_has_the_window_of_its_class(tmp_path: Path) -> None:
    def window(name: str, value: object) -> int | None:
        return published(tmp_path, name, sliding_window=value).kinds[0].attention.window

    assert window("mistral-7b-v0.3", ...) == 4096
    assert window("mistral-7b-v0.3", None) is None
    assert window("mistral-7b-v0.1", 1024) == 1024


def test_gemma_3_has_every_sixth_layer_whole(tmp_path: Path) -> None:
    spec = published(tmp_path, "gemma-3-1b")
    assert [(g.layers, g.window) for g in spec.attention_groups] == [(4, None), (22, 512)]
    assert spec.tied_embeddings
    assert spec.norms_per_layer == 4


def test_qwen_2_5_vl_keeps_its_language_model_at_the_top(tmp_path: Path) -> None:
    spec = published(
        tmp_path,
        "qwen2.5-7b",
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        vision_config={"depth": 32},
    )
    assert spec.parameters == 7_615_616_512
    assert spec.left_out == ("The encoders of images or sound are not counted.",)


def test_kimi_k2_is_a_deepseek_v3_of_other_sizes() -> None:
    spec = load_model("kimi-k2")
    assert [kind.count for kind in spec.kinds] == [1, 60]
    ffn = spec.kinds[1].ffn
    assert isinstance(ffn, MoeFfn)
    assert (ffn.experts, ffn.experts_per_token) == (384, 8)
    assert spec.left_out == ()


# ------------------------------------------------------------------------------- refusals


def refusal(folder: Path, name: str, **changes: Any) -> str:
    with pytest.raises(ModelError) as refused:
        published(folder, name, **changes)
    message = str(refused.value)
    assert message.startswith(f"{folder / name}.json: ")
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("qwen1.5-moe-a2.7b", {"num_experts": ...}, "key 'num_experts' is missing."),
        ("qwen1.5-moe-a2.7b", {"num_experts_per_tok": 61}, "is 61; allowed: 1 to the 60 experts."),
        ("qwen1.5-moe-a2.7b", {"mlp_only_layers": "3"}, "mlp_only_layers is '3'; allowed: a list"),
        ("deepseek-v2", {"q_lora_rank": ...}, "key 'q_lora_rank' is missing."),
        ("deepseek-v2", {"kv_lora_rank": None}, "key 'kv_lora_rank' is missing."),
        ("deepseek-v2", {"first_k_dense_replace": ...}, "key 'first_k_dense_replace' is missing."),
        ("gemma-2-9b", {"layer_types": ["full_attention"]}, "has 1 entries for 42 layers."),
        ("gemma-2-9b", {"layer_types": ["linear_attention"] * 42}, "layer_types has 'linear_att"),
        ("gemma-2-9b", {"layer_types": 3}, "layer_types is 3; allowed: a list of full_attention"),
        (
            "mistral-small-3.1",
            {"text_config": 5},
            "text_config is 5; allowed: null or a JSON object",
        ),
        (
            "mistral-small-3.1",
            {"text_config": {"model_type": "mistrel"}},
            "text_config: model_type 'mistrel' is not supported; did you mean 'mistral'?",
        ),
        (
            "qwen2.5-7b",
            {"use_sliding_window": True, "max_window_layers": ...},
            "'max_window_layers'",
        ),
    ],
)
def test_a_config_its_family_cannot_have_is_refused(
    name: str, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refusal(tmp_path, name, **changes)


def test_an_order_that_does_not_match_the_kinds_is_refused() -> None:
    kind = LayerKind(GqaAttention(8, 2, 64), DenseFfn(1024), 2)
    with pytest.raises(ModelError, match="the order of the layers does not match their kinds"):
        ModelSpec("x", "X", 512, 1000, (kind,), 100, order=(0, 0, 0))
