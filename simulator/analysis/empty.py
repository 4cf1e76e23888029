"""Latency of one request in an empty system: the least a user can ever see."""

from __future__ import annotations

import numpy as np

from simulator.analysis.bounds import BestCase
from simulator.analysis.demand import Demand
from simulator.analysis.rates import Cluster, Path


def best_case(cluster: Cluster, demand: Demand, decodes: bool) -> BestCase:
    """TTFT of the mean and the median prompt, and TPOT at the mean running context.

    Args:
        cluster: the deployment.
        demand: the requests.
        decodes: whether any request has a second token.
    """
    context = demand.mean_context
    servers = [p for p in cluster.deployment.pools if p.role != "prefill"]
    tpot_s = min(cluster.times[p.name].lone_decode_s(context) for p in servers) if decodes else None
    return BestCase(
        ttft_mean_prompt_s=_ttft_s(cluster, demand.mean_prompt),
        ttft_p50_prompt_s=_ttft_s(cluster, float(np.median(demand.prompt))),
        tpot_s=tpot_s,
    )


def _ttft_s(cluster: Cluster, prompt: float) -> float:
    """Router, prefill, and what ``first_token`` adds, on the fastest pools [s]."""
    prompt = float(max(1, round(prompt)))
    d = cluster.deployment
    if d.link is None:
        served_s = min(cluster.prefill_s(p, prompt) for p in d.pools)
    else:
        served_s = min(
            _path_s(cluster, path, prompt, d.link.base_latency_s) for path in cluster.paths
        )
    return d.router_latency_s + served_s


def _path_s(cluster: Cluster, path: Path, prompt: float, base_latency_s: float) -> float:
    source, target = path
    # a batch that is not full waits for company
    wait_s = source.max_wait_s if prompt < source.max_num_batched_tokens else 0.0
    total_s = wait_s + cluster.prefill_s(source, prompt)
    first_token = cluster.deployment.first_token
    if first_token != "prefill":
        total_s += cluster.exposed_s(path, prompt) + base_latency_s
    if first_token == "decode":
        total_s += cluster.times[target.name].lone_decode_s(prompt)
    return total_s
