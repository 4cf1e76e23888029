"""Which engine settings of a resolved scenario are its engine's, which are defaults, which its own.

What a scenario would be without its own settings is found by leaving them out and resolving it again,
so that every key an engine's profile may bring is judged, whatever keys there are. A twin or a layout
of a plan holds every key; a value equal to what it would be otherwise is not called its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulator.engine_profiles import load_engine
from simulator.scenario.deployment import Deployment
from simulator.scenario.engine import step_overhead_s, with_engine
from simulator.scenario.resolve import resolve
from simulator.scenario.schema import Pool, Routing, ScenarioConfig
from simulator.scenario.settings import Origin, Setting, Settings, Value

_LAYOUT = (
    "role", "gpu", "tp", "pp", "ep", "attention_dp", "instances", "max_wait_s", "nics_per_gpu",
)  # fmt: skip
"""Keys of a pool that no engine decides."""

_PROTOCOL = ("first_token", "reserve")
"""Keys of a disaggregated scenario that an engine decides."""

Found = dict[str, Value]


def settings_of(config: ScenarioConfig, deployment: Deployment) -> Settings:
    """Every engine setting of a scenario and where it comes from.

    Args:
        config: the resolved scenario.
        deployment: what it was built to, for what the step model decides.
    """
    bare = _bare(config)
    filled = with_engine(bare)
    used = _values(config, deployment)
    otherwise = _values(resolve(filled), None)
    brought = _brought(bare, filled)
    if config.engine.name is not None:  # an overhead by the GPUs of an instance: of the last pool
        last = deployment.pools[-1].step
        own = step_overhead_s(bare.engine, last.model, last.precision, last.parallel.gpus)
        otherwise["engine.c0_s"] = own
        if config.engine.c0_s is None:
            used["engine.c0_s"] = own
            brought = brought | {"engine.c0_s"}
    step = deployment.pools[0].step
    values = []
    for key, value in used.items():
        other = otherwise.get(key)
        if other is None and key.startswith("engine."):
            other = _default(type(step), key.removeprefix("engine."))
        origin: Origin = "engine" if key in brought else "default"
        if value != other and not _capped(key, value, used):
            origin = "set"
        if value is not None:
            values.append(Setting(key, value, origin, value if origin != "set" else other))
    name = config.engine.name
    profile = None if name is None else load_engine(name)
    return Settings(
        engine=None if profile is None else profile.name,
        description=None if profile is None else profile.description,
        values=tuple(values),
    )


def _bare(config: ScenarioConfig) -> ScenarioConfig:
    """The scenario without what an engine could have said."""
    pools = {
        name: Pool(**{key: getattr(pool, key) for key in _LAYOUT})
        for name, pool in config.pools.items()
    }
    update: dict[str, Any] = {
        "engine": type(config.engine)(name=config.engine.name),
        "pools": pools,
        "routing": Routing(prefill=config.routing.prefill, decode=config.routing.decode),
        "first_token": None,
    }
    if config.transfer != "layerwise":  # which needs room before prefill
        update["reserve"] = None
    return config.model_copy(update=update)


def _sections(config: ScenarioConfig) -> Iterator[tuple[str, Any]]:
    """Prefix and section of everything an engine may decide."""
    yield "engine.", config.engine
    for name, pool in config.pools.items():
        yield f"pools.{name}.", pool
    yield "routing.", config.routing


def _brought(bare: ScenarioConfig, filled: ScenarioConfig) -> set[str]:
    """Keys the engine's profile filled in."""
    pairs = zip(_sections(bare), _sections(filled), strict=True)
    found = {
        prefix + key
        for (prefix, before), (_, after) in pairs
        for key in after.model_fields_set - before.model_fields_set
    }
    return found | {key for key in _PROTOCOL if getattr(filled, key) != getattr(bare, key)}


def _values(config: ScenarioConfig, deployment: Deployment | None) -> Found:
    """Value of every key an engine may decide; of those not given, what the step model takes."""
    found: Found = {}
    for prefix, section in _sections(config):
        for key in type(section).model_fields:
            if key in _LAYOUT or key == "name" or (prefix == "routing." and key != "latency_s"):
                continue
            value = getattr(section, key)
            if value is None and prefix == "engine." and deployment is not None:
                value = _default(deployment.pools[0].step, key)
            found[prefix + key] = tuple(value) if isinstance(value, list) else value
    if config.link is not None:
        found |= {key: getattr(config, key) for key in _PROTOCOL}
    return found


def _default(step: Any, key: str) -> Value:
    """What a step model, or its class, has for a key of the engine section."""
    value: Value = getattr(step, key, None)
    return value if isinstance(value, str | float | int) else None


def _capped(key: str, value: Value, used: Found) -> bool:
    """Whether an engine's sequence limit was lowered to a smaller token budget."""
    prefix, _, name = key.rpartition(".")
    return name == "max_num_seqs" and value == used.get(f"{prefix}.max_num_batched_tokens")
