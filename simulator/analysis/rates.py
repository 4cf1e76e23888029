"""Largest sustainable rates of every pool and link of a deployment, for a set of requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from simulator.analysis.bounds import LinkBound
from simulator.analysis.capacity import Capacity, decode_capacity, prefill_capacity
from simulator.analysis.colocated import colocated_capacity
from simulator.analysis.demand import Demand
from simulator.analysis.network import lone_exposed_s, mean_nic_seconds
from simulator.analysis.steps import StepTimes
from simulator.scenario.deployment import Deployment, PoolPlan

Path = tuple[PoolPlan, PoolPlan]


@dataclass(frozen=True, slots=True)
class Rates:
    """Capacities and shares for one set of requests.

    Attributes:
        capacity: of one instance, by pool.
        share: fraction of all requests, by pool.
        pool_rate: largest rate of requests through the whole deployment that the pool allows, by
            pool [1/s].
        links: bounds of the fabric, without loads.
    """

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


class Cluster:
    """A deployment, asked what it can do.

    Args:
        deployment: the deployment.
        tpot_s: TPOT target, if any [s].
    """

    def __init__(self, deployment: Deployment, tpot_s: float | None) -> None:
        self.deployment = deployment
        self.tpot_s = tpot_s
        self.times = {p.name: StepTimes(p.table) for p in deployment.pools}
        self.paths: list[Path] = [
            (s, t) for s in deployment.role("prefill") for t in deployment.role("decode")
        ]

    def rates(self, demand: Demand) -> Rates:
        """Capacities of every pool and link for these requests."""
        capacity = {p.name: self._capacity(p, demand) for p in self.deployment.pools}
        share = self._shares(capacity)
        pool_rate = {
            p.name: p.instances * capacity[p.name].rate_rps / share[p.name]
            for p in self.deployment.pools
        }
        return Rates(capacity, share, pool_rate, tuple(self._links(share, demand)))

    def prefill_s(self, pool: PoolPlan, prompt: float) -> float:
        """A prompt alone on an instance of ``pool``: whole, or in chunks where colocated [s]."""
        tokens = max(1, round(prompt))
        chunk = pool.max_num_batched_tokens if pool.role == "colocated" else tokens
        return self.times[pool.name].lone_prefill_s(tokens, chunk)

    def exposed_s(self, path: Path, prompt: float) -> float:
        """Sending time of a lone prompt after its prefill, base latency apart [s]."""
        link = self.deployment.link
        if link is None:
            return 0.0
        prefill_s = self.prefill_s(path[0], prompt)
        return lone_exposed_s(self.deployment, link, path, prompt, prefill_s)

    def _least_exposed_s(self, pool: PoolPlan, demand: Demand) -> float:
        return min(self.exposed_s(p, demand.mean_prompt) for p in self.paths if pool in p)

    # ------------------------------------------------------------------ pools

    def _capacity(self, pool: PoolPlan, demand: Demand) -> Capacity:
        times = self.times[pool.name]
        link = self.deployment.link
        if link is None:
            return colocated_capacity(pool, times, demand, self.tpot_s)
        exposed_s = self._least_exposed_s(pool, demand)
        if pool.role == "prefill":
            return prefill_capacity(pool, times, demand, exposed_s)
        gap_s = exposed_s + link.base_latency_s
        target_s = self.tpot_s
        if target_s is not None and self.deployment.first_token == "prefill":
            # the gap between tokens 1 and 2 holds the transfer, which TPOT spreads over all gaps
            target_s -= gap_s / max(demand.mean_steps, 1.0)
        hold_s = gap_s
        if self.deployment.reserve == "before_prefill":
            hold_s += min(self.prefill_s(s, demand.mean_prompt) for s, _ in self.paths)
        return decode_capacity(pool, times, demand, hold_s, target_s)

    def _shares(self, capacity: Mapping[str, Capacity]) -> dict[str, float]:
        """Fraction of the requests each pool of a role gets.

        ``round_robin`` and ``random`` give every instance the same; ``least_outstanding_tokens``
        balances work, so shares follow capacity.
        """
        out: dict[str, float] = {}
        d = self.deployment
        for role in ("prefill", "decode", "colocated"):
            pools = [p for p in d.pools if p.role == role]
            weight = {p.name: float(p.instances) for p in pools}
            router = d.decode_router if role == "decode" else d.prefill_router
            if router == "least_outstanding_tokens":
                by_rate = {n: w * capacity[n].rate_rps for n, w in weight.items()}
                weight = by_rate if all(map(math.isfinite, by_rate.values())) else weight
            total = sum(weight.values())
            out.update({name: w / total for name, w in weight.items()})
        return out

    # ------------------------------------------------------------------ links

    def _links(self, share: Mapping[str, float], demand: Demand) -> Iterator[LinkBound]:
        """Egress of each prefill pool, ingress of each decode pool, and the spine."""
        link = self.deployment.link
        if link is None:
            return
        busy_s = {  # NIC time a request of the deployment needs on each path
            (s.name, t.name): share[s.name]
            * share[t.name]
            * mean_nic_seconds(self.deployment, link, (s, t), demand)
            for s, t in self.paths
        }
        for pool in self.deployment.pools:
            work = sum(value for path, value in busy_s.items() if pool.name in path)
            rate = pool.instances * pool.nics / work if work > 0.0 else math.inf
            side = "egress" if pool.role == "prefill" else "ingress"
            yield LinkBound(link.name, side, pool.name, rate, None)
        # messages occupy the spine as they do the NICs they come from
        size = sum(busy_s.values()) * link.nic_bytes_per_s
        spine = link.spine_bytes_per_s / size if size > 0.0 else math.inf
        yield LinkBound(link.name, "spine", None, spine, None)
