"""Serving engines as data: scheduler, limits, overheads, each value with its source.

A profile says what vLLM, SGLang or TensorRT-LLM do when nobody sets anything, and what they cost
beside their kernels. Everything in it is a default: a scenario overrides it key by key.
"""

from simulator.engine_profiles.library import engine_names, load_engine
from simulator.engine_profiles.profile import EngineProfile, MemoryBase, Scheduler

__all__ = ["EngineProfile", "MemoryBase", "Scheduler", "engine_names", "load_engine"]
