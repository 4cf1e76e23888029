"""Closed-form bounds: what cannot hold in steady state, whatever the draw.

One analysis a family (everything but the numbers of instances); the loads of its members follow by
division, because a pool's largest rate is proportional to its instances and its NICs.

A layout is rejected here only if

1. a pool or a link has a load above 1 beyond the margin (fluid limits are optimistic, so nothing
   can hold the rate; the named stability test says the same);
2. the mean decode step that the rate forces is beyond the TPOT target, also beyond the margin, in
   a stationary workload whose targets nearly everybody must meet: the mean TPOT of all tokens is
   then beyond the target, and it cannot be for a few requests only;
3. in an *empty* system fewer requests than wanted would meet the targets: each alone, prefilled at
   once, its KV sent over an idle link, decoded in a batch of one;
4. a request can never fit the KV cache, and the scenario says that this is an error.

The margin covers the sampling error of the workload's means, and at least 3 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simulator.analysis import analyze
from simulator.analysis.colocated import colocated_steps
from simulator.analysis.demand import Demand
from simulator.analysis.loads import binding_tpot_s
from simulator.analysis.rates import Cluster
from simulator.analysis.steps import FloatArray
from simulator.metrics import limits
from simulator.planner.layout import Layout
from simulator.scenario import SLO, Deployment, PoolPlan, Scenario, never_fits
from simulator.workload import Requests

MARGIN = 0.03
"""Least relative margin beyond load 1 before anything is rejected."""

NEARLY_ALL = 0.9
"""Attainment from which the mean step bounds the TPOT of those who must meet it."""

STEADY_CV = 2.0
"""Burstiness of the arrivals up to which the same holds; beyond it a mean says too little."""

FILL = 0.98
"""Warm-up ends when an empty system has filled to this share of its mean content."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that may bind.

    Attributes:
        resource: pool or link.
        what: ``compute``, ``batch limit``, ``KV capacity``, ``token budget``, ``TPOT target``,
            ``egress``, ``ingress`` or ``spine``.
        load: demand over capacity with one instance per pool.
        scales: position of the pool whose instances divide the load; None for the spine.
    """

    resource: str
    what: str
    load: float
    scales: int | None

    def at(self, counts: tuple[int, ...]) -> float:
        """The load with these numbers of instances."""
        return self.load if self.scales is None else self.load / counts[self.scales]


@dataclass(frozen=True, slots=True)
class FamilyBound:
    """What is known about a family without simulating.

    Attributes:
        limits: loads of pools and links; empty if the arrival rate is unknown.
        tpot: loads within the TPOT target.
        best_share: share of requests that meet the targets in an empty system.
        refusal: why no member can serve the workload at all, or None.
        steps: of a decode or colocated instance, rates [1/s] and the step [s] that sustains each.
        fill_steps: decode steps an empty system takes to fill to ``FILL`` of its mean content.
        mean_steps: decode steps of a request.
        rate_rps: request rate; None if unknown.
        margin: relative margin beyond load 1 before anything is rejected.
    """

    limits: tuple[Limit, ...]
    tpot: tuple[Limit, ...]
    best_share: float
    refusal: str | None
    steps: tuple[FloatArray, FloatArray]
    fill_steps: float
    mean_steps: float
    rate_rps: float | None
    margin: float

    def bottleneck(self, counts: tuple[int, ...]) -> tuple[float | None, str | None]:
        """Highest load of any pool or link, and its name and limit."""
        if not self.limits:
            return None, None
        load, worst = max(((x.at(counts), x) for x in self.limits), key=lambda pair: pair[0])
        return load, f"{worst.resource} ({worst.what})"

    def warm_up_s(self, instances: int) -> tuple[float, float]:
        """Time an empty system takes to fill, and mean time of a request in decode [s].

        A step takes what it takes at the batch that sustains the rate.

        Args:
            instances: decode or colocated instances.
        """
        rate, step_s = self.steps
        if self.rate_rps is None or not rate.size:
            return 0.0, 0.0
        step = float(np.interp(self.rate_rps / instances, rate, step_s))
        return self.fill_steps * step, self.mean_steps * step


def family_bound(
    family: Layout, base: Scenario, requests: Requests, slo: SLO, rate_rps: float | None
) -> FamilyBound:
    """Analyse one family.

    Args:
        family: a layout with one instance per pool.
        base: the scenario planned for.
        requests: a sample of its workload (a trace: all of it).
        slo: the targets.
        rate_rps: the true mean rate; None if there is none (a closed loop).
    """
    deployment = family.scenario(base, slo=slo).deployment()
    found = analyze(deployment, requests, slo=slo)
    # loads are for the sample's own rate; the true one is known
    scale = rate_rps / found.rate_rps if rate_rps and found.rate_rps else None
    found_limits: list[Limit] = []
    tpot: list[Limit] = []
    if scale is not None:
        order = {pool.name: i for i, pool in enumerate(deployment.pools)}
        for bound in found.pools:
            at = order[bound.name]
            found_limits.append(Limit(bound.name, bound.limit, scale * (bound.load or 0.0), at))
            if bound.tpot_load is not None and bound.role != "prefill":
                tpot.append(Limit(bound.name, "TPOT target", scale * bound.tpot_load, at))
        for link in found.links:
            place = order[link.pool] if link.pool else None
            name = link.pool or link.name
            found_limits.append(Limit(name, link.side, scale * (link.load or 0.0), place))
    cluster = Cluster(deployment, binding_tpot_s(slo, requests))
    demand = Demand.of(deployment, requests)
    return FamilyBound(
        limits=tuple(found_limits),
        tpot=tuple(tpot),
        best_share=_best_share(cluster, demand, requests, slo),
        refusal=_refusal(deployment, requests) if _refuses(base) else None,
        steps=_steps(cluster, deployment, demand),
        fill_steps=_fill_steps(demand),
        mean_steps=demand.mean_steps,
        rate_rps=rate_rps,
        margin=_margin(requests),
    )


def rejection(
    bound: FamilyBound, counts: tuple[int, ...], slo: SLO, base: Scenario, sample: Requests
) -> str | None:
    """Why a layout cannot hold in steady state; None if it might.

    Args:
        bound: of its family.
        counts: instances of its pools.
        slo: the targets.
        base: the scenario planned for.
        sample: the requests the bound was made from.
    """
    if bound.refusal is not None:
        return bound.refusal
    margin = bound.margin
    for limit in sorted(bound.limits, key=lambda x: -x.at(counts)):
        load = limit.at(counts)
        if load > 1.0 + margin:
            return f"{limit.resource} is overloaded: load {load:.2f} ({limit.what})"
    if slo.attainment >= NEARLY_ALL and _steady(base):
        for limit in bound.tpot:
            load = limit.at(counts)
            if load > 1.0 + margin:
                return (
                    f"{limit.resource} cannot decode within the TPOT target: "
                    f"{load:.2f} times the rate it holds it at"
                )
    error = 0.0
    if sample.stationary:
        error = 3.0 * math.sqrt(slo.attainment * (1.0 - slo.attainment) / len(sample))
    if bound.best_share + error < slo.attainment:
        return (
            f"even in an empty system {100 * bound.best_share:.1f} % of requests meet the targets"
        )
    return None


def _fill_steps(demand: Demand) -> float:
    """Decode steps after which an empty system holds ``FILL`` of its mean content.

    As in M/G/∞: after ``t`` it holds ``E[min(S, t)]/E[S]`` of it, S the steps of a request.
    """
    stay = np.sort(demand.steps.astype(np.float64))
    total = float(stay.sum())
    if total <= 0.0:
        return 0.0
    below = np.concatenate([[0.0], np.cumsum(stay)[:-1]])
    filled = (below + stay * np.arange(stay.size, 0, -1)) / total
    return float(np.interp(FILL, filled, stay))


def _margin(sample: Requests) -> float:
    """Relative margin beyond load 1: two standard errors of the mean work, at least ``MARGIN``."""
    if not sample.stationary or len(sample) < 2:
        return MARGIN
    scv = max(
        float(tokens.var() / tokens.mean() ** 2)
        for tokens in (sample.prompt_tokens, sample.output_tokens)
    )
    return max(MARGIN, 2.0 * math.sqrt(scv / len(sample)))


def _steady(base: Scenario) -> bool:
    """Whether arrivals are about as regular as a Poisson process, or more so."""
    processes = base.config.workload.processes
    even = (isinstance(p, str) and (cv or 1.0) <= STEADY_CV for p, cv in processes)
    return bool(processes) and all(even)


def _refuses(base: Scenario) -> bool:
    return base.config.workload.on_too_long == "error"


def _refusal(deployment: Deployment, requests: Requests) -> str | None:
    for pool in deployment.pools:
        bad = never_fits(requests, pool)
        if bad.any():
            holds = pool.holds_tokens
            return (
                f"{int(bad.sum())} of {len(requests)} requests can never fit an instance of "
                f"{pool.name}, which holds {holds} tokens and computes prompts of up to "
                f"{pool.longest_prompt}"
            )
    return None


def _best_share(cluster: Cluster, demand: Demand, requests: Requests, slo: SLO) -> float:
    """Share of requests that meet every target in an empty system."""
    met = np.ones(len(demand), dtype=bool)
    ttft_s, tpot_s = limits(slo, requests.classes, requests.class_index, len(demand))
    for target in np.unique(ttft_s[np.isfinite(ttft_s)]):
        late = demand.prompt > _longest_prompt(cluster, demand, float(target))
        met &= ~(late & (ttft_s == target))
    if np.isfinite(tpot_s).any():
        servers = [p for p in cluster.deployment.pools if p.role != "prefill"]
        steps = [cluster.times[p.name].alone_s(demand.reads_each(p.table.groups)) for p in servers]
        step_s = np.min(steps, axis=0)
        met &= (requests.output_tokens <= 1) | (step_s <= tpot_s)
    return float(met.mean())


def _longest_prompt(cluster: Cluster, demand: Demand, ttft_s: float) -> float:
    """Longest sampled prompt whose TTFT in an empty system is within a target; 0 if none is."""
    prompts = np.unique(demand.prompt)
    low, high = 0, prompts.size
    while low < high:  # the best case grows with the prompt
        middle = (low + high) // 2
        if _lone_ttft_s(cluster, float(prompts[middle])) <= ttft_s:
            low = middle + 1
        else:
            high = middle
    return float(prompts[low - 1]) if low else 0.0


def _lone_ttft_s(cluster: Cluster, prompt: float) -> float:
    """TTFT of one prompt alone, with nobody to wait for [s]."""
    d = cluster.deployment
    if d.link is None:
        return d.router_latency_s + min(cluster.prefill_s(p, prompt) for p in d.pools)
    path = cluster.paths[0]
    total_s = d.router_latency_s + cluster.prefill_s(path[0], prompt)
    if d.first_token != "prefill":
        total_s += cluster.exposed_s(path, prompt) + d.link.base_latency_s
    if d.first_token == "decode":
        total_s += cluster.times[path[1].name].lone_decode_s(prompt)
    return total_s


def _steps(
    cluster: Cluster, deployment: Deployment, demand: Demand
) -> tuple[FloatArray, FloatArray]:
    """Rate an instance completes with 1, 2, 3, … decoding sequences [1/s], and the step [s]."""
    if demand.mean_steps <= 0.0:
        return np.empty(0), np.empty(0)
    pool: PoolPlan = next(p for p in deployment.pools if p.role != "prefill")
    batch = np.arange(1.0, pool.max_num_seqs + 1.0)
    times = cluster.times[pool.name]
    if pool.role == "colocated":
        step_s = colocated_steps(pool, times, demand, batch).mean_s
    else:
        groups = pool.table.groups
        step_s = times.decode_s(batch, tuple(batch * n for n in demand.mean_reads(groups)))
    rate = np.maximum.accumulate(times.ranks * batch / (demand.mean_steps * step_s))
    return rate, np.asarray(step_s)
