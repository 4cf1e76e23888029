"""What a closed-loop client sees of colocated instances, without simulating.

The client keeps ``c`` requests in flight and opens with all of them at once, as benchmark clients
do. Its mean TTFT mixes two worlds: the opening burst, whose prompts queue for one another, and the
steady state after it, where a request is prefilled at once in a step of its own. Valid for lengths
that vary by ten per cent or more: with fixed lengths requests phase-lock and move in waves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulator.analysis.bounds import ClientEstimate
from simulator.analysis.capacity import colocated_capacity, colocated_steps
from simulator.analysis.demand import Demand
from simulator.analysis.rates import Cluster
from simulator.analysis.steps import FloatArray, StepTimes
from simulator.analysis.windows import read_back
from simulator.perf.table import AttentionGroupPlan
from simulator.scenario.deployment import PoolPlan

ROUNDS = 30
"""Iterations of the fixed point; each halves its error."""

MOST_STEPS = 200
"""Steps that may pass while a request is on its way; beyond them its phase does not matter."""


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
    # what an attention rank has in flight; the others are its like
    each = concurrency / (pool.instances * times.ranks)
    front_s = cluster.deployment.router_latency_s
    most = colocated_capacity(pool, times, demand, None).batch / times.ranks
    batch = each
    for _ in range(ROUNDS):
        cycle = _cycle(pool, times, demand, batch, each, front_s)
        # Little's law: the share of a cycle that is decoding is the share of requests that decode
        decoding = each * demand.mean_steps * cycle.tpot_s / cycle.total_s(demand.mean_steps)
        batch = 0.5 * (batch + min(decoding, most))
    if decoding > most:
        saturated = colocated_capacity(pool, times, demand, None)
        rate = saturated.rate_rps * pool.instances
        return ClientEstimate(rate, saturated.step_s, None, None, None)
    burst_s = front_s + _burst_s(pool, times, demand, each)
    share = min(1.0, concurrency / len(demand))
    return ClientEstimate(
        rate_rps=concurrency / cycle.total_s(demand.mean_steps),
        tpot_s=cycle.tpot_s,
        ttft_steady_s=cycle.ttft_s,
        ttft_burst_s=burst_s,
        ttft_s=(1.0 - share) * cycle.ttft_s + share * burst_s,
    )


@dataclass(frozen=True, slots=True)
class _Cycle:
    """From one request of a slot to the next, in steady state."""

    ttft_s: float
    tpot_s: float

    def total_s(self, steps: float) -> float:
        return self.ttft_s + steps * self.tpot_s


def _cycle(
    pool: PoolPlan, times: StepTimes, demand: Demand, batch: float, each: float, front_s: float
) -> _Cycle:
    """What a request sees while ``batch`` sequences decode."""
    budget = float(pool.max_num_batched_tokens)
    at = np.array([max(batch, 1.0)])  # it is one of them
    steps = colocated_steps(times, demand, at, budget)
    mixed_s, plain_s = float(steps.mixed_s[0]), float(steps.plain_s[0])
    # a request does not meet its own prefill while it decodes, nor when it comes back
    others = 1.0 - 1.0 / max(each, 1.0)
    share = others * float(steps.share[0])
    chunks = max(1.0, demand.mean_prompt / max(budget - each, 1.0))
    wait_s = others * overshoot_s(front_s, mixed_s, plain_s, share)
    own_s = _own_steps_s(times, demand, at, chunks)
    return _Cycle(front_s + wait_s + own_s, plain_s + share * (mixed_s - plain_s))


def overshoot_s(front_s: float, mixed_s: float, plain_s: float, share: float) -> float:
    """Mean time from ``front_s`` after a step boundary to the next boundary [s].

    The request before it ended at a boundary; the next one is ``front_s`` on its way and then waits
    for the running step. Steps are drawn independently, a fraction ``share`` of them mixed: the
    overshoot of a renewal process, summed over the numbers of mixed and plain steps passed.
    """
    if front_s <= 0.0:
        return 0.0
    total, row = 0.0, {0: 1.0}  # plain steps so far -> probability, for a number of mixed steps
    for mixed in range(MOST_STEPS):
        following: dict[int, float] = {}
        for plain in range(MOST_STEPS):
            p = row.get(plain, 0.0)
            left = front_s - mixed * mixed_s - plain * plain_s
            if p == 0.0:
                continue
            if left <= 0.0:
                total -= p * left
                continue
            row[plain + 1] = row.get(plain + 1, 0.0) + (1.0 - share) * p
            following[plain] = share * p
        if not following:
            break
        row = following
    return total


def _own_steps_s(times: StepTimes, demand: Demand, batch: FloatArray, chunks: float) -> float:
    """Steps that prefill a request of the steady state, with those admitted beside it [s]."""
    others = np.maximum(batch - 1.0, 0.0)
    prompts = (1.0 + others / demand.mean_steps) / chunks
    groups = times.table.groups
    return chunks * float(
        times.mixed_s(
            batch=others,
            reads=tuple(others * n for n in demand.mean_reads(groups)),
            new=prompts * demand.mean_prompt,
            pairs=tuple(prompts * n for n in demand.mean_prompt_pairs(groups)),
            read=tuple(prompts * read_back(g, demand.mean_prompt, chunks) for g in groups),
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
    groups = times.table.groups
    step_s = float(
        times.mixed_s(
            batch=decoding,
            reads=tuple(decoding * _context(g, demand.mean_prompt) for g in groups),
            new=new,
            pairs=tuple(prompts * n for n in demand.mean_prompt_pairs(groups)),
            read=tuple(new for _ in groups),
            chunks=prompts + 1.0,
            rows=decoding + prompts,
        )
    )
    return step_s * (steps + 1.0) / 2.0


def _context(group: AttentionGroupPlan, context: float) -> float:
    """Tokens a sequence of ``context`` tokens reads."""
    return context if group.span is None else float(group.reads(max(1, round(context))))
