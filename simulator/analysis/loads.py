"""``analyze``: capacities against the offered rate, pool by pool and link by link."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.analysis.bounds import BestCase, Bottleneck, Bounds, LinkBound, Peak, PoolBound
from simulator.analysis.capacity import (
    Capacity,
    colocated_capacity,
    decode_capacity,
    prefill_capacity,
)
from simulator.analysis.demand import Demand
from simulator.analysis.network import lone_exposed_s, mean_nic_seconds
from simulator.analysis.steps import StepTimes
from simulator.analysis.verdict import verdict
from simulator.scenario import Scenario, never_fits
from simulator.scenario.deployment import Deployment, LinkPlan, PoolPlan
from simulator.workload import Requests

MARGIN = 0.02
"""Least relative margin around load 1 within which no verdict is given: a fluid limit ignores
rounding of batches to whole sequences and of work to whole steps."""


class TpotTarget(Protocol):
    """The part of an SLO that bounds depend on."""

    @property
    def tpot_s(self) -> float | None:
        """Largest time per output token [s]; None if there is no such target."""
        ...


def analyze(
    scenario: Scenario | Deployment,
    requests: Requests | None = None,
    *,
    slo: TpotTarget | None = None,
    seed: int | None = None,
    target_load: float = 0.8,
    window_s: float | None = None,
) -> Bounds:
    """Loads, first bottleneck, instances needed and best latencies, without simulating.

    Args:
        scenario: a scenario, or a resolved deployment (then ``requests`` is needed).
        requests: the workload; by default the scenario's own, with ``seed``.
        slo: latency targets; by default the scenario's own. Only the TPOT target matters here.
        seed: seed of the scenario's workload; by default the scenario's own.
        target_load: load that "instances needed" aims at, above 0 and at most 1.
        window_s: window for the peak load of a workload that is not stationary [s]; by default
            60 s or 1/20 of the workload, whichever is less, but at least 1/500 of it.
    """
    if not 0.0 < target_load <= 1.0:
        raise ValueError(f"target_load must be above 0 and at most 1, found {target_load}")
    if isinstance(scenario, Deployment):
        if requests is None:
            raise TypeError("analyze(deployment) needs the requests offered to it")
        deployment = scenario
    else:
        deployment = scenario.deployment()
        requests = scenario.requests(seed) if requests is None else requests
        slo = scenario.slo if slo is None else slo
    return _Analysis(deployment, requests, slo.tpot_s if slo else None).bounds(
        target_load, window_s
    )


@dataclass(frozen=True, slots=True)
class _Loads:
    """Capacities and shares for one set of requests; rates are deployment-wide."""

    capacity: Mapping[str, Capacity]
    share: Mapping[str, float]
    pool_rate: Mapping[str, float]
    links: tuple[LinkBound, ...]

    def limits(self) -> Iterator[tuple[str, str, float]]:
        """(resource, limit, largest deployment-wide rate) of every pool and link."""
        for name, rate in self.pool_rate.items():
            yield name, self.capacity[name].limit, rate
        for link in self.links:
            yield link.pool or link.name, link.side, link.rate_max_rps


class _Analysis:
    """One deployment against one workload."""

    def __init__(self, deployment: Deployment, requests: Requests, tpot_s: float | None) -> None:
        self.deployment = deployment
        self.requests = requests
        self.tpot_s = tpot_s
        served = _served(deployment, requests)
        self.arrival_s = requests.arrival_s[served]
        self.demand = Demand.of(deployment, requests).rows(served)
        self.times = {p.name: StepTimes(p.table) for p in deployment.pools}
        rate = requests.rate_rps * len(self.demand) / len(requests)
        self.rate = rate if math.isfinite(rate) else None

    def bounds(self, target_load: float, window_s: float | None) -> Bounds:
        loads = self.loads(self.demand)
        links = tuple(self._with_load(link) for link in loads.links)
        pools = tuple(self.pool_bound(p, loads, links, target_load) for p in self.deployment.pools)
        bottleneck = self.bottleneck(loads.limits())
        tpot = self.tpot_bottleneck(loads, pools)
        best = self.best_case()
        peak = self.peak(window_s)
        margin = self.margin()
        return Bounds(
            scenario=self.deployment.name,
            mode=self.deployment.mode,
            rate_rps=self.rate,
            pools=pools,
            links=links,
            load=bottleneck.load,
            bottleneck=bottleneck,
            tpot_bottleneck=tpot,
            rate_max_rps=bottleneck.rate_max_rps,
            tpot_rate_max_rps=None if tpot is None else tpot.rate_max_rps,
            target_load=target_load,
            margin=margin,
            best=best,
            peak=peak,
            stable=bottleneck.load is None or bottleneck.load <= 1.0,
            verdict=verdict(pools, links, bottleneck, tpot, self.tpot_s, margin),
        )

    # ------------------------------------------------------------------ capacities

    def loads(self, demand: Demand) -> _Loads:
        """Capacities of every pool and link for these requests."""
        capacity = {p.name: self.capacity(p, demand) for p in self.deployment.pools}
        share = self.shares(capacity)
        pool_rate = {
            p.name: p.instances * capacity[p.name].rate_rps / share[p.name]
            for p in self.deployment.pools
        }
        return _Loads(capacity, share, pool_rate, tuple(self.link_bounds(share, demand)))

    def capacity(self, pool: PoolPlan, demand: Demand) -> Capacity:
        times = self.times[pool.name]
        if pool.role == "colocated":
            return colocated_capacity(pool, times, demand, self.tpot_s)
        if pool.role == "prefill":
            return prefill_capacity(pool, times, demand, self.least_exposed_s(pool, demand))
        link = self.deployment.link
        hold_s = self.least_exposed_s(pool, demand) + (link.base_latency_s if link else 0.0)
        if self.deployment.reserve == "before_prefill":
            hold_s += min(
                self.prefill_s(p, demand.mean_prompt) for p in self.deployment.role("prefill")
            )
        return decode_capacity(pool, times, demand, hold_s, self.decode_target_s(demand))

    def decode_target_s(self, demand: Demand) -> float | None:
        """Mean decode step that meets the TPOT target [s].

        With ``first_token: prefill`` the gap between tokens 1 and 2 also holds the transfer, which
        is spread over all gaps.
        """
        link = self.deployment.link
        if self.tpot_s is None or link is None or self.deployment.first_token != "prefill":
            return self.tpot_s
        gap_s = link.base_latency_s + min(
            self.least_exposed_s(p, demand) for p in self.deployment.role("decode")
        )
        return self.tpot_s - gap_s / max(demand.mean_steps, 1.0)

    def prefill_s(self, pool: PoolPlan, prompt: float) -> float:
        """A prompt alone on an instance of ``pool``: whole, or in chunks where colocated [s]."""
        tokens = round(prompt)
        chunk = pool.max_num_batched_tokens if pool.role == "colocated" else tokens
        return self.times[pool.name].lone_prefill_s(tokens, chunk)

    def paths(self) -> list[tuple[PoolPlan, PoolPlan]]:
        """Every pair of a prefill and a decode pool."""
        d = self.deployment
        return [(s, t) for s in d.role("prefill") for t in d.role("decode")]

    def least_exposed_s(self, pool: PoolPlan, demand: Demand) -> float:
        """Shortest time between prefill and the last byte of a mean prompt, to or from ``pool`` [s]."""
        link, prompt = self.deployment.link, demand.mean_prompt
        if link is None:
            return 0.0
        return min(
            lone_exposed_s(self.deployment, link, path, prompt, self.prefill_s(path[0], prompt))
            for path in self.paths()
            if pool in path
        )

    def shares(self, capacity: Mapping[str, Capacity]) -> dict[str, float]:
        """Fraction of the requests each pool of a role gets.

        ``round_robin`` and ``random`` give every instance the same; ``least_outstanding_tokens``
        balances work, so shares follow capacity.
        """
        out: dict[str, float] = {}
        for role in ("prefill", "decode", "colocated"):
            pools = [p for p in self.deployment.pools if p.role == role]
            router = (
                self.deployment.decode_router
                if role == "decode"
                else self.deployment.prefill_router
            )
            weight = {p.name: float(p.instances) for p in pools}
            if router == "least_outstanding_tokens":
                by_rate = {n: w * capacity[n].rate_rps for n, w in weight.items()}
                weight = by_rate if all(map(math.isfinite, by_rate.values())) else weight
            total = sum(weight.values())
            out.update({name: w / total for name, w in weight.items()})
        return out

    def link_bounds(self, share: Mapping[str, float], demand: Demand) -> Iterator[LinkBound]:
        """Egress of each prefill pool, ingress of each decode pool, and the spine (no loads yet)."""
        link = self.deployment.link
        if link is None:
            return

        def side(name: str, pool: PoolPlan) -> LinkBound:
            work = sum(
                share[s.name]
                * share[t.name]
                * mean_nic_seconds(self.deployment, link, (s, t), demand)
                for s, t in self.paths()
                if pool in (s, t)
            )
            rate = pool.instances * pool.nics / work if work > 0.0 else math.inf
            return LinkBound(link.name, name, pool.name, rate, None)

        for pool in self.deployment.role("prefill"):
            yield side("egress", pool)
        for pool in self.deployment.role("decode"):
            yield side("ingress", pool)
        # messages occupy the spine as they do the NICs they come from
        busy_s = sum(
            share[s.name] * share[t.name] * mean_nic_seconds(self.deployment, link, (s, t), demand)
            for s, t in self.paths()
        )
        size = busy_s * link.nic_bytes_per_s
        spine = link.spine_bytes_per_s / size if size > 0.0 else math.inf
        yield LinkBound(link.name, "spine", None, spine, None)

    # ------------------------------------------------------------------ loads

    def load(self, rate_max: float) -> float | None:
        if self.rate is None:
            return None
        return self.rate / rate_max if rate_max > 0.0 else math.inf

    def _with_load(self, b: LinkBound) -> LinkBound:
        return LinkBound(b.name, b.side, b.pool, b.rate_max_rps, self.load(b.rate_max_rps))

    def pool_bound(
        self, pool: PoolPlan, loads: _Loads, links: tuple[LinkBound, ...], target_load: float
    ) -> PoolBound:
        c, share = loads.capacity[pool.name], loads.share[pool.name]
        load = self.load(loads.pool_rate[pool.name])
        tpot_rate = None if c.tpot_rate_rps is None else pool.instances * c.tpot_rate_rps
        tpot_load = None if tpot_rate is None else self.load(tpot_rate / share)
        nics = [b.load for b in links if b.pool == pool.name and b.load is not None]
        stable = None if load is None else _needed(pool, max([load, *nics]), 1.0)
        target = None
        if load is not None:
            target = _needed(pool, max([load, tpot_load or 0.0, *nics]), target_load)
        return PoolBound(
            name=pool.name,
            role=pool.role,
            instances=pool.instances,
            share=share,
            rate_max_rps=pool.instances * c.rate_rps,
            limit=c.limit,
            batch=c.batch,
            step_s=c.step_s,
            load=load,
            tpot_rate_max_rps=tpot_rate,
            tpot_batch=c.tpot_batch,
            tpot_load=tpot_load,
            instances_stable=stable,
            instances_target=target,
        )

    def bottleneck(self, limits: Iterator[tuple[str, str, float]]) -> Bottleneck:
        """The resource with the lowest largest rate, which is the one with the highest load."""
        resource, limit, rate = min(limits, key=lambda entry: entry[2])
        return Bottleneck(resource, limit, self.load(rate), rate)

    def tpot_bottleneck(self, loads: _Loads, pools: tuple[PoolBound, ...]) -> Bottleneck | None:
        if self.tpot_s is None:
            return None
        within = [
            (p.name, "TPOT target", p.tpot_rate_max_rps / p.share)
            for p in pools
            # where the target does not bind, the physical limit is named
            if p.tpot_rate_max_rps is not None and p.tpot_rate_max_rps < p.rate_max_rps
        ]
        return self.bottleneck(iter([*loads.limits(), *within]))

    def margin(self) -> float:
        """Two standard errors of a load estimated from this sample, relative; at least ``MARGIN``.

        A load is the work that arrived in a time: its relative variance is that of a renewal-reward
        sum, ``(c²_interarrival + c²_work)/n``. A replayed trace is what it is: no sampling error.
        """
        if self.rate is None or not self.requests.stationary:
            return MARGIN
        gaps = np.diff(self.arrival_s)
        scv = float(gaps.var() / gaps.mean() ** 2) + self.demand.scv()
        return max(MARGIN, 2.0 * math.sqrt(scv / len(self.demand)))

    # ------------------------------------------------------------------ latency and peaks

    def best_case(self) -> BestCase:
        prompt = self.demand.prompt
        context = self.demand.mean_context
        servers = self.deployment.role("decode") or self.deployment.pools
        tpot_s = None
        if self.requests.output_tokens.max() > 1:
            tpot_s = min(self.times[p.name].lone_decode_s(context) for p in servers)
        return BestCase(
            ttft_mean_prompt_s=self.best_ttft_s(float(prompt.mean())),
            ttft_p50_prompt_s=self.best_ttft_s(float(np.median(prompt))),
            tpot_s=tpot_s,
        )

    def best_ttft_s(self, prompt: float) -> float:
        """TTFT of one prompt in an empty system, on the fastest pools [s]."""
        d = self.deployment
        prompt = float(max(1, round(prompt)))
        if d.link is None:
            return d.router_latency_s + min(self.prefill_s(p, prompt) for p in d.pools)
        return d.router_latency_s + min(self._path_s(d.link, path, prompt) for path in self.paths())

    def _path_s(self, link: LinkPlan, path: tuple[PoolPlan, PoolPlan], prompt: float) -> float:
        source, target = path
        prefill_s = self.prefill_s(source, prompt)
        # a batch that is not full waits for company
        wait_s = source.max_wait_s if prompt < source.max_num_batched_tokens else 0.0
        if self.deployment.first_token == "prefill":
            return wait_s + prefill_s
        exposed_s = lone_exposed_s(self.deployment, link, path, prompt, prefill_s)
        step_s = 0.0
        if self.deployment.first_token == "decode":
            step_s = self.times[target.name].lone_decode_s(prompt)
        return wait_s + prefill_s + exposed_s + link.base_latency_s + step_s

    def peak(self, window_s: float | None) -> Peak | None:
        """Highest load over windows of the workload, if it is not stationary."""
        arrival = self.arrival_s
        start, span = float(arrival[0]), float(arrival[-1] - arrival[0])
        if self.requests.stationary or self.rate is None:
            return None
        width = window_s or max(min(60.0, span / 20.0), span / 500.0)
        windows = max(1, math.ceil(span / width))
        edges = np.searchsorted(arrival, start + width * np.arange(windows + 1)).tolist()
        edges[-1] = arrival.size
        best, over = (-1.0, "", 0.0), 0
        for k, (i, j) in enumerate(pairwise(edges)):
            if i == j:
                continue
            loads = self.loads(self.demand.rows(slice(i, j)))
            resource, _, rate_max = min(loads.limits(), key=lambda entry: entry[2])
            load = (j - i) / min(width, span) / rate_max
            over += load > 1.0
            best = max(best, (load, resource, start + k * width))
        return Peak(width, windows, best[0], best[1], best[2], over / windows)


def _served(deployment: Deployment, requests: Requests) -> npt.NDArray[np.bool_]:
    """Requests that fit the KV cache of every pool; the others are rejected.

    All of them if none fits, so that the loads still say what is wrong.
    """
    fits = ~np.logical_or.reduce([never_fits(requests, p) for p in deployment.pools])
    return fits if fits.any() else np.ones_like(fits)


def _needed(pool: PoolPlan, load: float, target: float) -> int | None:
    """Instances that bring ``load`` to at most ``target``, its work unchanged."""
    if not math.isfinite(load):
        return None
    # a hair of tolerance: a load of exactly k/n of the target needs k instances, not k + 1
    return max(1, math.ceil(pool.instances * load / target * (1.0 - 1e-12)))
