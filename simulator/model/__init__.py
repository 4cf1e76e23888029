"""What a language model is, to a capacity planner: its shapes, and the bytes and FLOPs they imply."""

from simulator.model.counting import ParameterCount
from simulator.model.formats import (
    FORMAT_BITS,
    FORMAT_BYTES,
    FORMATS,
    Format,
    Quantization,
    WeightFormats,
)
from simulator.model.layers import (
    Attention,
    AttentionGroup,
    DenseFfn,
    Ffn,
    GqaAttention,
    LayerKind,
    MlaAttention,
    MoeFfn,
)
from simulator.model.layouts import usual_layouts
from simulator.model.library import load_model, model_names
from simulator.model.parallel import Parallel
from simulator.model.spec import ModelSpec

__all__ = [
    "FORMATS",
    "FORMAT_BITS",
    "FORMAT_BYTES",
    "Attention",
    "AttentionGroup",
    "DenseFfn",
    "Ffn",
    "Format",
    "GqaAttention",
    "LayerKind",
    "MlaAttention",
    "ModelSpec",
    "MoeFfn",
    "Parallel",
    "ParameterCount",
    "Quantization",
    "WeightFormats",
    "load_model",
    "model_names",
    "usual_layouts",
]
