"""``analyze``: capacities against the offered rate, pool by pool and link by link."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.analysis.bounds import (
    Bottleneck,
    Bounds,
    ClientEstimate,
    LinkBound,
    Peak,
    PoolBound,
)
from simulator.analysis.client import client_estimate
from simulator.analysis.demand import Demand
from simulator.analysis.empty import best_case
from simulator.analysis.rates import Cluster, Rates
from simulator.analysis.verdict import verdict
from simulator.scenario import Scenario, never_fits
from simulator.scenario.deployment import Deployment, PoolPlan
from simulator.workload import Requests

MARGIN = 0.02
"""Least relative margin around load 1 within which no verdict is given: a fluid limit ignores
rounding of batches to whole sequences and of work to whole steps."""

KV_MARGIN = 0.15
"""Margin below load 1 where KV capacity binds: preempted sequences recompute their KV, which a
fluid limit does not see. Saturated simulations of the bundled scenarios lose 3 to 13 % to it."""


class TpotTarget(Protocol):
    """The part of an SLO that bounds depend on."""

    @property
    def tpot_s(self) -> float | None:
        """Largest time per output token [s]; None if there is no such target."""
        ...


def binding_tpot_s(slo: TpotTarget, requests: Requests) -> float | None:
    """The TPOT that sequences decoding together must keep so that enough of them meet theirs [s].

    One target for all: that. With targets of classes: all sequences of a batch have about one TPOT,
    so of the targets the largest that still satisfies the share of requests wanted. None if classes
    without a TPOT target are enough.

    Args:
        slo: targets; those of classes and the share wanted are read where it has them.
        requests: the workload, whose shares of classes count.
    """
    classes = getattr(slo, "classes", {})
    if not classes or not requests.classes:
        return slo.tpot_s
    wanted = float(getattr(slo, "attainment", 1.0))
    limit = {name: getattr(classes.get(name, slo), "tpot_s", None) for name in requests.classes}
    shares = requests.class_shares()
    most = sorted(requests.classes, key=lambda name: -(limit[name] or math.inf))
    met = np.cumsum([shares[name] for name in most])
    enough = int(np.searchsorted(met, wanted - 1e-12))
    return limit[most[min(enough, len(most) - 1)]]


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
    tpot_s = binding_tpot_s(slo, requests) if slo else None
    return _Analysis(deployment, requests, tpot_s).bounds(target_load, window_s)


class _Analysis:
    """One deployment against one workload."""

    def __init__(self, deployment: Deployment, requests: Requests, tpot_s: float | None) -> None:
        self.deployment = deployment
        self.requests = requests
        self.tpot_s = tpot_s
        self.cluster = Cluster(deployment, tpot_s)
        served = _served(deployment, requests)
        self.arrival_s = requests.arrival_s[served]
        self.demand = Demand.of(deployment, requests).rows(served)
        rate = requests.rate_rps * len(self.demand) / len(requests)
        self.rate = rate if math.isfinite(rate) else None

    def bounds(self, target_load: float, window_s: float | None) -> Bounds:
        rates = self.cluster.rates(self.demand)
        links = tuple(replace(b, load=self.load(b.rate_max_rps)) for b in rates.links)
        pools = tuple(self.pool_bound(p, rates, links, target_load) for p in self.deployment.pools)
        bottleneck = self.bottleneck(rates.limits())
        tpot = self.tpot_bottleneck(rates, pools)
        margin = self.margin()
        low = 1.0 - (max(margin, KV_MARGIN) if bottleneck.limit == "KV capacity" else margin)
        load = bottleneck.load
        close = load is not None and low <= load <= 1.0 + margin
        return Bounds(
            scenario=self.deployment.name,
            mode=self.deployment.mode,
            rate_rps=self.rate,
            pools=pools,
            links=links,
            load=load,
            bottleneck=bottleneck,
            tpot_bottleneck=tpot,
            rate_max_rps=bottleneck.rate_max_rps,
            tpot_rate_max_rps=None if tpot is None else tpot.rate_max_rps,
            target_load=target_load,
            margin=margin,
            too_close_to_call=close,
            best=best_case(self.cluster, self.demand, bool(self.requests.output_tokens.max() > 1)),
            client=self.client(),
            peak=self.peak(window_s),
            stable=load is None or load <= 1.0,
            verdict=verdict(pools, links, bottleneck, tpot, self.tpot_s, close),
        )

    def load(self, rate_max: float) -> float | None:
        """Offered rate over ``rate_max`` [1/s]; None if the offered rate is unknown."""
        if self.rate is None:
            return None
        return self.rate / rate_max if rate_max > 0.0 else math.inf

    def pool_bound(
        self, pool: PoolPlan, rates: Rates, links: tuple[LinkBound, ...], target_load: float
    ) -> PoolBound:
        c, share = rates.capacity[pool.name], rates.share[pool.name]
        load = self.load(rates.pool_rate[pool.name])
        tpot_rate = None if c.tpot_rate_rps is None else pool.instances * c.tpot_rate_rps
        tpot_load = None if tpot_rate is None else self.load(tpot_rate / share)
        stable, target = None, None
        if load is not None:
            nics = [b.load for b in links if b.pool == pool.name and b.load is not None]
            stable = _needed(pool, max(load, *nics, 0.0), 1.0)
            target = _needed(pool, max(load, *nics, tpot_load or 0.0), target_load)
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

    def bottleneck(self, limits: Iterable[tuple[str, str, float]]) -> Bottleneck:
        """The resource with the lowest largest rate, which is the one with the highest load."""
        resource, limit, rate = min(limits, key=lambda entry: entry[2])
        return Bottleneck(resource, limit, self.load(rate), rate)

    def tpot_bottleneck(self, rates: Rates, pools: tuple[PoolBound, ...]) -> Bottleneck | None:
        if self.tpot_s is None:
            return None
        within = [
            (p.name, "TPOT target", p.tpot_rate_max_rps / p.share)
            for p in pools
            # where the target does not bind, the physical limit is named
            if p.tpot_rate_max_rps is not None and p.tpot_rate_max_rps < p.rate_max_rps
        ]
        return self.bottleneck([*rates.limits(), *within])

    def margin(self) -> float:
        """Two standard errors of a load estimated from this sample, relative; at least ``MARGIN``.

        A load is the work that arrived in a time: its relative variance is that of a renewal-reward
        sum, ``(c²_interarrival + c²_work)/n``. A replayed trace is what it is: no sampling error.
        """
        if self.rate is None or not self.requests.stationary:
            return MARGIN
        gaps = np.diff(self.requests.arrival_s)
        scv = float(gaps.var() / gaps.mean() ** 2) + self.demand.scv()
        return max(MARGIN, 2.0 * math.sqrt(scv / len(self.demand)))

    def client(self) -> ClientEstimate | None:
        """What the closed-loop client will measure, if it is one."""
        client = self.requests.closed_loop
        if client is None:
            return None
        return client_estimate(self.cluster, self.demand, client.concurrency)

    def peak(self, window_s: float | None) -> Peak | None:
        """Highest load over windows of the workload, if it is not stationary."""
        if self.requests.stationary or self.rate is None:
            return None
        arrival = self.arrival_s
        start, span = float(arrival[0]), float(arrival[-1] - arrival[0])
        width = min(span, window_s or max(min(60.0, span / 20.0), span / 500.0))
        windows = max(1, math.ceil(span / width * (1.0 - 1e-9)))
        # the last window ends with the workload and is as long as the others
        starts = np.minimum(start + width * np.arange(windows), start + span - width)
        first = np.searchsorted(arrival, starts)
        last = np.searchsorted(arrival, starts + width, side="right")
        loads = [
            self._window(int(i), int(j), width) for i, j in zip(first, last, strict=True) if j > i
        ]
        load, resource = max(loads)
        at = starts[last > first][loads.index((load, resource))]
        over = sum(value > 1.0 for value, _ in loads) / windows
        return Peak(width, windows, load, resource, float(at), over)

    def _window(self, first: int, last: int, width_s: float) -> tuple[float, str]:
        rates = self.cluster.rates(self.demand.rows(slice(first, last)))
        resource, _, most = min(rates.limits(), key=lambda entry: entry[2])
        return (last - first) / width_s / most, resource


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
