"""``simulate``: from a scenario to a ``Run``."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

import pandas as pd

from simulator.engine.clock import Clock
from simulator.engine.cluster import Cluster
from simulator.engine.sources import ClosedSource, OpenSource
from simulator.policies.routing import make_router
from simulator.records import TOTALS, Observer, StrideLog
from simulator.run import Run, request_table, stride_table
from simulator.scenario import Scenario
from simulator.scenario.deployment import Deployment
from simulator.workload import Requests, stream

Progress = Callable[[int, int], None]

_PROGRESS_EVERY = 2048
_TIMELINE_BINS = 400


def simulate(
    scenario: Scenario,
    *,
    seed: int | None = None,
    reference: bool = False,
    observers: Sequence[Observer] = (),
    keep_strides: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Simulate a scenario until every request has ended.

    Args:
        scenario: what to simulate.
        seed: replaces the scenario's seed.
        reference: step by step instead of by strides (slow; for checking).
        observers: told of every change of state of every request.
        keep_strides: keep one row a stride in ``Run.strides``.
        progress: called now and then as ``progress(requests ended, requests)``.

    Returns:
        The run: one row a request, and aggregates of the instances' strides.

    Raises:
        InputError: the scenario cannot be built (model, hardware, trace, capacity).
    """
    seed = scenario.seed if seed is None else seed
    return simulate_deployment(
        scenario.deployment(),
        scenario.requests(seed),
        seed=seed,
        reference=reference,
        observers=observers,
        keep_strides=keep_strides,
        progress=progress,
    )


def simulate_deployment(
    deployment: Deployment,
    workload: Requests,
    *,
    seed: int = 0,
    reference: bool = False,
    observers: Sequence[Observer] = (),
    keep_strides: bool = False,
    progress: Progress | None = None,
) -> Run:
    """The same, from resolved objects. ``seed`` only feeds the random router here."""
    started = time.process_time()
    n = len(workload.arrival_s)
    clock = Clock()
    instances = _instances(deployment)
    span_s = float(workload.arrival_s[-1]) if n else 0.0
    log = StrideLog(len(instances), max(span_s, 1.0) / _TIMELINE_BINS, keep_strides)
    rng = stream(seed, "router")
    first, second = rng.spawn(2)
    cluster = Cluster(
        deployment,
        clock,
        log,
        (
            make_router(deployment.prefill_router, first),
            make_router(deployment.decode_router, second),
        ),
        reference=reference,
        observers=observers,
    )
    kind = OpenSource if workload.closed_loop is None else ClosedSource
    source = kind(workload, deployment.router_latency_s, clock, cluster)
    cluster.ended = _ended(cluster, source, n, progress)
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and the collector would walk every request in flight
    try:
        clock.drain()
    finally:
        if collecting:
            gc.enable()
    log.flush()
    rows = cluster.records.rows()
    if len(rows) != n:
        raise RuntimeError(f"{n - len(rows)} of {n} requests never ended; this is a bug")
    kept = log.rows()
    for key in TOTALS:
        instances[key] = log.totals[key]
    for name, values in cluster.group_totals().items():
        instances[name] = values
    return Run(
        deployment=deployment,
        workload=workload,
        seed=seed,
        requests=request_table(rows, workload),
        instances=instances,
        itl=log.itl,
        timeline=log.timeline,
        strides=None if kept is None else stride_table(kept),
        meta={
            "events": float(clock.scheduled),
            "strides": float(instances["strides"].sum()),
            "cpu_s": time.process_time() - started,
        },
    )


def _ended(
    cluster: Cluster, source: OpenSource | ClosedSource, n: int, progress: Progress | None
) -> Callable[[float], None] | None:
    """What happens when a request ends: the client sends the next, progress is reported."""
    client = source.ended if isinstance(source, ClosedSource) else None
    if progress is None:
        return client
    report = progress

    def ended(t_s: float) -> None:
        if client is not None:
            client(t_s)
        if cluster.done % _PROGRESS_EVERY == 0 or cluster.done == n:
            report(cluster.done, n)

    return ended


def _instances(deployment: Deployment) -> pd.DataFrame:
    """One row an instance, in the engine's order: prefill pools, then decode or colocated ones."""
    d = deployment
    pools = [*d.role("prefill"), *d.role("decode"), *d.role("colocated")]
    rows = [
        (p.name, p.role, p.tp, p.capacity_blocks * p.table.ranks)
        for p in pools
        for _ in range(p.instances)
    ]
    table = pd.DataFrame(rows, columns=["pool", "role", "gpus", "capacity_blocks"])
    table.insert(0, "instance", range(len(table)))
    return table
