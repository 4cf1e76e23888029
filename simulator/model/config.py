"""From a Hugging Face ``config.json`` to a ``ModelSpec``, strictly.

A key that the shapes depend on is never guessed: it is present, or it has the default of the
architecture's own configuration class in ``transformers``, or the file is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulator.errors import ModelError, suggest
from simulator.model.encoders import llama4_vision
from simulator.model.families import FAMILIES, TEXT_MODELS, Layers
from simulator.model.layers import LayerKind
from simulator.model.quantization import quantization_of
from simulator.model.reader import ConfigReader
from simulator.model.spec import ModelSpec

ARCHITECTURES = tuple(FAMILIES)
"""Architectures of language models that can be read."""

LLAMA_4 = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")

DEFAULT_MAX_POSITION = 32768
MOST_POSITIONS = 1_000_000_000


def spec_from_config(config: object, *, name: str, where: str) -> ModelSpec:
    """Read the shapes of a model.

    Args:
        config: the parsed JSON.
        name: the model's name in reports.
        where: the file, for error sentences.

    Returns:
        The model; of a multimodal one its language model.

    Raises:
        ModelError: one sentence naming the file, the key, what was found and what is allowed.
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"{where}: expected a JSON object, found {type(config).__name__}.")
    whole = ConfigReader(config, where)
    named = _named(whole)
    architecture, read = _language_model(whole, named)
    family = FAMILIES[architecture]
    layers = family.layers(read)
    kinds, order = _kinds(layers)
    quantized = whole.inner("quantization_config") or read.inner("quantization_config")
    tied = whole.boolean("tie_word_embeddings", default=family.tied)
    return ModelSpec(
        name=name,
        architecture=named,
        hidden=read.integer("hidden_size"),
        vocab=read.integer("vocab_size", default=family.vocab),
        kinds=kinds,
        order=order,
        max_position=read.integer(
            "max_position_embeddings", default=DEFAULT_MAX_POSITION, most=MOST_POSITIONS
        ),
        tied_embeddings=read.boolean("tie_word_embeddings", default=tied),
        norms_per_layer=family.norms_per_layer,
        encoder_parameters=_encoder(whole, architecture, read),
        embedding_active=family.embedding_active,
        quantization=None if quantized is None else quantization_of(quantized, layers),
        left_out=_left_out(whole, architecture, read),
    )


def _named(read: ConfigReader) -> str:
    found = read.config.get("architectures")
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise read.error(
            f"architectures is {found!r}; expected a list with one of: {', '.join(ARCHITECTURES)}."
        )
    return found[0]


def _language_model(whole: ConfigReader, named: str) -> tuple[str, ConfigReader]:
    """Architecture of the language model and its keys, which a multimodal file has inside."""
    text = whole.inner("text_config")
    if named in FAMILIES:
        return named, whole if text is None else text
    if text is None:
        raise whole.error(
            f"architecture '{named}' is not supported; {suggest(named, ARCHITECTURES)}"
        )
    model_type = text.config.get("model_type")
    if not isinstance(model_type, str) or model_type not in TEXT_MODELS:
        near = suggest(str(model_type), TEXT_MODELS)
        raise text.error(f"model_type {model_type!r} is not supported; {near}")
    return TEXT_MODELS[model_type], text


def _kinds(layers: Layers) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Distinct layers in order of appearance, and the kind of every layer where they alternate."""
    distinct = list(dict.fromkeys(layers))
    order = tuple(distinct.index(layer) for layer in layers)
    kinds = tuple(
        LayerKind(attention, ffn, order.count(i)) for i, (attention, ffn) in enumerate(distinct)
    )
    return kinds, () if list(order) == sorted(order) else order


def _encoder(whole: ConfigReader, architecture: str, read: ConfigReader) -> int:
    """Parameters of the image encoder where it is described and its shape is known, else 0."""
    vision = whole.inner("vision_config")
    if vision is None or architecture not in LLAMA_4:
        return 0
    return llama4_vision(vision, read.integer("hidden_size"))


def _left_out(whole: ConfigReader, architecture: str, read: ConfigReader) -> tuple[str, ...]:
    """Sentences on parts of the checkpoint that are not counted."""
    found = []
    several = read is not whole or whole.has("vision_config")
    if several and not _encoder(whole, architecture, read):
        found.append("The encoders of images or sound are not counted.")
    if read.config.get("num_nextn_predict_layers"):
        found.append("The multi-token-prediction module (num_nextn_predict_layers) is not counted.")
    return tuple(found)
