"""How hard the GPUs worked, and what that cost.

``busy``, ``load``, MFU and MBU are four numbers. ``busy`` is the share of time with a step running:
a decode pool is busy at any load. ``load`` (from ``analysis``) is demand over capacity. MFU and MBU
are the shares of the data sheet's dense FLOP/s and memory bandwidth that useful work used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from simulator.analysis import Bounds
from simulator.analysis.measured import Operating
from simulator.metrics.attainment import makespan_s
from simulator.metrics.latency import BoolArray, completed
from simulator.run import Run
from simulator.scenario.deployment import PoolPlan


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Use of one pool over the makespan (first arrival to last token).

    Attributes:
        instances: instances.
        gpus: GPUs.
        busy: share of instance time with a step running, 0..1.
        load: offered over sustainable rate (``analyze``); None if unknown.
        mfu: FLOPs done / (makespan × GPUs × dense peak of the compute type).
        mbu: bytes steps had to read (weights once a step, resident KV once) / (makespan × memory
            bandwidth of all GPUs).
        kv_peak: most KV blocks ever used or promised on an instance over its capacity, 0..1.
    """

    instances: int
    gpus: int
    busy: float | None
    load: float | None
    mfu: float | None
    mbu: float | None
    kv_peak: float | None


def pool_use(run: Run, bounds: Bounds) -> dict[str, PoolUse]:
    """Use of every pool, in scenario order."""
    span = makespan_s(run)
    return {
        pool.name: _use(
            pool,
            run.instances[run.instances["pool"] == pool.name],
            span,
            bounds.pool(pool.name).load,
        )
        for pool in run.deployment.pools
    }


def _use(pool: PoolPlan, rows: pd.DataFrame, span_s: float, load: float | None) -> PoolUse:
    total = {c: float(rows[c].sum()) for c in ("busy_s", "tokens", "rows")}
    capacity = rows["capacity_blocks"].to_numpy(dtype=np.float64)
    peak = rows["kv_peak_blocks"].to_numpy(dtype=np.float64)
    time = span_s * pool.instances
    known = time > 0.0
    flops = float(pool.step.flops(total["tokens"], _by_group(pool, rows, "pairs"), total["rows"]))
    # every rank reads its shard of the weights in each step, and its share of the KV; how many
    # experts a step visits is taken at the mean number of tokens it decodes (or prefills), the
    # few steps that do both counted low
    steps = float(rows["steps"].sum())
    each = total["tokens" if pool.role == "prefill" else "rows"] / steps if steps else 0.0
    moved = steps * float(pool.step.read_bytes(0.0, each))
    moved += float(pool.step.kv_read_bytes(_by_group(pool, rows, "kv_token_steps")))
    return PoolUse(
        instances=pool.instances,
        gpus=pool.gpus,
        busy=total["busy_s"] / time if known else None,
        load=load,
        mfu=flops / (time * pool.step.peak_flops_per_s) if known else None,
        mbu=moved / (time * pool.step.peak_bytes_per_s) if known else None,
        kv_peak=float((peak / np.maximum(capacity, 1.0)).max()) if len(rows) else None,
    )


def operating(run: Run) -> dict[str, Operating]:
    """Mean batch and prompt tokens of the steps of each pool, of one attention rank."""
    found = {}
    for pool in run.deployment.pools:
        rows = run.instances[run.instances["pool"] == pool.name]
        steps = max(1.0, float(rows["steps"].sum()) * pool.parallel.attention_dp)
        each = float(rows["rows"].sum()) / steps
        tokens = float(rows["tokens"].sum()) / steps
        found[pool.name] = Operating(batch=max(1.0, each), tokens=max(1.0, tokens))
    return found


def _by_group(pool: PoolPlan, rows: pd.DataFrame, name: str) -> float | tuple[float, ...]:
    """A total of the pool's instances; of each attention group where they do not read the same."""
    if pool.table.whole:
        return float(rows[name].sum())
    return tuple(float(rows[f"{name}_g{g}"].sum()) for g in range(len(pool.table.groups)))


@dataclass(frozen=True, slots=True)
class Throughput:
    """Work of the completed requests over the makespan.

    Attributes:
        requests_per_s: requests [1/s].
        output_tokens_per_s: output tokens [1/s].
        output_tokens_per_s_per_gpu: the same per GPU of the whole deployment [1/s].
    """

    requests_per_s: float | None
    output_tokens_per_s: float | None
    output_tokens_per_s_per_gpu: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Price of the deployment, rented for the makespan, per token of the completed requests.

    Attributes:
        usd_per_hour: all GPUs [USD/h].
        usd_per_m_output_tokens: everything, per million output tokens [USD].
        usd_per_m_total_tokens: everything, per million prompt and output tokens [USD].
        usd_per_m_input_tokens_prefill: the prefill pools alone, per million prompt tokens [USD];
            None when colocated.
        usd_per_m_output_tokens_decode: the decode pools alone, per million output tokens [USD];
            None when colocated.
    """

    usd_per_hour: float | None
    usd_per_m_output_tokens: float | None
    usd_per_m_total_tokens: float | None
    usd_per_m_input_tokens_prefill: float | None
    usd_per_m_output_tokens_decode: float | None


def _tokens(run: Run, done: BoolArray) -> tuple[float, float]:
    prompt = run.requests["prompt_tokens"].to_numpy()[done]
    output = run.requests["output_tokens"].to_numpy()[done]
    return float(prompt.sum()), float(output.sum())


def throughput(run: Run) -> Throughput:
    """Completed requests and their output tokens per second of the makespan."""
    span = makespan_s(run)
    if span <= 0.0:
        return Throughput(None, None, None)
    done = completed(run)
    _, output = _tokens(run, done)
    rate = output / span
    return Throughput(float(done.sum()) / span, rate, rate / run.deployment.gpus)


def cost(run: Run) -> Cost:
    """Cost at the simulated load: idle GPUs are paid for."""
    deployment = run.deployment
    hours = makespan_s(run) / 3600.0
    prompt, output = _tokens(run, completed(run))

    def per_million(usd_per_hour: float, tokens: float) -> float | None:
        return usd_per_hour * hours / (tokens / 1e6) if tokens > 0.0 and hours > 0.0 else None

    def rent(role: str) -> float:
        return sum(p.gpus * p.usd_per_gpu_hour for p in deployment.pools if p.role == role)

    split = deployment.mode == "disaggregated"
    everything = deployment.usd_per_hour
    return Cost(
        usd_per_hour=everything,
        usd_per_m_output_tokens=per_million(everything, output),
        usd_per_m_total_tokens=per_million(everything, prompt + output),
        usd_per_m_input_tokens_prefill=per_million(rent("prefill"), prompt) if split else None,
        usd_per_m_output_tokens_decode=per_million(rent("decode"), output) if split else None,
    )
