"""What happened when: queues and flights from the request table, batches and KV from the strides."""

from __future__ import annotations

import numpy as np
import pandas as pd

from simulator.metrics.latency import FloatArray, column
from simulator.run import Run

BINS = 200


def mean_number(start_s: FloatArray, end_s: FloatArray, edges_s: FloatArray) -> FloatArray:
    """Time-weighted mean number of intervals open in each bin; exact, O((n + bins)·log n).

    ``∫_{-∞}^{x} N dt = Σ (x − start)⁺ − Σ (x − end)⁺``, from sorted instants and their prefix sums;
    a bin's mean is a difference of that at its edges.

    Args:
        start_s: starts [s]; an interval with NaN here is ignored.
        end_s: ends [s], in the same order; NaN or ``inf`` never ends.
        edges_s: edges of the bins [s], increasing.
    """
    known = ~np.isnan(start_s)
    start, end = start_s[known], end_s[known]
    end = np.sort(end[np.isfinite(end)])
    origin = edges_s[0]  # small numbers: sums of instants late in a long run would lose digits
    area = _ramp(np.sort(start) - origin, edges_s - origin)
    area -= _ramp(end - origin, edges_s - origin)
    # rounding may leave a hair below zero where nothing is open
    return np.maximum(np.diff(area) / np.diff(edges_s), 0.0)


def _ramp(instants: FloatArray, at: FloatArray) -> FloatArray:
    """``Σ (x − instant)⁺`` for each ``x`` in ``at``; ``instants`` sorted."""
    k = np.searchsorted(instants, at, side="right")
    total = np.concatenate([[0.0], np.cumsum(instants)])
    return np.asarray(k * at - total[k], dtype=np.float64)


def _edges(run: Run, bins: int) -> FloatArray:
    arrival = column(run, "arrival_s")
    first = float(arrival.min()) if arrival.size else 0.0
    end = max(run.end_s, first + 1e-9)
    return np.linspace(first, end, bins + 1)


def request_timeline(run: Run, bins: int = BINS) -> pd.DataFrame:
    """Mean number of requests in each phase, on equal bins from first arrival to last token.

    Columns: ``t_s`` (left edge), ``queued_prefill``, ``prefilling``, ``kv_wait`` (prefilled, room not
    promised), ``transferring``, ``queued_decode``, ``running`` (first decode step to last token; a
    preempted request counts), ``in_system`` (arrival to last token) and ``link_bytes_per_s``. While
    it is transferred layer by layer, a request still counts as prefilling. A colocated request is
    ``prefilling`` until its first token.
    """
    edges = _edges(run, bins)
    colocated = run.deployment.mode == "colocated"
    at = {c: column(run, c) for c in run.requests.columns if c.endswith("_s")}
    prefilled = at["first_token_s"] if colocated else at["prefill_end_s"]
    sent = np.maximum(at["transfer_start_s"], prefilled)
    running = at["decode_start_s"]
    phases = {
        "queued_prefill": (at["queued_s"], at["prefill_start_s"]),
        "prefilling": (at["prefill_start_s"], prefilled),
        "kv_wait": (np.where(np.isnan(sent), np.nan, prefilled), sent),
        "transferring": (sent, at["landed_s"]),
        "queued_decode": (np.where(np.isnan(running), np.nan, at["landed_s"]), running),
        "running": (running, at["last_token_s"]),
        "in_system": (at["arrival_s"], at["last_token_s"]),
    }
    out = {"t_s": edges[:-1]}
    for name, (start, end) in phases.items():
        finished = ~np.isnan(end)
        out[name] = mean_number(start[finished], end[finished], edges)
    out["link_bytes_per_s"] = link_throughput(run, edges)
    return pd.DataFrame(out)


def link_throughput(run: Run, edges_s: FloatArray) -> FloatArray:
    """KV bytes per second on the fabric in each bin, messages apart [bytes/s].

    Each transfer's bytes are spread evenly from its start to its last byte.
    """
    link = run.deployment.link
    if link is None:
        return np.zeros(edges_s.size - 1)
    start = column(run, "transfer_start_s")
    end = column(run, "landed_s") - link.base_latency_s
    moved = ~np.isnan(end)
    start, end = start[moved], end[moved]
    prompt = run.requests["prompt_tokens"].to_numpy()[moved]
    size = np.array([run.deployment.wire_bytes(p) for p in prompt.tolist()], dtype=np.float64)
    rate = size / np.maximum(end - start, 1e-9)  # a transfer of no length still moves its bytes
    end = np.maximum(end, start + 1e-9)
    sent = _weighted_ramp(start, rate, edges_s) - _weighted_ramp(end, rate, edges_s)
    return np.maximum(np.diff(sent) / np.diff(edges_s), 0.0)


def _weighted_ramp(instants: FloatArray, weight: FloatArray, at: FloatArray) -> FloatArray:
    order = np.argsort(instants)
    instants, weight = instants[order] - at[0], weight[order]
    k = np.searchsorted(instants, at - at[0], side="right")
    mass = np.concatenate([[0.0], np.cumsum(weight)])
    moment = np.concatenate([[0.0], np.cumsum(weight * instants)])
    return np.asarray(mass[k] * (at - at[0]) - moment[k], dtype=np.float64)


def pool_timeline(run: Run) -> pd.DataFrame:
    """Busy share, mean batch and KV share of every pool, on the bins the run recorded.

    Columns: ``t_s`` (left edge), ``pool``, ``busy`` (0..1, mean over the pool's instances), ``batch``
    (mean sequences per instance, idle time counts as 0), ``kv`` (used or promised blocks over
    capacity, while a step runs).
    """
    pools = run.instances["pool"].to_numpy()
    capacity = run.instances["capacity_blocks"].to_numpy(dtype=np.float64)
    line = run.timeline
    edges = line.edges_s()
    # the last bin ends with the run
    width = np.minimum(line.width_s, np.maximum(run.end_s - edges, 1e-12)) if edges.size else edges
    frames = []
    for pool in dict.fromkeys(pools.tolist()):
        rows = np.flatnonzero(pools == pool)

        def mean(key: str, rows: np.ndarray = rows) -> FloatArray:
            return np.asarray(line.sums[key][rows, : line.bins] / width, dtype=np.float64)

        frames.append(
            pd.DataFrame(
                {
                    "t_s": edges,
                    "pool": pool,
                    "busy": mean("busy").mean(axis=0),
                    "batch": mean("batch").mean(axis=0),
                    "kv": mean("blocks").sum(axis=0) / max(capacity[rows].sum(), 1.0),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
