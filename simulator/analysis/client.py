"""What a closed-loop client sees of colocated instances, without simulating.

The client keeps ``c`` requests in flight and opens with all of them at once, as benchmark clients
do. Its mean TTFT mixes two worlds: the opening burst, whose prompts queue for one another, and the
steady state after it, where a request is prefilled at once in a step of its own. That holds while
lengths vary enough for requests to drift apart; where they catch up with one another instead they
are followed one by one (``simulator.analysis.waves``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from simulator.analysis.bounds import ClientEstimate
from simulator.analysis.capacity import reserves
from simulator.analysis.colocated import (
    colocated_capacity,
    colocated_steps,
    pauses,
    prefill_steps_s,
    whole,
)
from simulator.analysis.demand import Demand
from simulator.analysis.rates import Cluster
from simulator.analysis.steps import FloatArray, StepTimes
from simulator.analysis.waves import waves
from simulator.analysis.windows import read_back
from simulator.perf.table import AttentionGroupPlan
from simulator.scenario.deployment import PoolPlan

ROUNDS = 30
"""Iterations of the fixed point; each halves its error."""

MOST_STEPS = 200
"""Steps that may pass while a request is on its way; beyond them its phase does not matter."""


CLOSE = 0.25
"""Time away over the spread of decode times from which requests catch up with one another."""

NORMAL = (-1.47, -0.85, -0.5, -0.24, 0.0, 0.24, 0.5, 0.85, 1.47)
"""Means of the ninths of a normal variable, about."""


def client_estimate(cluster: Cluster, demand: Demand, concurrency: int) -> ClientEstimate | None:
    """Rate, TPOT and TTFT of a closed-loop client; None unless one colocated pool decodes.

    None as well with attention ranks in lock-step: a prompt on one holds up all others, and prompts
    may wait for one another (``attention_balance``), neither of which is in the form.

    Args:
        cluster: the deployment.
        demand: all requests the client sends.
        concurrency: requests in flight over all instances.
    """
    pools = cluster.deployment.pools
    if len(pools) != 1 or pools[0].role != "colocated" or demand.mean_steps < 1.0:
        return None
    pool, times = pools[0], cluster.times[pools[0].name]
    if times.ranks > 1:
        return None
    each = concurrency / pool.instances
    front_s = cluster.deployment.router_latency_s
    most = colocated_capacity(pool, times, demand, None).batch
    burst_s = front_s + _burst_s(pool, times, demand, each)
    batch, crowd = each, 1.0
    for _ in range(ROUNDS):
        cycle = _cycle(pool, times, demand, (batch, each), front_s, crowd)
        spread = 2.0 * (burst_s - front_s) / cycle.total_s(demand.mean_steps)
        crowd = crowding(demand.steps_cv, len(demand) / concurrency - 1.0, spread)
        # Little's law: the share of a cycle that is decoding is the share of requests that decode
        decoding = each * demand.mean_steps * cycle.tpot_s / cycle.total_s(demand.mean_steps)
        batch = 0.5 * (batch + min(decoding, most))
    share = min(1.0, concurrency / len(demand))
    if decoding > most:
        return _saturated(pool, times, demand, each)
    if catches_up(cycle.ttft_s, cycle.tpot_s, demand) and 1.0 < each < len(demand):
        if pool.instances > 1 or (
            whole(pool) and demand.prompt.max() > pool.max_num_batched_tokens
        ):
            return None
        found = waves(pool, demand, concurrency, front_s)
        cycle, burst_s = _Cycle(found.ttft_steady_s, found.tpot_s), found.ttft_burst_s
    return ClientEstimate(
        rate_rps=concurrency / cycle.total_s(demand.mean_steps),
        tpot_s=cycle.tpot_s,
        ttft_steady_s=cycle.ttft_s,
        ttft_burst_s=burst_s,
        ttft_s=(1.0 - share) * cycle.ttft_s + share * burst_s,
    )


def catches_up(ttft_s: float, tpot_s: float, demand: Demand) -> bool:
    """Whether a request is away so long that those which end after it catch up with it.

    It is when the time of its way and its prefill is comparable to the spread of the times that
    requests decode, ``CLOSE`` of their standard deviation: returns then are no longer independent
    of one another, and the loop moves in waves.
    """
    return ttft_s > CLOSE * demand.steps_cv * demand.mean_steps * tpot_s


def _saturated(pool: PoolPlan, times: StepTimes, demand: Demand, each: float) -> ClientEstimate:
    """More in flight than can run: the rate is the largest, and Little's law gives the wait.

    Where blocks are reserved whole, the head of the queue waits until all of its own are free, and
    half of them are idle on average. TTFT is withheld where KV runs out and sequences are evicted:
    recomputing them costs a part of the rate that fluid limits do not see, and the wait is a
    difference of large numbers.
    """
    full = colocated_capacity(pool, times, demand, None)
    if full.limit == "KV capacity":
        if not reserves(pool):
            rate = full.rate_rps * pool.instances
            return ClientEstimate(rate, full.step_s, None, None, None)
        idle = float(demand.reserved_blocks(pool.block_tokens, pool.table.groups).mean()) / 2.0
        less = replace(pool, capacity_blocks=max(1, round(pool.capacity_blocks - idle)))
        full = colocated_capacity(less, times, demand, None)
    wait_s = each / full.rate_rps - demand.mean_steps * full.step_s
    return ClientEstimate(full.rate_rps * pool.instances, full.step_s, wait_s, None, wait_s)


@dataclass(frozen=True, slots=True)
class _Cycle:
    """From one request of a slot to the next, in steady state."""

    ttft_s: float
    tpot_s: float

    def total_s(self, steps: float) -> float:
        return self.ttft_s + steps * self.tpot_s


def _cycle(
    pool: PoolPlan,
    times: StepTimes,
    demand: Demand,
    load: tuple[float, float],
    front_s: float,
    crowd: float,
) -> _Cycle:
    """What a request sees: of ``load`` in flight (the second number) so many decode (the first)."""
    batch, each = load
    at = np.array([max(batch, 1.0)])  # it is one of them
    steps = colocated_steps(pool, times, demand, at)
    mixed_s, plain_s = float(steps.mixed_s[0]), float(steps.plain_s[0])
    # a request does not meet its own prefill while it decodes, nor when it comes back
    others = 1.0 - 1.0 / max(each, 1.0)
    share = others * float(steps.share[0])
    step_s = plain_s + share * (mixed_s - plain_s)
    near = min(1.0, crowd * share)  # when it comes back others do as well
    if pauses(pool):  # prompts are steps of their own, before the decode step
        mixed_s -= plain_s
        near, share = near / (1.0 + near), share / (1.0 + share)
    wait_s = others * float(
        np.mean([overshoot_s(front_s, mixed_s, p, near) for p in _plain_s(times, demand, at)])
    )
    if pool.overlap:  # the step after the running one is scheduled already
        wait_s += others * (plain_s + near * (mixed_s - plain_s))
    # the step under way, met at a random moment, is longer than the mean; who else comes during it
    # is served beside the request, or half of them before it
    mean_s = plain_s + share * (mixed_s - plain_s)
    met_s = (share * mixed_s**2 + (1.0 - share) * plain_s**2) / mean_s
    rate_rps = others * at[0] / (demand.mean_steps * step_s)
    beside = float(crowd * rate_rps * met_s)
    own_s = _own_steps_s(pool, times, demand, at, beside, each)
    return _Cycle(front_s + wait_s + own_s, step_s)


def crowding(cv: float, generations: float, spread: float) -> float:
    """How many more requests come back around the same time than if they came evenly: a factor.

    All begin together, within a share ``spread`` of a cycle, and drift apart as their lengths
    differ: after k cycles their phases are spread by ``σ² = k·cv² + spread²/12``, and a request
    meets ``∫ f² = 1 + 2 Σ_j exp(-(2πjσ)²)`` times the even density of a wrapped normal ``f``.

    Args:
        cv: standard deviation of a request's decode steps over their mean.
        generations: requests a slot sends after its first.
        spread: time in which the opening burst is prefilled, over that of a cycle.
    """
    cycles = np.arange(1.0, max(generations, 1.0) + 0.5)
    sigma2 = cycles * cv**2 + spread**2 / 12.0
    j = np.arange(1.0, 40.0)
    terms = np.exp(-np.outer(sigma2, (2.0 * math.pi * j) ** 2))
    return 1.0 + 2.0 * float(terms.sum(axis=1).mean())


def _plain_s(times: StepTimes, demand: Demand, at: FloatArray) -> list[float]:
    """Equally likely times of a decode step while a request is away [s].

    The others' contexts add up to more or less, and with them steps are longer or shorter: which
    decides how many of a few steps pass while the request is on its way.
    """
    away = np.maximum(at - 1.0, 1.0)
    groups = times.table.groups
    plain_s = float(times.decode_s(away, tuple(away * n for n in demand.mean_reads(groups)))[0])
    more = [n + (g.span is None) for g, n in zip(groups, demand.mean_reads(groups), strict=True)]
    each_s = float(times.decode_s(away, tuple(away * n for n in more))[0]) - plain_s
    sigma_s = each_s / float(away[0]) * math.sqrt(float(away[0])) * demand.context_std
    return [max(plain_s + z * sigma_s, 0.1 * plain_s) for z in NORMAL]


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


def _own_steps_s(
    pool: PoolPlan, times: StepTimes, demand: Demand, batch: FloatArray, beside: float, each: float
) -> float:
    """Steps that prefill a request of the steady state, with those admitted beside it [s].

    Where one step does not hold all that wait, half of the others come first.
    """
    budget = float(pool.max_num_batched_tokens)
    if pauses(pool):
        return float(prefill_steps_s(times, demand, np.array([1.0 + beside]), budget)[0])
    room = max(budget - each, 1.0)
    others = np.maximum(batch - 1.0, 0.0)
    steps = max(1.0, (1.0 + 0.5 * beside) * demand.mean_prompt / room)
    prompts = min(1.0 + beside, steps * room / demand.mean_prompt) / steps
    chunks = max(1.0, demand.mean_prompt / room)
    groups = times.table.groups
    return steps * float(
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
    decoding = batch if math.ceil(steps) > 1 and not pauses(pool) else 0.0
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
