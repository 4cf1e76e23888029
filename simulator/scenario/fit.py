"""Which requests a cluster can serve at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.scenario.deployment import Deployment, PoolPlan
from simulator.scenario.problem import Problem
from simulator.workload import Requests


def never_fits(requests: Requests, pool: PoolPlan) -> NDArray[np.bool_]:
    """Requests whose KV is larger than the whole KV cache of one instance of ``pool``.

    A prefill instance holds the prompt; a decode or colocated instance prompt and output.

    Returns:
        Shape (n,), True for a request that can never be served there.
    """
    tokens = requests.prompt_tokens
    if pool.role != "prefill":
        tokens = tokens + requests.output_tokens
    return np.asarray((tokens > pool.holds_tokens) | _too_long_a_step(requests, pool))


def _too_long_a_step(requests: Requests, pool: PoolPlan) -> NDArray[np.bool_]:
    """Prompts that a pool which computes them whole cannot compute in one step."""
    return np.asarray(requests.prompt_tokens > pool.longest_prompt)


def check_fit(requests: Requests, deployment: Deployment) -> None:
    """Refuse a workload with requests that can never be served.

    Every pool has to hold every request, because a router may choose any instance of a role.

    Raises:
        Problem: how many there are, the longest, and how much an instance holds or computes.
    """
    for pool in deployment.pools:
        bad = never_fits(requests, pool)
        if not bad.any():
            continue
        what = "prompt" if pool.role == "prefill" else "prompt and output"
        limit = f"the KV cache of an instance of pool '{pool.name}' holds {pool.holds_tokens}"
        remedy = "a larger tp or memory_fraction"
        tokens = requests.prompt_tokens
        if pool.longest_prompt < pool.holds_tokens and _too_long_a_step(requests, pool).any():
            bad, what = _too_long_a_step(requests, pool), "prompt"
            limit = f"pool '{pool.name}' computes whole prompts of at most {pool.longest_prompt}"
            remedy = "`chunked: true` or a larger max_num_batched_tokens"
        elif pool.role != "prefill":
            tokens = tokens + requests.output_tokens
        raise Problem(
            ("workload", "on_too_long"),
            f"{int(bad.sum())} of {len(requests)} requests can never be served: the longest has "
            f"{int(tokens[bad].max())} tokens ({what}), and {limit}; allowed: shorter requests, "
            f"{remedy}, or `on_too_long: reject` to reject these.",
        )
