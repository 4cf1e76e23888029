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
    return np.asarray(tokens > pool.holds_tokens)


def check_fit(requests: Requests, deployment: Deployment) -> None:
    """Refuse a workload with requests that can never be served.

    Every pool has to hold every request, because a router may choose any instance of a role.

    Raises:
        Problem: how many there are, the longest, and how much an instance holds.
    """
    for pool in deployment.pools:
        bad = never_fits(requests, pool)
        if bad.any():
            holds = pool.holds_tokens
            what = "prompt" if pool.role == "prefill" else "prompt and output"
            tokens = requests.prompt_tokens[bad]
            if pool.role != "prefill":
                tokens = tokens + requests.output_tokens[bad]
            raise Problem(
                ("workload", "on_too_long"),
                f"{int(bad.sum())} of {len(requests)} requests can never be served: the longest "
                f"has {int(tokens.max())} tokens ({what}), and the KV cache of an instance of pool "
                f"'{pool.name}' holds {holds}; allowed: shorter requests, a larger tp or "
                "memory_fraction, or `on_too_long: reject` to reject these.",
            )
