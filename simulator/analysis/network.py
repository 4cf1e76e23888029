"""KV on the wire: NIC time of a transfer, and how long it takes when nothing else is moving."""

from __future__ import annotations

from simulator.analysis.demand import Demand
from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan


def rank_pairs(source: PoolPlan, target: PoolPlan) -> int:
    """(sender, receiver) rank pairs that exchange KV heads: every rank of the wider side has one."""
    return max(source.tp, target.tp)


def messages(
    deployment: Deployment, link: LinkPlan, source: PoolPlan, target: PoolPlan, blocks: float
) -> float:
    """Messages of a transfer of ``blocks`` KV blocks: layers × (K, V) × blocks × rank pairs.

    One per rank pair if the link coalesces them.
    """
    pairs = rank_pairs(source, target)
    if link.coalesced:
        return float(pairs)
    return deployment.model.layers * 2.0 * blocks * pairs


def nic_seconds(
    deployment: Deployment,
    link: LinkPlan,
    source: PoolPlan,
    target: PoolPlan,
    tokens: float,
    blocks: float,
) -> float:
    """Time one NIC would be busy with the KV of ``tokens`` tokens: bytes and messages [s]."""
    count = messages(deployment, link, source, target, blocks)
    size = deployment.kv_wire_bytes_per_token * tokens
    return size / link.nic_bytes_per_s + count * link.message_s


def lone_transfer_s(
    deployment: Deployment, link: LinkPlan, source: PoolPlan, target: PoolPlan, prompt: float
) -> float:
    """Sending time of one prompt's KV with no other flow, base latency apart [s].

    The flow stripes over as many NICs as both ends have, and cannot exceed the spine.
    """
    blocks = -(-prompt // source.block_tokens)
    busy_s = nic_seconds(deployment, link, source, target, prompt, blocks)
    stripes = min(source.nics, target.nics)
    size = deployment.kv_wire_bytes_per_token * prompt
    return max(busy_s / stripes, size / link.spine_bytes_per_s)


def lone_exposed_s(
    deployment: Deployment,
    link: LinkPlan,
    source: PoolPlan,
    target: PoolPlan,
    prompt: float,
    prefill_s: float,
) -> float:
    """Part of a lone transfer that follows the end of prefill, base latency included [s].

    Layer by layer, layer l is sent once it is computed: all but the last layer's share may hide
    behind the prefill, as far as sending keeps up with ``(layers − 1)/layers`` of it.
    """
    total_s = lone_transfer_s(deployment, link, source, target, prompt)
    if deployment.transfer == "layerwise":
        layers = deployment.model.layers
        total_s = max(total_s / layers, total_s - prefill_s * (layers - 1) / layers)
    return total_s + link.base_latency_s


def mean_nic_seconds(
    deployment: Deployment, link: LinkPlan, source: PoolPlan, target: PoolPlan, demand: Demand
) -> float:
    """Mean NIC time of a request's transfer [s]."""
    blocks = demand.mean_prompt_blocks(source.block_tokens)
    return nic_seconds(deployment, link, source, target, demand.mean_prompt, blocks)
