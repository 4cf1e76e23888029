"""The number formats of a scenario: what it asks for, and else what the model's file says."""

from __future__ import annotations

from simulator.errors import ModelError
from simulator.model import ModelSpec
from simulator.perf.precision import Precision
from simulator.scenario.problem import Problem
from simulator.scenario.schema import PrecisionBits


def precision_of(asked: PrecisionBits, model: ModelSpec) -> Precision:
    """Formats of a model in a scenario.

    Args:
        asked: the scenario's section.
        model: the model.

    Raises:
        Problem: formats that do not go together, or have no effect.
    """
    try:
        found = Precision.of(
            model,
            weights=None if asked.weights == "auto" else asked.weights,
            experts=None if asked.experts == "auto" else asked.experts,
            compute=None if asked.compute == "auto" else asked.compute,
            kv=None if asked.kv == "auto" else asked.kv,
            activations=asked.activations,
        )
    except ModelError as error:
        place, _, text = str(error).partition(": ")
        raise Problem(tuple(place.split(".")), text) from error
    used = {found.formats.attention, found.formats.ffn, found.formats.experts}
    if asked.activations == "static" and not any(found.wanted(name) == "fp8" for name in used):
        raise Problem(
            ("precision", "activations"),
            "static has no effect without fp8 arithmetic; allowed: leave it out.",
        )
    return found
