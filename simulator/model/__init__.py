"""What a language model is, to a capacity planner: its shapes, and the bytes and FLOPs they imply."""

from simulator.model.library import load_model, model_names
from simulator.model.spec import ModelSpec

__all__ = ["ModelSpec", "load_model", "model_names"]
