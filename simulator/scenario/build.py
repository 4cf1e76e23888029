"""From a resolved scenario to what the engine is given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from hwprofiles import GpuProfile, PriceBook, load_gpu, load_link, load_prices
from simulator.errors import ModelError, ProfileError
from simulator.kvcache import Footprint
from simulator.model import ModelSpec, Parallel, load_model
from simulator.perf.graphs import Graphs
from simulator.perf.memory import units
from simulator.perf.precision import Precision
from simulator.perf.step import C0_S, StepModel
from simulator.perf.table import StepTable
from simulator.scenario.deployment import Balance, Deployment, LinkPlan, PoolPlan
from simulator.scenario.draw import check_trace_files, longest_prompt
from simulator.scenario.engine import step_overhead_s
from simulator.scenario.precision import precision_of
from simulator.scenario.problem import Problem, at
from simulator.scenario.resolve import mode_of
from simulator.scenario.schema import Link, Overheads, Pool, ScenarioConfig
from simulator.units import GB, gbps_to_bytes_per_s


def check_names(config: ScenarioConfig) -> None:
    """Refuse unknown names, a TP the model or GPU does not allow, and a model that does not fit.

    Raises:
        Problem: the first of these found.
    """
    model = _model(config.model)
    for name, pool in config.pools.items():
        _instance(config, name, pool, model)
    if config.link is not None:
        with at("link", "name"):
            load_link(config.link.name)
    _prices(config)
    check_trace_files(config.workload)


def build_deployment(config: ScenarioConfig) -> Deployment:
    """Every name of a resolved scenario as an object, and every pool with its step times.

    Raises:
        Problem: the model does not fit a pool's GPUs, or a name is unknown.
    """
    model = _model(config.model)
    longest = longest_prompt(config.workload)
    prices = _prices(config)
    mode = mode_of(config)
    kv_bytes = precision_of(config.precision, model).kv_bytes
    return Deployment(
        name=config.name,
        mode=mode,
        model=model,
        pools=tuple(
            _pool(config, name, pool, model, longest, prices) for name, pool in config.pools.items()
        ),
        link=None if config.link is None else _link(config.link),
        kv_wire_bytes_per_token=model.kv_bytes_per_token(kv_bytes),
        kv_wire_windows=_windows(model, kv_bytes),
        # in a colocated pool these three have no meaning and no effect
        first_token=config.first_token or "prefill",
        reserve=config.reserve or "after_prefill",
        transfer=config.transfer or "after_prefill",
        prefill_router=config.routing.prefill,
        decode_router=config.routing.decode or config.routing.prefill,
        router_latency_s=config.routing.latency_s,
        grid_gco2_per_kwh=None if config.energy is None else config.energy.grid_gco2_per_kwh,
        pue=1.0 if config.energy is None else config.energy.pue,
    )


def _pool(
    config: ScenarioConfig,
    name: str,
    pool: Pool,
    model: ModelSpec,
    longest: int | None,
    prices: dict[str, float],
) -> PoolPlan:
    step, blocks = _instance(config, name, pool, model)
    tokens = pool.max_num_batched_tokens
    if pool.role == "prefill":
        # a prompt longer than the budget runs alone, in one step; none exceeds the KV cache
        holds = _holds_tokens(step, pool, blocks)
        tokens = max(tokens, holds if longest is None else min(longest, holds))
    assert pool.role is not None  # filled in by resolve
    return PoolPlan(
        name=name,
        role=pool.role,
        gpu=step.gpu,
        parallel=step.parallel,
        instances=pool.instances,
        step=step,
        table=_table(step, pool.max_num_seqs, tokens + pool.max_num_seqs, pool.role != "prefill"),
        block_tokens=pool.block_tokens,
        capacity_blocks=blocks,
        max_num_seqs=pool.max_num_seqs,
        max_num_batched_tokens=pool.max_num_batched_tokens,
        max_wait_s=pool.max_wait_s or 0.0,
        nics=step.parallel.gpus * (pool.nics_per_gpu or 1),
        usd_per_gpu_hour=prices[name],
        scheduler=pool.scheduler or "vllm_v1",
        mixed=bool(pool.mixed),
        chunked=bool(pool.chunked),
        reserve_output=pool.reserve_output is not False,
        conservativeness=pool.schedule_conservativeness or 1.0,
        balance=None
        if pool.attention_balance is None
        else Balance(**pool.attention_balance.model_dump()),
        # with pipeline stages engines schedule microbatch by microbatch
        overlap=bool(config.engine.overlap) and pool.pp == 1 and pool.role != "prefill",
    )


def _instance(
    config: ScenarioConfig, name: str, pool: Pool, model: ModelSpec
) -> tuple[StepModel, int]:
    """Step model of one instance of a pool, and the KV blocks it holds.

    Raises:
        Problem: unknown GPU, a TP the model or the GPU does not allow, no room for a block.
    """
    gpu = _gpu(name, pool)
    precision = precision_of(config.precision, model)
    if config.expert_skew is not None and not model.is_moe:
        raise Problem(
            ("expert_skew",),
            f"has no effect, {model.name} has no routed experts; allowed: leave it out.",
        )
    parallel = _parallel(name, pool, model)
    c0_s = step_overhead_s(config.engine, model, precision, parallel.gpus)
    given = _overheads(config.engine, gpu, c0_s)
    with at("pools", name, "tp"):
        step = _step_model(model, gpu, parallel, precision, given, config.expert_skew)
    blocks = _blocks(step, pool)
    if blocks < sum(units(model, pool.tp)):
        raise Problem(("pools", name, "tp"), _too_big(step, pool))
    return step, blocks


def _parallel(name: str, pool: Pool, model: ModelSpec) -> Parallel:
    """The pool's parallelism, which shards the model; the mistake is at the key it is in."""
    try:
        found = pool.parallel
        model.check_parallel(found)
    except ModelError as error:
        key, _, text = str(error).partition(": ")
        raise Problem(("pools", name, key), text) from error
    return found


def _blocks(step: StepModel, pool: Pool) -> int:
    """KV units of an attention rank: blocks, where there is one attention group."""
    tokens, fraction = pool.max_num_batched_tokens, pool.memory_fraction
    if pool.memory_base == "free":  # the same room, as a share of all memory
        memory = step.gpu.memory_bytes.value
        spent = step.weight_bytes_per_gpu + step.activation_bytes(tokens)
        fraction = (spent + fraction * max(0.0, memory - spent)) / memory
    return step.kv_capacity_units(fraction, tokens, pool.block_tokens)


def _holds_tokens(step: StepModel, pool: Pool, blocks: int) -> int:
    """Longest prompt an attention rank holds; the model's longest where windows bound its KV."""
    model = step.model
    groups = zip(units(model, pool.tp), model.attention_groups, strict=True)
    footprint = Footprint(
        pool.block_tokens, tuple((size, g.window or g.local_chunk) for size, g in groups)
    )
    holds = footprint.tokens_within(blocks)
    return holds if holds < 1 << 60 else model.max_position


def _windows(model: ModelSpec, kv_bytes: float) -> tuple[tuple[int, float], ...]:
    """(tokens kept, bytes per token) of the attention groups that keep a window only."""
    return tuple(
        (span, group.layers * group.attention.kv_numbers() * kv_bytes)
        for group in model.attention_groups
        if (span := group.window or group.local_chunk) is not None
    )


def _too_big(step: StepModel, pool: Pool) -> str:
    """Why not one KV block fits, and the smallest TP with which one does."""
    memory = step.gpu.memory_bytes.value
    weights = step.weight_bytes_per_gpu
    other = step.activation_bytes(pool.max_num_batched_tokens)
    found = (
        f"found {pool.tp}; {step.model.name} then needs {(weights + other) / GB:.1f} GB on each "
        f"{step.gpu.name} before any KV cache (weights {weights / GB:.1f}, activations and runtime "
        f"{other / GB:.1f}), and {pool.memory_fraction * memory / GB:.1f} GB are available "
        f"({pool.memory_fraction:g} of {memory / GB:.1f})"
    )
    for tp in (tp for tp in step.model.allowed_tp() if tp > pool.tp):
        for wider in _wider(step, tp):
            if _blocks(wider, pool) >= sum(units(wider.model, tp)):
                ep = wider.parallel.ep
                more = f" (with ep {ep})" if ep != pool.ep else ""
                return f"{found}; the smallest tp that fits is {tp}{more}."
    return f"{found}; no tp of one node fits."


def _wider(step: StepModel, tp: int) -> Iterator[StepModel]:
    """The instance at another TP, its experts spread as widely as before or over as many groups."""
    old = step.parallel
    for ep in dict.fromkeys((old.ep, old.ep * tp // old.tp, tp * old.attention_dp)):
        try:
            yield replace(step, parallel=replace(old, tp=tp, ep=ep))
        except (ModelError, ProfileError):
            continue


# --- loaders ------------------------------------------------------------------------------------


def _model(name: str) -> ModelSpec:
    with at("model"):
        return load_model(name)


def _gpu(name: str, pool: Pool) -> GpuProfile:
    with at("pools", name, "gpu"):
        return load_gpu(pool.gpu)


@dataclass(frozen=True)
class _Engine:
    """What the step model takes from the engine section; None: its own default."""

    kernels: str | None
    c0_s: float | None
    c1_s: float | None
    host_s: float | None
    sustained: float | None
    sustained_experts: float | None
    sustained_attention: float | None
    graphs: Graphs | None
    eager_layer_s: float | None

    @property
    def given(self) -> dict[str, Any]:
        """The values that are given, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: value for key, value in found.items() if value is not None}


def _overheads(engine: Overheads, gpu: GpuProfile, c0_s: float | None) -> _Engine:
    known = {family.name for family in gpu.kernels}
    graphs = None
    if engine.graph_sizes is not None:
        graphs = Graphs(
            tuple(engine.graph_sizes), engine.graph_padding is not False, bool(engine.graph_mixed)
        )
    host_s = engine.host_s
    if engine.overlap is False and host_s:  # the GPU waits while the host works
        c0_s, host_s = (C0_S if c0_s is None else c0_s) + host_s, 0.0
    return _Engine(
        # an engine's family stands in the profiles of the GPUs it was measured on; elsewhere the first
        kernels=engine.kernels if engine.name is None or engine.kernels in known else None,
        c0_s=c0_s,
        c1_s=engine.c1_s,
        host_s=host_s,
        sustained=engine.sustained,
        sustained_experts=engine.sustained_experts,
        sustained_attention=engine.sustained_attention,
        graphs=graphs,
        eager_layer_s=engine.eager_layer_s,
    )


@lru_cache(maxsize=256)
def _step_model(
    model: ModelSpec,
    gpu: GpuProfile,
    parallel: Parallel,
    precision: Precision,
    engine: _Engine,
    skew: float | None,
) -> StepModel:
    return StepModel(model, gpu, parallel, precision, skew=skew or 0.0, **engine.given)


@lru_cache(maxsize=64)
def _table(step: StepModel, max_num_seqs: int, max_tokens: int, rounds: bool) -> StepTable:
    """Candidates of a search share pools; a table is built once for each."""
    return step.table(max_num_seqs, max_tokens, rounds=rounds)


def _link(link: Link) -> LinkPlan:
    with at("link", "name"):
        profile = load_link(link.name)

    def given(value: float | None, default: float) -> float:
        return default if value is None else value

    raw = profile.nic_bytes_per_s.value
    if link.nic_gbps is not None:
        raw = gbps_to_bytes_per_s(link.nic_gbps)
    return LinkPlan(
        name=profile.name,
        nic_bytes_per_s=raw * given(link.efficiency, profile.efficiency.value),
        base_latency_s=given(link.base_latency_s, profile.base_latency_s.value),
        message_s=given(link.message_s, profile.message_s.value),
        coalesced=profile.coalesced if link.coalesced is None else link.coalesced,
        spine_bytes_per_s=(
            math.inf if link.spine_gbps is None else gbps_to_bytes_per_s(link.spine_gbps)
        ),
    )


# --- prices -------------------------------------------------------------------------------------


def _prices(config: ScenarioConfig) -> dict[str, float]:
    """Price of a GPU-hour of every pool, by pool name [USD/h]."""
    own: dict[str, float] = {}
    if isinstance(config.prices, dict):
        files = {_gpu(name, pool).name for name, pool in config.pools.items()}
        for name, usd in config.prices.items():
            with at("prices", name):  # a GPU from a file has no bundled name
                own[name.lower() if name.lower() in files else load_gpu(name).name] = usd
    with at("prices"):
        book = _price_book(config.prices if isinstance(config.prices, str) else None)
    return {name: _price(name, pool, own, book) for name, pool in config.pools.items()}


def _price(name: str, pool: Pool, own: dict[str, float], book: PriceBook) -> float:
    gpu = _gpu(name, pool).name
    if gpu in own:
        return own[gpu]
    with at("prices"):
        return book.usd_per_gpu_hour(gpu)


def _price_book(path: str | None) -> PriceBook:
    return _bundled_prices() if path is None else load_prices(path)


@lru_cache(maxsize=1)
def _bundled_prices() -> PriceBook:
    return load_prices()
