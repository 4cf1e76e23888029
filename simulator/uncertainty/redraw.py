"""A deployment as it would be if the model were off by a draw."""

from __future__ import annotations

from dataclasses import replace

from hwprofiles import GpuProfile
from hwprofiles.scaling import operator_keys, scaled
from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan
from simulator.uncertainty.draws import Draw
from simulator.uncertainty.factors import FRONT, OVERHEAD, PREFILL, STEP, TRANSFER


def redrawn(deployment: Deployment, draw: Draw) -> Deployment:
    """The deployment with every operator, overhead and transfer as slow as the draw says.

    Memory and prices stay. Pools on one GPU type share its kernels. A draw of nothing gives the
    same numbers bit for bit.

    Args:
        deployment: as modelled.
        draw: how far off.
    """
    gpus = {pool.gpu.name: pool.gpu for pool in deployment.pools}
    slower = {name: slowed(gpu, draw) for name, gpu in gpus.items()}
    return replace(
        deployment,
        pools=tuple(_pool(pool, slower[pool.gpu.name], draw) for pool in deployment.pools),
        link=None if deployment.link is None else _link(deployment.link, draw.factor(TRANSFER)),
        router_latency_s=deployment.router_latency_s * draw.factor(FRONT),
    )


def slowed(gpu: GpuProfile, draw: Draw) -> GpuProfile:
    """A GPU's profile in a draw."""
    step = draw.factor(STEP)
    factors = {
        key: step * draw.factor(str(key))
        for family in gpu.kernels
        for key, _ in operator_keys(gpu, family)
    }
    return scaled(gpu, factors, draw.parameters.get(gpu.name))


def _pool(pool: PoolPlan, gpu: GpuProfile, draw: Draw) -> PoolPlan:
    old, whole = pool.step, draw.factor(STEP)
    overhead, prefill = whole * draw.factor(OVERHEAD), draw.factor(PREFILL)
    experts = old.sustained_experts
    step = replace(
        old,
        gpu=gpu,
        c0_s=old.c0_s * overhead,
        c1_s=old.c1_s * overhead,
        host_s=old.host_s * overhead,
        eager_layer_s=old.eager_layer_s * overhead,
        sustained=old.sustained / prefill,
        sustained_experts=None if experts is None else experts / prefill,
    )
    table = step.table(
        len(pool.table.decode_a) - 1, pool.table.max_tokens, rounds=pool.role != "prefill"
    )
    return replace(pool, gpu=gpu, step=step, table=table)


def _link(link: LinkPlan, factor: float) -> LinkPlan:
    return replace(
        link,
        nic_bytes_per_s=link.nic_bytes_per_s / factor,
        base_latency_s=link.base_latency_s * factor,
        message_s=link.message_s * factor,
    )
