"""How sure a simulation is of itself: bands from draws of what the step times rest on."""

from simulator.uncertainty.bands import (
    DRAWS,
    LEVEL,
    MOST_DRAWS,
    Band,
    Bands,
    check_draws,
    uncertainty,
)
from simulator.uncertainty.draws import Draw, draw_factors
from simulator.uncertainty.factors import Factor, factors_of
from simulator.uncertainty.redraw import redrawn
from simulator.uncertainty.spread import SPREAD, EngineSpread

__all__ = [
    "DRAWS",
    "LEVEL",
    "MOST_DRAWS",
    "SPREAD",
    "Band",
    "Bands",
    "Draw",
    "EngineSpread",
    "Factor",
    "check_draws",
    "draw_factors",
    "factors_of",
    "redrawn",
    "uncertainty",
]
