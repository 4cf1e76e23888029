"""From a Hugging Face ``config.json`` to a ``ModelSpec``, strictly.

A key that the shapes depend on is never guessed: it is present, or it has the default of the
architecture's own configuration class in ``transformers``, or the file is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.errors import ModelError, suggest
from simulator.model.layers import DenseFfn, GqaAttention, LayerKind
from simulator.model.spec import ModelSpec

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
"""Dense architectures with grouped-query attention and a gated FFN."""

DEFAULT_MAX_POSITION = 32768
_LIMIT = 10_000_000


def spec_from_config(config: object, *, name: str, where: str) -> ModelSpec:
    """Read the shapes of a model.

    Args:
        config: the parsed JSON.
        name: the model's name in reports.
        where: the file, for error sentences.

    Returns:
        The model.

    Raises:
        ModelError: one sentence naming the file, the key, what was found and what is allowed.
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"{where}: expected a JSON object, found {type(config).__name__}.")
    read = _Reader(config, where)
    architecture = _architecture(config, where)
    _refuse_windows(config, where)
    heads = read.integer("num_attention_heads")
    hidden = read.integer("hidden_size")
    bias = read.boolean("attention_bias", default=False)
    attention = GqaAttention(
        heads=heads,
        kv_heads=_kv_heads(read, architecture, heads),
        head_dim=_head_dim(read, architecture, hidden, heads),
        qk_norm=architecture == "Qwen3ForCausalLM",
        qkv_bias=bias or architecture == "Qwen2ForCausalLM",
        output_bias=bias,
    )
    ffn = DenseFfn(
        width=read.integer("intermediate_size"), bias=read.boolean("mlp_bias", default=False)
    )
    if attention.heads % attention.kv_heads:
        raise ModelError(
            f"{where}: num_key_value_heads is {attention.kv_heads}, which does not divide "
            f"num_attention_heads {heads}."
        )
    return ModelSpec(
        name=name,
        architecture=architecture,
        hidden=hidden,
        vocab=read.integer("vocab_size"),
        kinds=(LayerKind(attention, ffn, read.integer("num_hidden_layers")),),
        max_position=read.integer("max_position_embeddings", default=DEFAULT_MAX_POSITION),
        tied_embeddings=read.boolean("tie_word_embeddings", default=False),
    )


class _Reader:
    """Typed reads of one config; every failure is a sentence."""

    def __init__(self, config: Mapping[str, object], where: str) -> None:
        self.config = config
        self.where = where

    def integer(self, key: str, *, default: int | None = None) -> int:
        """A whole number from 1 to ten million."""
        value = self.config.get(key)
        if value is None:
            if default is None:
                raise ModelError(f"{self.where}: key '{key}' is missing.")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LIMIT:
            raise ModelError(
                f"{self.where}: {key} is {value!r}; allowed: a whole number from 1 to {_LIMIT:,}."
            )
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: {key} is {value!r}; allowed: true, false.")
        return value


def _architecture(config: Mapping[str, object], where: str) -> str:
    found = config.get("architectures")
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ModelError(
            f"{where}: architectures is {found!r}; expected a list with one of: "
            f"{', '.join(ARCHITECTURES)}."
        )
    name: str = found[0]
    if name not in ARCHITECTURES:
        raise ModelError(
            f"{where}: architecture '{name}' is not supported (only dense models with grouped-query "
            f"or multi-head attention are); {suggest(name, ARCHITECTURES)}"
        )
    return name


def _refuse_windows(config: Mapping[str, object], where: str) -> None:
    """A sliding window changes what attention reads and keeps; full attention only, for now."""
    window = config.get("sliding_window")
    if window is not None and config.get("use_sliding_window", True) is not False:
        raise ModelError(
            f"{where}: sliding_window is {window!r}; allowed: null, since only full attention is "
            "supported."
        )


def _kv_heads(read: _Reader, architecture: str, heads: int) -> int:
    # Only LlamaConfig falls back to multi-head attention; the others' defaults are one size's.
    default = heads if architecture == "LlamaForCausalLM" else None
    return read.integer("num_key_value_heads", default=default)


def _head_dim(read: _Reader, architecture: str, hidden: int, heads: int) -> int:
    if architecture == "Qwen3ForCausalLM":
        return read.integer("head_dim", default=128)  # the default of Qwen3Config
    if read.config.get("head_dim") is not None:
        return read.integer("head_dim")
    if hidden % heads:
        raise ModelError(
            f"{read.where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads} "
            "and there is no head_dim."
        )
    return hidden // heads
