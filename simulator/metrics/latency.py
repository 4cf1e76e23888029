"""Latencies of every request, and the parts its time to first token is made of.

All functions are pure: they read the request table of a ``Run`` and return new tables with the same
rows, in seconds, NaN where a request never got that far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.request import State

if TYPE_CHECKING:
    from simulator.run import Run

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PARTS = (
    "router",
    "prefill_queue",
    "prefill",
    "transfer_wait",
    "transfer",
    "decode_queue",
    "first_decode_step",
)
"""The TTFT waterfall, in order; ``transfer`` is its exposed part."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def column(run: Run, name: str) -> FloatArray:
    """A column of the request table as float64."""
    return run.requests[name].to_numpy(dtype=np.float64)


def completed(run: Run) -> BoolArray:
    """Requests that got their last token."""
    return np.asarray(run.requests["state"].to_numpy() == State.DONE, dtype=bool)


def ttft(run: Run) -> FloatArray:
    """Time to first token: the client sees token 1, minus arrival [s]."""
    return column(run, "first_token_s") - column(run, "arrival_s")


def tpot(run: Run) -> FloatArray:
    """Time per output token after the first, (t_last − t_first)/(OSL − 1) [s].

    NaN with one output token, and for requests that did not finish.
    """
    gaps = column(run, "output_tokens") - 1.0
    span = column(run, "last_token_s") - column(run, "first_token_s")
    return np.divide(span, gaps, out=np.full_like(span, np.nan), where=gaps > 0.0)


def e2e(run: Run) -> FloatArray:
    """End-to-end latency: last token minus arrival [s]."""
    return column(run, "last_token_s") - column(run, "arrival_s")


def waterfall(run: Run) -> pd.DataFrame:
    """The parts of every request's TTFT [s]; they sum to it (columns ``PARTS``).

    Parts are differences of successive milestones, each cut off at the first token: what happens
    after it (the transfer, with ``first_token: prefill``) is not part of TTFT. A milestone that a
    request has not (a colocated one is never transferred) coincides with the one before it. A
    transfer that starts before prefill ends counts from the end of prefill.
    """
    first_token = column(run, "first_token_s")
    arrival = column(run, "arrival_s")
    prefill_end = column(run, "prefill_end_s")
    if run.deployment.mode == "colocated":
        prefill_end = first_token
    milestones = (
        column(run, "queued_s"),
        column(run, "prefill_start_s"),
        prefill_end,
        np.fmax(column(run, "transfer_start_s"), prefill_end),
        column(run, "landed_s"),
        column(run, "decode_start_s"),
        first_token,
    )
    parts: dict[str, FloatArray] = {}
    before = arrival
    for name, reached in zip(PARTS, milestones, strict=True):
        at = np.minimum(np.where(np.isnan(reached), before, reached), first_token)
        parts[name] = at - before
        before = at
    return pd.DataFrame(parts, index=run.requests.index)


def in_service(run: Run) -> FloatArray:
    """Time a completed request was worked on: E2E without its waits for prefill, transfer, decode.

    Differs from E2E − TTFT waits only with ``first_token: prefill``, where the waits follow token 1.
    """
    start = column(run, "prefill_start_s")
    waits = start - column(run, "queued_s")
    if run.deployment.mode == "disaggregated":
        sent = column(run, "transfer_start_s")
        waits = waits + np.nan_to_num(np.maximum(sent - column(run, "prefill_end_s"), 0.0))
        joined = column(run, "decode_start_s") - column(run, "landed_s")
        waits = waits + np.nan_to_num(np.maximum(joined, 0.0))
    return e2e(run) - waits


def statistics(values: FloatArray) -> dict[str, float | None]:
    """Mean and percentiles of the values that are not NaN; None if there is none.

    Percentiles are linear interpolations of order statistics (NumPy's default).
    """
    values = values[~np.isnan(values)]
    if not values.size:
        return dict.fromkeys(("mean", *QUANTILES))
    found = np.quantile(values, list(QUANTILES.values()))
    out: dict[str, float | None] = {"mean": float(values.mean())}
    out.update({name: float(v) for name, v in zip(QUANTILES, found, strict=True)})
    return out
