"""Colocated twins: what the hardware of a disaggregated scenario could be instead.

A twin keeps the model, the workload, the targets and the prices, and replaces the pools by
colocated ones; what only a disaggregated scenario has (link, who emits the first token, when room
is promised, how KV is sent, the decode router) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from simulator.errors import InputError
from simulator.model import ModelSpec, Parallel
from simulator.scenario import Deployment, Scenario
from simulator.scenario.deployment import PoolPlan
from simulator.scenario.resolve import order_of_service

_DISAGGREGATED_ONLY = ("link", "first_token", "reserve", "transfer")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The GPUs of one type in a disaggregated scenario.

    Attributes:
        gpu: name of the GPU type.
        gpus: how many there are.
        usd_per_gpu_hour: price of one [USD/h].
        parallels: how the instances of its pools spread the model, decode pools first, the most
            GPUs first.
        limits: the keys of a colocated pool on it: GPU type, batch limits, memory share and block
            size. The token budget of a step is the prefill pool's where there is one, the rest
            the decode pool's; of several pools of a role, the largest counts.
    """

    gpu: str
    gpus: int
    usd_per_gpu_hour: float
    parallels: tuple[Parallel, ...]
    limits: Mapping[str, Any]


def inventory(scenario: Scenario, deployment: Deployment) -> tuple[Inventory, ...]:
    """GPU types of a disaggregated scenario in the order of its pools.

    Args:
        scenario: the scenario.
        deployment: the same, resolved.

    Raises:
        InputError: the scenario is colocated.
    """
    if deployment.mode == "colocated":
        raise InputError(
            f"{scenario.name} is colocated, and compare wants a disaggregated scenario, "
            "for which it makes the colocated twin itself."
        )
    by_type: dict[str, list[PoolPlan]] = {}
    for pool in deployment.pools:
        by_type.setdefault(pool.gpu.name, []).append(pool)
    return tuple(_inventory(scenario, gpu, pools) for gpu, pools in by_type.items())


def _inventory(scenario: Scenario, gpu: str, pools: list[PoolPlan]) -> Inventory:
    ranked = sorted(pools, key=lambda p: (p.role != "decode", -p.gpus))
    decode, prefill = ranked[0], min(pools, key=lambda p: (p.role != "prefill", -p.gpus))
    config = scenario.config.pools[decode.name]
    by_size = sorted(pools, key=lambda p: (p.role != "decode", -p.parallel.gpus))
    return Inventory(
        gpu=gpu,
        gpus=sum(p.gpus for p in pools),
        usd_per_gpu_hour=decode.usd_per_gpu_hour,
        parallels=tuple(dict.fromkeys(p.parallel for p in by_size)),
        limits={
            "role": "colocated",
            "gpu": config.gpu,
            # every running sequence computes one token a step, so the budget must hold them all
            "max_num_batched_tokens": max(prefill.max_num_batched_tokens, decode.max_num_seqs),
            "max_num_seqs": decode.max_num_seqs,
            "memory_fraction": config.memory_fraction,
            "block_tokens": decode.block_tokens,
            **order_of_service(config),
        },
    )


def colocated(scenario: Scenario, pools: Mapping[str, Mapping[str, Any]]) -> Scenario:
    """The scenario with these colocated pools instead of its own.

    Args:
        scenario: a disaggregated scenario.
        pools: the pools as a scenario file would hold them.

    Raises:
        InputError: the pools are not possible.
    """
    raw = scenario.config.model_dump(mode="json", exclude_none=True)
    for key in _DISAGGREGATED_ONLY:
        raw.pop(key, None)
    raw["routing"].pop("decode", None)
    raw["name"] = f"{scenario.name}_colocated"
    raw["pools"] = {name: dict(pool) for name, pool in pools.items()}
    return Scenario.from_dict(raw, source=f"colocated twin of {scenario.name}")


def pool_names(stock: tuple[Inventory, ...]) -> list[str]:
    """A pool name for each GPU type: ``colocated``, or with the type where there are several."""
    if len(stock) == 1:
        return ["colocated"]
    return ["colocated_" + re.sub(r"[^A-Za-z0-9_-]", "_", item.gpu) for item in stock]


def inventory_twin(
    scenario: Scenario, stock: tuple[Inventory, ...]
) -> tuple[Scenario, str, tuple[str, ...]]:
    """The same GPUs, each type a colocated pool of its own.

    Of the instances of a type's pools, those that leave fewest GPUs idle are taken; of equals, the
    decode pool's.

    Returns:
        The twin, one sentence on how it was made, and notes on GPUs left over.

    Raises:
        InputError: a pool is not possible.
    """
    pools: dict[str, dict[str, Any]] = {}
    notes, said = [], []
    for name, item in zip(pool_names(stock), stock, strict=True):
        parallel = min(item.parallels, key=lambda p: item.gpus % p.gpus)
        instances, idle = divmod(item.gpus, parallel.gpus)
        pools[name] = {**item.limits, **asdict(parallel), "instances": instances}
        said.append(f"{instances} × {item.gpu} {parallel.label}")
        if idle:
            notes.append(f"{idle} of {item.gpus} {item.gpu} stay idle in the twin, and unpaid.")
    how = f"The same GPUs, each type a colocated pool of its own: {' and '.join(said)}."
    return colocated(scenario, pools), how, tuple(notes)


def cost_twins(
    scenario: Scenario, stock: tuple[Inventory, ...], usd_per_hour: float
) -> list[tuple[Scenario, Deployment]]:
    """Every homogeneous colocated layout that the budget buys and the model fits.

    For each GPU type and each legal parallelism (``_parallels``), as many instances as the budget pays for.

    Args:
        scenario: the disaggregated scenario.
        stock: its GPU types.
        usd_per_hour: the budget [USD/h].

    Raises:
        InputError: not one layout is possible.
    """
    found: list[tuple[Scenario, Deployment]] = []
    reasons: list[str] = []
    for item in stock:
        for parallel in _parallels(scenario.deployment().model, item):
            price = parallel.gpus * item.usd_per_gpu_hour
            # a budget made of sums of prices may miss a multiple of one by its last digit
            paid = int(usd_per_hour * (1 + 1e-9) / price) if price > 0 else None
            instances = item.gpus // parallel.gpus if paid is None else paid
            if instances < 1:
                continue
            pools = {"colocated": {**item.limits, **asdict(parallel), "instances": instances}}
            try:
                twin = colocated(scenario, pools)
                found.append((twin, twin.deployment()))
            except InputError as error:
                reasons.append(str(error))
    if not found:
        raise InputError(
            f"no colocated layout of at most {usd_per_hour:.2f} USD/h serves {scenario.name}: "
            + (reasons[0] if reasons else "the budget does not buy one instance.")
        )
    return found


def _parallels(model: ModelSpec, item: Inventory) -> tuple[Parallel, ...]:
    """Every TP degree, of a mixture with its experts cut or spread, and what the pools do."""
    found = [
        Parallel(tp=tp, ep=ep)
        for tp in model.allowed_tp()
        for ep in ((1, tp) if model.is_moe else (1,))
    ]
    return tuple(dict.fromkeys([*found, *item.parallels]))
