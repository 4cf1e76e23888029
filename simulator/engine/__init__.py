"""The event engine: the only place that imports SimPy."""

from simulator.engine.simulate import simulate, simulate_deployment

__all__ = ["simulate", "simulate_deployment"]
