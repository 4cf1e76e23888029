"""The defaults a named serving engine brings to a scenario."""

from __future__ import annotations

from typing import Any

from simulator.engine_profiles import EngineProfile, load_engine
from simulator.model import ModelSpec, MoeFfn, load_model
from simulator.perf.precision import Precision
from simulator.scenario.precision import precision_of
from simulator.scenario.problem import at
from simulator.scenario.schema import Overheads, Pool, ScenarioConfig
from simulator.scenario.values import Section

_POOL_NUMBERS = ("max_num_batched_tokens", "max_num_seqs", "block_tokens")
_COSTS = ("c1_s", "host_s", "eager_layer_s", "sustained_attention")


def with_engine(config: ScenarioConfig) -> ScenarioConfig:
    """The scenario with every key its engine has a default for filled in, where none was given.

    Without ``engine.name`` nothing changes, and doing it twice changes nothing more.

    Raises:
        Problem: the engine is unknown or its file is wrong.
    """
    if config.engine.name is None:
        return config
    with at("engine", "name"):
        profile = load_engine(config.engine.name)
    with at("model"):
        model = load_model(config.model)
    precision = precision_of(config.precision, model)
    update: dict[str, Any] = {
        "engine": _filled(
            config.engine, _overheads(profile, precision, model) | _graphs(profile, config)
        ),
        "pools": {name: _filled(pool, _pool(profile, pool)) for name, pool in config.pools.items()},
        "routing": _filled(config.routing, {"latency_s": profile.latency_s(_first_gpus(config))}),
    }
    if config.link is not None:
        update["first_token"] = config.first_token or profile.first_token
        update["reserve"] = config.reserve or profile.reserve
        if config.transfer == "layerwise" and config.reserve is None:
            update["reserve"] = "before_prefill"  # what that transfer needs
    return config.model_copy(update=update)


def _first_gpus(config: ScenarioConfig) -> int:
    """GPUs of the widest instance a request meets first."""
    first = [pool for pool in config.pools.values() if pool.role != "decode"]
    return max(pool.tp * pool.pp * pool.attention_dp for pool in first or config.pools.values())


def expert_layers(model: ModelSpec) -> int:
    """Layers with routed experts."""
    return sum(kind.count for kind in model.kinds if isinstance(kind.ffn, MoeFfn))


def step_overhead_s(
    engine: Overheads, model: ModelSpec, precision: Precision, gpus: int
) -> float | None:
    """Overhead of a step of an instance [s]: what is given, else its engine's for so many GPUs.

    Args:
        engine: of the scenario.
        model: the model.
        precision: number formats.
        gpus: of the instance.

    Returns:
        None where neither says anything.
    """
    if engine.c0_s is not None or engine.name is None:
        return engine.c0_s
    profile = load_engine(engine.name)
    return profile.step_s(
        expert_layers(model), _computed(precision), layers=model.layers, gpus=gpus
    )


def _computed(precision: Precision) -> str:
    """Type the routed experts are multiplied in."""
    return "fp8" if precision.formats.experts.startswith("fp8") else "bf16"


def _overheads(profile: EngineProfile, precision: Precision, model: ModelSpec) -> dict[str, Any]:
    costs: dict[str, Any] = {name: profile[name] for name in _COSTS}
    own = _computed(precision)
    compute = precision.wanted(precision.formats.attention if model.is_moe else precision.weights)
    costs |= {"kernels": profile.kernels, "sustained": profile.sustained(compute)}
    if model.is_moe:
        costs["sustained_experts"] = profile.sustained(own, experts=True)
    return costs


def _graphs(profile: EngineProfile, config: ScenarioConfig) -> dict[str, Any]:
    """What it captures on the widest instance, and whether its steps overlap."""
    found: dict[str, Any] = {"overlap": profile.overlap}
    if config.engine.graph_sizes != []:
        found |= {"graph_padding": profile.graph_padding, "graph_mixed": profile.graph_mixed}
    widest = max(pool.parallel.gpus for pool in config.pools.values())
    return found | {"graph_sizes": list(profile.graphs(widest))}


def _pool(profile: EngineProfile, pool: Pool) -> dict[str, Any]:
    numbers = {name: profile.whole(name) for name in _POOL_NUMBERS}
    if "max_num_batched_tokens" in pool.model_fields_set:
        # an engine's own limits fit together; a user's budget may lie below its default
        numbers["max_num_seqs"] = min(numbers["max_num_seqs"], pool.max_num_batched_tokens)
    return {
        **numbers,
        "memory_fraction": profile["memory_fraction"],
        "memory_base": profile.memory_base,
        "scheduler": None if pool.role == "prefill" else profile.scheduler,
    }


def _filled(section: Any, defaults: dict[str, Any]) -> Section:
    """The section with defaults for the keys that were left out."""
    missing = {k: v for k, v in defaults.items() if k not in section.model_fields_set}
    filled: Section = section.model_copy(update=missing)
    return filled
