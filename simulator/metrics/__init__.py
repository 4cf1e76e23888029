"""Metrics: pure functions from a ``Run`` to numbers and tables; definitions in docs/semantics.md."""

from simulator.metrics.attainment import (
    arrival_window_s,
    attainment,
    attains,
    goodput,
    limits,
    makespan_s,
    run_limits,
)
from simulator.metrics.classes import ClassSummary, by_class, class_summaries
from simulator.metrics.energy import Energy, EnergyUse, draw_w, energy
from simulator.metrics.intervals import Interval, block_bootstrap, replication_interval
from simulator.metrics.latency import PARTS, completed, e2e, statistics, tpot, ttft, waterfall
from simulator.metrics.stability import Backlog, Stability, backlog_trend, stability
from simulator.metrics.summary import SCHEMA, Summary, summarize
from simulator.metrics.timelines import mean_number, pool_timeline, request_timeline
from simulator.metrics.usage import Cost, PoolUse, Throughput, cost, pool_use, throughput
from simulator.metrics.warmup import mser5

__all__ = [
    "PARTS",
    "SCHEMA",
    "Backlog",
    "ClassSummary",
    "Cost",
    "Energy",
    "EnergyUse",
    "Interval",
    "PoolUse",
    "Stability",
    "Summary",
    "Throughput",
    "arrival_window_s",
    "attainment",
    "attains",
    "backlog_trend",
    "block_bootstrap",
    "by_class",
    "class_summaries",
    "completed",
    "cost",
    "draw_w",
    "e2e",
    "energy",
    "goodput",
    "limits",
    "makespan_s",
    "mean_number",
    "mser5",
    "pool_timeline",
    "pool_use",
    "replication_interval",
    "request_timeline",
    "run_limits",
    "stability",
    "statistics",
    "summarize",
    "throughput",
    "tpot",
    "ttft",
    "waterfall",
]
