"""KV on the wire: NIC time of a transfer, and how long it takes when nothing else is moving."""

from __future__ import annotations

from math import lcm

from simulator.analysis.demand import Demand
from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan


def rank_pairs(source: PoolPlan, target: PoolPlan) -> int:
    """(sender, receiver) rank pairs that exchange a slice of the KV heads."""
    return lcm(source.tp, target.tp)


def nic_seconds(
    deployment: Deployment,
    link: LinkPlan,
    ends: tuple[PoolPlan, PoolPlan],
    tokens: float,
    blocks: float,
    transfers: float = 1.0,
) -> float:
    """Time one NIC would be busy with the KV of some tokens: bytes and messages [s].

    Messages: tensors (K and V of a layer, or its latent) × blocks × rank pairs, or one per rank pair if coalesced.

    Args:
        deployment: the deployment.
        link: its fabric.
        ends: sending and receiving pool.
        tokens: KV tokens sent.
        blocks: KV blocks they fill at the receiver.
        transfers: how many transfers these are.
    """
    pairs = rank_pairs(*ends)
    messages = pairs * (transfers if link.coalesced else deployment.model.kv_tensors * blocks)
    size = deployment.kv_wire_bytes_per_token * tokens
    return size / link.nic_bytes_per_s + messages * link.message_s


def lone_transfer_s(
    deployment: Deployment, link: LinkPlan, ends: tuple[PoolPlan, PoolPlan], prompt: float
) -> float:
    """Sending time of one prompt's KV with no other flow, base latency apart [s].

    The flow stripes over as many NICs as both ends have, and cannot exceed the spine.
    """
    busy_s = nic_seconds(deployment, link, ends, prompt, -(-prompt // ends[1].block_tokens))
    stripes = min(pool.rank_nics for pool in ends)
    return busy_s * max(1.0 / stripes, link.nic_bytes_per_s / link.spine_bytes_per_s)


def lone_exposed_s(
    deployment: Deployment,
    link: LinkPlan,
    ends: tuple[PoolPlan, PoolPlan],
    prompt: float,
    prefill_s: float,
) -> float:
    """Sending time that follows the end of prefill, with no other flow, base latency apart [s].

    Layer by layer, a layer is sent once it is computed: all but the last layer's share may hide
    behind the prefill, as far as sending keeps up with ``(layers − 1)/layers`` of it.
    """
    total_s = lone_transfer_s(deployment, link, ends, prompt)
    if deployment.transfer == "layerwise":
        layers = deployment.model.layers
        total_s = max(total_s / layers, total_s - prefill_s * (layers - 1) / layers)
    return total_s


def mean_nic_seconds(
    deployment: Deployment, link: LinkPlan, ends: tuple[PoolPlan, PoolPlan], demand: Demand
) -> float:
    """Mean NIC time per request, those without a transfer included [s]."""
    return nic_seconds(
        deployment,
        link,
        ends,
        demand.mean_sent_tokens(),
        demand.mean_sent_blocks(ends[1].block_tokens),
        float(demand.sent.mean()),
    )
