"""What a closed-loop client sees of colocated instances, without simulating.

The client keeps ``c`` requests in flight and opens with all of them at once, as benchmark clients
do. Its mean TTFT mixes two worlds: the opening burst, whose prompts queue for one another, and the
steady state after it, where a request is prefilled at once in a step of its own. Valid for lengths
that vary by ten per cent or more: with fixed lengths requests phase-lock and move in waves.
"""

from __future__ import annotations

import math

import numpy as np

from simulator.analysis.bounds import ClientEstimate
from simulator.analysis.capacity import colocated_capacity, colocated_steps
from simulator.analysis.demand import Demand
from simulator.analysis.rates import Cluster
from simulator.analysis.steps import FloatArray, StepTimes
from simulator.scenario.deployment import PoolPlan


def client_estimate(cluster: Cluster, demand: Demand, concurrency: int) -> ClientEstimate | None:
    """Rate, TPOT and TTFT of a closed-loop client; None unless one colocated pool decodes.

    Args:
        cluster: the deployment.
        demand: all requests the client sends.
        concurrency: requests in flight over all instances.
    """
    pools = cluster.deployment.pools
    if len(pools) != 1 or pools[0].role != "colocated" or demand.mean_steps < 1.0:
        return None
    pool, times = pools[0], cluster.times[pools[0].name]
    each = concurrency / pool.instances
    budget = float(pool.max_num_batched_tokens)
    front_s = cluster.deployment.router_latency_s
    chunks = max(1.0, demand.mean_prompt / max(budget - each, 1.0))
    others = 1.0 - 1.0 / max(each, 1.0)  # what a request sees of the others' prefills
    # a request is in its slot for its prefill chunks and its decode steps; the client's next
    # request meets the boundary at which the last one ended, unless the router holds it up
    waits = others if front_s > 0.0 else 0.0
    decoding = each * demand.mean_steps / (demand.mean_steps + chunks + 0.5 * waits)
    most = colocated_capacity(pool, times, demand, None).batch
    batch = np.array([min(decoding, most)])
    steps = colocated_steps(times, demand, batch, budget)
    step_s, plain_s = float(steps.mean_s[0]), float(steps.plain_s[0])
    rate = float(batch[0]) / (demand.mean_steps * step_s)
    steady_s, burst_s, mean_s = None, None, None
    if decoding <= most:
        own_s = _own_steps_s(times, demand, batch, chunks)
        steady_s = front_s + waits * float(steps.residual_s[0]) + own_s
        burst_s = front_s + _burst_s(pool, times, demand, each)
        share = min(1.0, concurrency / len(demand))
        mean_s = (1.0 - share) * steady_s + share * burst_s
    tpot_s = plain_s + others * (step_s - plain_s)
    return ClientEstimate(rate * pool.instances, tpot_s, steady_s, burst_s, mean_s)


def _own_steps_s(times: StepTimes, demand: Demand, batch: FloatArray, chunks: float) -> float:
    """Steps that prefill a request of the steady state, with those admitted beside it [s]."""
    others = np.maximum(batch - 1.0, 0.0)
    prompts = (1.0 + others / demand.mean_steps) / chunks
    return chunks * float(
        times.mixed_s(
            batch=others,
            kv_tokens=others * demand.mean_context,
            new=prompts * demand.mean_prompt,
            pairs=prompts * demand.mean_pairs,
            read=prompts * demand.mean_prompt * (chunks + 1.0) / 2.0,
            chunks=prompts * chunks,
            rows=others + prompts,
        )[0]
    )


def _burst_s(pool: PoolPlan, times: StepTimes, demand: Demand, each: float) -> float:
    """Mean TTFT of ``each`` requests that arrive together at an idle instance [s].

    Full steps follow one another while half of the requests, on average, decode already; a request
    ends its prefill in one of them, uniformly.
    """
    batch = each / 2.0
    room = max(float(pool.max_num_batched_tokens) - batch, 1.0)
    new = min(room, each * demand.mean_prompt)
    prompts = new / demand.mean_prompt
    steps = max(1.0, each * demand.mean_prompt / room)
    decoding = batch if math.ceil(steps) > 1 else 0.0
    step_s = float(
        times.mixed_s(
            batch=decoding,
            kv_tokens=decoding * demand.mean_prompt,
            new=new,
            pairs=prompts * demand.mean_pairs,
            read=new,
            chunks=prompts + 1.0,
            rows=decoding + prompts,
        )
    )
    return step_s * (steps + 1.0) / 2.0
