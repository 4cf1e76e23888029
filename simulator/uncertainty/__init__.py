"""How sure a simulation is: its step times drawn from what is known about them."""

from simulator.uncertainty.bands import Band, Bands, simulate_bands
from simulator.uncertainty.draws import EngineSpread, Unsure, drawn

__all__ = ["Band", "Bands", "EngineSpread", "Unsure", "drawn", "simulate_bands"]
