"""Configs of models that are not bundled, as published, and a way to load any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simulator.model import ModelSpec, load_model

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_attention_heads": 8,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def shapes(
    architecture: str, hidden: int, ffn: int, layers: int, heads: int, kv: int | None, vocab: int,
    **others: Any,
) -> dict[str, Any]:  # fmt: skip
    found = {
        "architectures": [architecture], "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": vocab,
    }  # fmt: skip
    return found | ({} if kv is None else {"num_key_value_heads": kv}) | others


MLA = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}

CONFIGS: dict[str, dict[str, Any]] = {
    "mistral-7b-v0.1": shapes(
        "MistralForCausalLM", 4096, 14336, 32, 32, 8, 32000, sliding_window=4096
    ),
    "mistral-7b-v0.3": shapes(
        "MistralForCausalLM", 4096, 14336, 32, 32, 8, 32768, sliding_window=None
    ),
    "qwen2.5-7b": shapes(
        "Qwen2ForCausalLM", 3584, 18944, 28, 28, 4, 152064,
        sliding_window=131072, use_sliding_window=False, max_window_layers=28,
    ),
    "qwen1.5-moe-a2.7b": shapes(
        "Qwen2MoeForCausalLM", 2048, 5632, 24, 16, 16, 151936, num_experts=60,
        num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632,
        decoder_sparse_step=1, sliding_window=32768, use_sliding_window=False,
    ),
    "qwen3-0.6b": shapes(
        "Qwen3ForCausalLM", 1024, 3072, 28, 16, 8, 151936, head_dim=128, tie_word_embeddings=True
    ),
    "gemma-2-9b": shapes("Gemma2ForCausalLM", 3584, 14336, 42, 16, 8, 256000, head_dim=256),
    "gemma-3-1b": shapes(
        "Gemma3ForCausalLM", 1152, 6912, 26, 4, 1, 262144, head_dim=256, sliding_window=512,
        sliding_window_pattern=6,
    ),
    "phi-3-mini-4k": shapes(
        "Phi3ForCausalLM", 3072, 8192, 32, 32, 32, 32064, sliding_window=2047
    ),
    "deepseek-v2-lite": shapes(
        "DeepseekV2ForCausalLM", 2048, 10944, 27, 16, 16, 102400, q_lora_rank=None,
        n_routed_experts=64, num_experts_per_tok=6, n_shared_experts=2, moe_intermediate_size=1408,
        first_k_dense_replace=1, moe_layer_freq=1, topk_method="greedy", **MLA,
    ),
    "deepseek-v2": shapes(
        "DeepseekV2ForCausalLM", 5120, 12288, 60, 128, 128, 102400, q_lora_rank=1536,
        n_routed_experts=160, num_experts_per_tok=6, n_shared_experts=2,
        moe_intermediate_size=1536, first_k_dense_replace=1, moe_layer_freq=1, **MLA,
    ),
    "glm-4.5-air": shapes(
        "Glm4MoeForCausalLM", 4096, 10944, 46, 96, 8, 151552, head_dim=128, attention_bias=True,
        n_routed_experts=128, num_experts_per_tok=8, n_shared_experts=1,
        moe_intermediate_size=1408, first_k_dense_replace=1, num_nextn_predict_layers=1,
    ),
    "mistral-small-3.1": {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "text_config": shapes(
            "MistralForCausalLM", 5120, 32768, 40, 32, 8, 131072, head_dim=128,
            model_type="mistral", sliding_window=None,
        ),
        "vision_config": {"hidden_size": 1024},
    },
    "llama-4-maverick": {
        "architectures": ["Llama4ForConditionalGeneration"],
        "text_config": shapes(
            "Llama4ForCausalLM", 5120, 8192, 48, 40, 8, 202048, head_dim=128,
            num_local_experts=128, num_experts_per_tok=1, interleave_moe_layer_step=2,
            intermediate_size_mlp=16384, use_qk_norm=False, model_type="llama4_text",
        ),
    },
}  # fmt: skip
"""Published hyper-parameters of further models, one of each way of writing a config."""


def write(folder: Path, name: str = "config.json", /, **changes: Any) -> Path:
    """A tiny Llama with changes; ``...`` removes a key."""
    config = {k: v for k, v in (LLAMA | changes).items() if v is not ...}
    return write_config(folder, config, name)


def write_config(folder: Path, config: dict[str, Any], name: str = "config.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(config))
    return file


def read(folder: Path, **changes: Any) -> ModelSpec:
    return load_model(write(folder, **changes))


def published(folder: Path, name: str, **changes: Any) -> ModelSpec:
    config = {k: v for k, v in (CONFIGS[name] | changes).items() if v is not ...}
    return load_model(write_config(folder, config, f"{name}.json"))
