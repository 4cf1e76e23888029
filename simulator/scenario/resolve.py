"""Rules between the keys of a scenario, and the defaults that depend on them."""

from __future__ import annotations

from typing import Any, Literal

from simulator.errors import suggest
from simulator.scenario.arrival_schema import OnOff, Profile
from simulator.scenario.class_schema import RequestClass
from simulator.scenario.deployment import Role, Scheduler
from simulator.scenario.engine import with_engine
from simulator.scenario.problem import Problem, at
from simulator.scenario.schema import Overheads, Pool, ScenarioConfig
from simulator.scenario.workload_schema import Workload
from simulator.workload.presets import PRESETS

Mode = Literal["disaggregated", "colocated"]

REQUESTS_PER_SLOT = 10
"""Requests of a closed loop per request in flight, the public InferenceMAX client's choice."""

_ROLES: tuple[Role, ...] = ("prefill", "decode", "colocated")
_DISAGGREGATED_ONLY = ("link", "first_token", "reserve", "transfer")


def mode_of(config: ScenarioConfig) -> Mode:
    """Whether prefill and decode have instances of their own; the roles are filled in."""
    roles = {pool.role for pool in config.pools.values()}
    return "colocated" if "colocated" in roles else "disaggregated"


def resolve(config: ScenarioConfig) -> ScenarioConfig:
    """Check the rules that span sections and fill in the defaults that depend on the mode.

    Resolving twice changes nothing more.

    Raises:
        Problem: a rule is broken, or a key would have no effect.
    """
    roles = {name: _role(name, pool) for name, pool in config.pools.items()}
    mode = _check_roles(roles)
    for name, pool in config.pools.items():
        if roles[name] == "prefill":
            _refuse(("pools", name, "scheduler"), pool.scheduler, "a prefill pool")
    config = with_engine(config)
    _check_graphs(config.engine)
    pools = {name: _pool(name, pool, roles[name]) for name, pool in config.pools.items()}
    update: dict[str, Any] = {"pools": pools, "workload": _workload(config.workload)}
    _check_targets(config, update["workload"])
    if mode == "disaggregated":
        update |= _disaggregated(config)
    else:
        _check_colocated(config)
    return config.model_copy(update=update)


def _check_graphs(engine: Overheads) -> None:
    """Captured sizes ascend, and the keys beside them have an effect."""
    sizes = engine.graph_sizes
    if sizes and (sizes != sorted(set(sizes)) or not 1 <= sizes[0] <= sizes[-1] <= 65_536):
        rule = "allowed: sizes from 1 to 65536 that ascend."
        raise Problem(("engine", "graph_sizes"), f"found {sizes}; {rule}")
    for key in ("graph_padding", "graph_mixed") if not sizes else ():
        _refuse(("engine", key), getattr(engine, key), "an engine without graph_sizes")
    if sizes is None:
        _refuse(("engine", "eager_layer_s"), engine.eager_layer_s, "an engine without graph_sizes")


def _check_targets(config: ScenarioConfig, workload: Workload) -> None:
    """An slo without a target only says the share wanted, which needs classes with targets."""
    slo = config.slo
    if slo is None or slo.ttft_s is not None or slo.tpot_s is not None:
        return
    if not any(c.slo for c in (workload.classes or {}).values()):
        raise Problem(("slo",), "holds no target; allowed: ttft_s, tpot_s or both.")


def _role(name: str, pool: Pool) -> Role:
    if pool.role is not None:
        return pool.role
    for role in _ROLES:
        if name == role:
            return role
    raise Problem(
        ("pools", name, "role"),
        f"is missing; allowed: {', '.join(_ROLES)} (only a pool named so has it by default).",
    )


def _check_roles(roles: dict[str, Role]) -> Mode:
    found = set(roles.values())
    if found == {"colocated"}:
        return "colocated"
    if found == {"prefill", "decode"}:
        return "disaggregated"
    listed = ", ".join(f"{name} ({role})" for name, role in roles.items())
    if "colocated" in found:
        rule = "colocated pools do not mix with prefill or decode pools"
    else:
        missing = "decode" if "prefill" in found else "prefill"
        rule = f"a {missing} pool must be there too"
    raise Problem(("pools",), f"found {listed}; {rule}.")


def _pool(name: str, pool: Pool, role: Role) -> Pool:
    update: dict[str, Any] = {"role": role}
    if role == "prefill":
        update["max_wait_s"] = pool.max_wait_s or 0.0
    else:
        _refuse(("pools", name, "max_wait_s"), pool.max_wait_s, f"a {role} pool")
        if pool.max_num_batched_tokens < pool.max_num_seqs:
            raise Problem(
                ("pools", name, "max_num_batched_tokens"),
                f"found {pool.max_num_batched_tokens}; allowed: at least max_num_seqs, "
                f"{pool.max_num_seqs}, because every running sequence computes one token a step.",
            )
    if role == "colocated":
        _refuse(("pools", name, "nics_per_gpu"), pool.nics_per_gpu, "a colocated pool")
    else:
        update["nics_per_gpu"] = pool.nics_per_gpu or 1
    update |= _order_of_service(name, pool, role)
    _check_balance(name, pool, role)
    return pool.model_copy(update=update)


_ORDER_KEYS: dict[str, tuple[Scheduler, object]] = {
    "mixed": ("sglang", False),
    "schedule_conservativeness": ("sglang", 1.0),
    "chunked": ("trtllm", False),
    "reserve_output": ("trtllm", True),
}
"""Keys of one scheduler, and their defaults."""


def _order_of_service(name: str, pool: Pool, role: Role) -> dict[str, Any]:
    """The scheduler and its keys; those of another have no effect."""
    scheduler = None if role == "prefill" else pool.scheduler or "vllm_v1"
    update: dict[str, Any] = {"scheduler": scheduler}
    for key, (owner, default) in _ORDER_KEYS.items():
        value = getattr(pool, key)
        if scheduler != owner:
            where = "a prefill pool" if scheduler is None else f"a pool with scheduler {scheduler}"
            _refuse(("pools", name, key), value, where)
        elif value is None:
            update[key] = default
    return update


def _check_balance(name: str, pool: Pool, role: Role) -> None:
    """Only where it has an effect: ranks of a colocated TensorRT-LLM instance that evicts nobody."""
    wrong = (
        f"a {role} pool"
        if role != "colocated"
        else f"a pool with scheduler {pool.scheduler or 'vllm_v1'}"
        if pool.scheduler != "trtllm"
        else "a pool with attention_dp 1"
        if pool.attention_dp == 1
        else "a pool with reserve_output: false"
        if pool.reserve_output is False
        else ""
    )
    if wrong:
        _refuse(("pools", name, "attention_balance"), pool.attention_balance, wrong)


def order_of_service(pool: Pool) -> dict[str, Any]:
    """The scheduler of a resolved pool and its keys, as a scenario file holds them."""
    values = {key: getattr(pool, key) for key in ("scheduler", *_ORDER_KEYS)}
    return {key: value for key, value in values.items() if value is not None}


def _refuse(path: tuple[str, ...], value: object, source: str) -> None:
    if value is not None:
        raise Problem(path, f"has no effect in {source}; allowed: leave it out.")


def _check_colocated(config: ScenarioConfig) -> None:
    for key in _DISAGGREGATED_ONLY:
        _refuse((key,), getattr(config, key), "a colocated scenario")
    _refuse(("routing", "decode"), config.routing.decode, "a colocated scenario")


def _disaggregated(config: ScenarioConfig) -> dict[str, Any]:
    if config.link is None:
        raise Problem(
            ("link",), "is missing; a disaggregated scenario needs a link, such as `link: ib_ndr`."
        )
    reserve = config.reserve or "after_prefill"
    if config.transfer == "layerwise" and reserve != "before_prefill":
        raise Problem(
            ("reserve",),
            f"found {reserve}; allowed with transfer: layerwise: before_prefill, because layers "
            "leave before prefill ends.",
        )
    router = config.routing.decode or "least_outstanding_tokens"
    return {
        "first_token": config.first_token or "decode",
        "reserve": reserve,
        "transfer": config.transfer or "after_prefill",
        "routing": config.routing.model_copy(update={"decode": router}),
    }


def _workload(workload: Workload) -> Workload:
    update: dict[str, Any] = {}
    if workload.rate_rps is not None or workload.arrivals is not None:
        update["arrivals"] = workload.arrivals or "poisson"
        update["rate_rps"] = _rate(workload, ("workload", "arrivals"))
    client = workload.closed_loop
    if client is not None and client.requests is None:
        requests = REQUESTS_PER_SLOT * client.concurrency
        update["closed_loop"] = client.model_copy(update={"requests": requests})
    if workload.classes is not None:
        update["classes"] = {
            name: _class(name, found, workload) for name, found in workload.classes.items()
        }
    return workload.model_copy(update=update)


def _rate(source: Workload | RequestClass, path: tuple[str, ...]) -> float | None:
    """Mean arrival rate, where it is not written down that of the process itself [1/s]."""
    if source.rate_rps is not None:
        return source.rate_rps
    process = source.arrivals
    if isinstance(process, OnOff):
        return process.mean_rps
    assert isinstance(process, Profile)  # the schema wants a rate for all others
    with at(*path):
        return process.rates().mean_rps


def _class(name: str, found: RequestClass, workload: Workload) -> RequestClass:
    """A request class with its preset's content and the defaults that depend on the others."""
    path = ("workload", "classes", name)
    found = _preset(path, found)
    update: dict[str, Any] = {}
    if found.rate_rps is not None or found.arrivals is not None:
        update["arrivals"] = found.arrivals or "poisson"
        update["rate_rps"] = _rate(found, (*path, "arrivals"))
    else:
        update["weight"] = found.weight or 1.0
    for key in ("prompt_tokens", "output_tokens"):
        if found.lengths is None and getattr(found, key) is None:
            raise Problem(
                (*path, key),
                "is missing; a class needs prompt_tokens and output_tokens, lengths, or a preset.",
            )
    if found.session is not None and workload.closed_loop is not None:
        raise Problem((*path, "session"), "has no effect in a closed loop; allowed: leave it out.")
    return found.model_copy(update=update)


def _preset(path: tuple[str, ...], found: RequestClass) -> RequestClass:
    """The class with what its preset says and it does not, and no preset any more."""
    if found.preset is None:
        return found
    name = path[-1] if found.preset == "preset" else found.preset
    if name not in PRESETS:
        raise Problem((*path, "preset"), f"found {name!r}; {suggest(name, list(PRESETS))}")
    preset = RequestClass.model_validate(PRESETS[name].content)
    update: dict[str, Any] = {"preset": None}
    own_lengths = found.lengths is not None
    joint = preset.lengths is not None
    for key in ("prompt_tokens", "output_tokens", "lengths", "session", "slo"):
        if getattr(found, key) is None:
            update[key] = getattr(preset, key)
    if own_lengths:
        update |= {"prompt_tokens": None, "output_tokens": None, "session": None}
    elif joint and (found.prompt_tokens is not None or found.output_tokens is not None):
        update["lengths"] = None
    return found.model_copy(update=update)
