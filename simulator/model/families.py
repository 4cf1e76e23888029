"""The layers of each family of architectures, from its own keys.

One function a family; each default is that of the family's configuration class in ``transformers``
and is written only where a published ``config.json`` may lack the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from simulator.model.layers import Attention, DenseFfn, Ffn, GqaAttention, MlaAttention, MoeFfn
from simulator.model.reader import ConfigReader

Layers = list[tuple[Attention, Ffn]]


@dataclass(frozen=True, slots=True)
class Family:
    """How to read one family of architectures.

    Attributes:
        layers: attention and feed-forward of every layer, in order.
        norms_per_layer: norms of the width of the residual stream in a layer.
        tied: whether LM head and embedding are one where the file does not say.
        vocab: vocabulary where the file does not say; None: it must.
        embedding_active: whether its publisher counts the embedding table among the parameters
            a token uses, though it reads one row of it.
    """

    layers: Callable[[ConfigReader], Layers]
    norms_per_layer: int = 2
    tied: bool = False
    vocab: int | None = None
    embedding_active: bool = True


# --- attention ----------------------------------------------------------------------------------


def _gqa(
    read: ConfigReader,
    *,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    qk_norm: bool = False,
    qkv_bias: bool = False,
    output_bias: bool = False,
    sinks: bool = False,
) -> GqaAttention:
    """Full attention; arguments are the defaults of the family, None: the key must be there.

    Without ``head_dim`` heads split the residual stream evenly.
    """
    found = read.integer("num_attention_heads", default=heads)
    kv = read.integer("num_key_value_heads", default=kv_heads)
    if found % kv:
        raise read.error(
            f"num_key_value_heads is {kv}, which does not divide num_attention_heads {found}."
        )
    return GqaAttention(
        heads=found,
        kv_heads=kv,
        head_dim=_head_dim(read, found, head_dim),
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        sinks=sinks,
    )


def _head_dim(read: ConfigReader, heads: int, default: int | None) -> int:
    if default is not None or read.has("head_dim"):
        return read.integer("head_dim", default=default)
    hidden = read.integer("hidden_size")
    if hidden % heads:
        raise read.error(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads} "
            "and there is no head_dim."
        )
    return hidden // heads


def _whole(read: ConfigReader, attention: GqaAttention) -> list[Attention]:
    """Every layer attends to everything; a window in the file is refused, not ignored."""
    if read.has("sliding_window") and read.boolean("use_sliding_window", default=True):
        raise read.error(
            f"sliding_window is {read.config['sliding_window']!r}; allowed: null, since this "
            "architecture attends to everything."
        )
    return [attention] * read.layers()


def _windowed(
    read: ConfigReader,
    attention: GqaAttention,
    *,
    slides: Callable[[int], bool],
    window: int | None = None,
) -> list[Attention]:
    """Layers that attend to everything or to a window.

    Args:
        read: the config.
        attention: their shape.
        slides: whether the layer of this index has a window, where ``layer_types`` does not say.
        window: the family's window; None: the key must be there if any layer has one.
    """
    layers = read.layers()
    types = read.words("layer_types", ("full_attention", "sliding_attention"), layers)
    if types is None:
        has_window = [slides(i) for i in range(layers)]
    else:
        has_window = [word == "sliding_attention" for word in types]
    if not any(has_window):
        return [attention] * layers
    limited = replace(attention, window=read.integer("sliding_window", default=window))
    return [limited if slides else attention for slides in has_window]


def _qwen_attention(read: ConfigReader, attention: GqaAttention) -> list[Attention]:
    """Qwen: layers from ``max_window_layers`` on have a window, if it is switched on at all."""
    if not read.boolean("use_sliding_window", default=False) or not read.has("sliding_window"):
        return [attention] * read.layers()
    first = read.count("max_window_layers")
    return _windowed(read, attention, slides=lambda i: i >= first)


def _mistral_attention(
    read: ConfigReader, attention: GqaAttention, window: int | None
) -> list[Attention]:
    """Mistral: every layer has the window, if there is one; ``window`` where the key is absent."""
    on = read.has("sliding_window") or ("sliding_window" not in read.config and window is not None)
    return _windowed(read, attention, slides=lambda _: on, window=window)


# --- feed-forward -------------------------------------------------------------------------------


def _dense(read: ConfigReader) -> DenseFfn:
    return DenseFfn(read.integer("intermediate_size"), read.boolean("mlp_bias", default=False))


def _experts(
    read: ConfigReader,
    *,
    experts: str,
    width: str,
    per_token: str = "num_experts_per_tok",
    shared_width: int = 0,
    router_bias: bool = False,
    expert_bias: bool = False,
    shared_gate: bool = False,
) -> MoeFfn:
    """A mixture of experts, from the keys this family calls its numbers by."""
    found = MoeFfn(
        experts=read.integer(experts),
        experts_per_token=read.integer(per_token),
        expert_width=read.integer(width),
        shared_width=shared_width,
        router_bias=router_bias,
        expert_bias=expert_bias,
        shared_gate=shared_gate,
    )
    if found.experts_per_token > found.experts:
        raise read.error(
            f"{per_token} is {found.experts_per_token}; allowed: 1 to the {found.experts} experts."
        )
    return found


def _sparse(read: ConfigReader, ffn: MoeFfn, step: int, dense: list[int] | None) -> list[Ffn]:
    """Qwen: every ``step``-th layer is a mixture, but for those listed as dense."""
    layers = range(read.layers())
    mixture = [(i + 1) % step == 0 and i not in (dense or []) for i in layers]
    return [ffn if sparse else _dense(read) for sparse in mixture]


def _pairs(attention: list[Attention], ffn: list[Ffn] | Ffn) -> Layers:
    each = ffn if isinstance(ffn, list) else [ffn] * len(attention)
    return list(zip(attention, each, strict=True))


# --- families -----------------------------------------------------------------------------------


def _llama(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=False)
    # without the key a Llama is multi-head; the other families' defaults are one size's
    heads = read.integer("num_attention_heads")
    attention = _gqa(read, kv_heads=heads, qkv_bias=bias, output_bias=bias)
    return _pairs(_whole(read, attention), _dense(read))


def _phi3(read: ConfigReader) -> Layers:
    attention = _gqa(read, kv_heads=read.integer("num_attention_heads"))
    return _pairs(_mistral_attention(read, attention, None), _dense(read))


def _mistral(read: ConfigReader) -> Layers:
    return _pairs(_mistral_attention(read, _gqa(read), 4096), _dense(read))


def _mixtral(read: ConfigReader) -> Layers:
    ffn = _experts(read, experts="num_local_experts", width="intermediate_size")
    return _pairs(_mistral_attention(read, _gqa(read), None), ffn)


def _qwen2(read: ConfigReader) -> Layers:
    return _pairs(_qwen_attention(read, _gqa(read, qkv_bias=True)), _dense(read))


def _qwen2_moe(read: ConfigReader) -> Layers:
    ffn = _experts(
        read,
        experts="num_experts",
        width="moe_intermediate_size",
        shared_width=read.integer("shared_expert_intermediate_size"),
        shared_gate=True,
    )
    attention = _gqa(read, qkv_bias=read.boolean("qkv_bias", default=True))
    return _pairs(_qwen_attention(read, attention), _qwen_ffn(read, ffn))


def _qwen3(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=False)
    attention = _gqa(read, head_dim=128, qk_norm=True, qkv_bias=bias, output_bias=bias)
    return _pairs(_qwen_attention(read, attention), _dense(read))


def _qwen3_moe(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=False)
    attention = _gqa(read, qk_norm=True, qkv_bias=bias, output_bias=bias)
    ffn = _experts(read, experts="num_experts", width="moe_intermediate_size")
    return _pairs(_qwen_attention(read, attention), _qwen_ffn(read, ffn))


def _qwen_ffn(read: ConfigReader, ffn: MoeFfn) -> list[Ffn]:
    step = read.integer("decoder_sparse_step", default=1)
    return _sparse(read, ffn, step, read.integers("mlp_only_layers"))


def _gpt_oss(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=True)
    attention = _gqa(read, head_dim=64, qkv_bias=bias, output_bias=bias, sinks=True)
    ffn = _experts(
        read,
        experts="num_local_experts",
        width="intermediate_size",
        router_bias=True,
        expert_bias=True,
    )
    layers = _windowed(read, attention, slides=lambda i: i % 2 == 0, window=128)
    return _pairs(layers, ffn)


def _llama4(read: ConfigReader) -> Layers:
    """Most layers attend inside chunks, with rotary position; the others to everything."""
    layers = read.layers()
    bias = read.boolean("attention_bias", default=False)
    whole = _gqa(read, qkv_bias=bias, output_bias=bias)
    chunk = read.integer("attention_chunk_size", default=8192)
    norm = read.boolean("use_qk_norm", default=True)
    local = replace(whole, local_chunk=chunk, qk_norm=norm, qk_norm_scales=False)
    interval = read.integer("no_rope_layer_interval", default=4)
    rotary = read.integers("no_rope_layers", layers)
    if rotary is None:  # despite its name a list of ones where position is rotary
        rotary = [int((i + 1) % interval != 0) for i in range(layers)]
    step = read.integer("interleave_moe_layer_step", default=1)
    mixtures = read.integers("moe_layers") or list(range(step - 1, layers, step))
    width = read.integer("intermediate_size")
    moe = _experts(read, experts="num_local_experts", width="intermediate_size", shared_width=width)
    dense = DenseFfn(read.integer("intermediate_size_mlp")) if len(mixtures) < layers else None
    attention: list[Attention] = [local if rope else whole for rope in rotary]
    return _pairs(attention, [dense if dense and i not in mixtures else moe for i in range(layers)])


def _deepseek(read: ConfigReader) -> Layers:
    """DeepSeek-V2 and V3, and Kimi-K2, which is one."""
    attention = MlaAttention(
        heads=read.integer("num_attention_heads"),
        q_lora_rank=read.optional("q_lora_rank"),
        kv_lora_rank=read.integer("kv_lora_rank"),
        qk_nope_head_dim=read.integer("qk_nope_head_dim"),
        qk_rope_head_dim=read.integer("qk_rope_head_dim"),
        v_head_dim=read.integer("v_head_dim"),
    )
    ffn = _deepseek_ffn(read, router_bias=read.config.get("topk_method") == "noaux_tc")
    return _pairs([attention] * len(ffn), ffn)


def _glm4_moe(read: ConfigReader) -> Layers:
    attention = _gqa(
        read,
        head_dim=128,
        qk_norm=read.boolean("use_qk_norm", default=False),
        qkv_bias=read.boolean("attention_bias", default=False),
    )
    return _pairs(_whole(read, attention), _deepseek_ffn(read, router_bias=True))


def _deepseek_ffn(read: ConfigReader, *, router_bias: bool) -> list[Ffn]:
    """Dense layers first, then mixtures with shared experts."""
    layers = range(read.layers())
    if not read.has("n_routed_experts"):
        return [_dense(read)] * len(layers)
    shared = read.count("n_shared_experts") if read.has("n_shared_experts") else 0
    ffn = _experts(
        read,
        experts="n_routed_experts",
        width="moe_intermediate_size",
        shared_width=shared * read.integer("moe_intermediate_size"),
        router_bias=router_bias,
    )
    first = read.count("first_k_dense_replace")
    every = read.integer("moe_layer_freq", default=1)
    return [ffn if i >= first and i % every == 0 else _dense(read) for i in layers]


def _gemma2(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=False)
    attention = _gqa(read, head_dim=256, qkv_bias=bias, output_bias=bias)
    layers = _windowed(read, attention, slides=lambda i: i % 2 == 0, window=4096)
    return _pairs(layers, _dense(read))


def _gemma3(read: ConfigReader) -> Layers:
    bias = read.boolean("attention_bias", default=False)
    attention = _gqa(
        read, heads=8, kv_heads=4, head_dim=256, qk_norm=True, qkv_bias=bias, output_bias=bias
    )
    pattern = read.integer("sliding_window_pattern", default=6)
    layers = _windowed(read, attention, slides=lambda i: (i + 1) % pattern != 0, window=4096)
    return _pairs(layers, _dense(read))


FAMILIES: dict[str, Family] = {
    "DeepseekV2ForCausalLM": Family(_deepseek, embedding_active=False),
    "DeepseekV3ForCausalLM": Family(_deepseek, embedding_active=False),
    "Gemma2ForCausalLM": Family(_gemma2, norms_per_layer=4, tied=True),
    "Gemma3ForCausalLM": Family(_gemma3, norms_per_layer=4, tied=True, vocab=262_208),
    "Glm4MoeForCausalLM": Family(_glm4_moe),
    "GptOssForCausalLM": Family(_gpt_oss, embedding_active=False),
    "Llama4ForCausalLM": Family(_llama4),
    "Llama4ForConditionalGeneration": Family(_llama4),
    "LlamaForCausalLM": Family(_llama),
    "MistralForCausalLM": Family(_mistral),
    "MixtralForCausalLM": Family(_mixtral),
    "Phi3ForCausalLM": Family(_phi3),
    "Qwen2ForCausalLM": Family(_qwen2),
    "Qwen2VLForConditionalGeneration": Family(_qwen2),
    "Qwen2_5_VLForConditionalGeneration": Family(_qwen2),
    "Qwen2MoeForCausalLM": Family(_qwen2_moe),
    "Qwen3ForCausalLM": Family(_qwen3),
    "Qwen3MoeForCausalLM": Family(_qwen3_moe),
}
"""Every architecture that can be read, by the name in ``architectures``."""

TEXT_MODELS: dict[str, str] = {
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "glm4_moe": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "llama4_text": "Llama4ForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
}
"""Architecture of the language model inside a multimodal one, by the ``model_type`` of its
``text_config``."""
