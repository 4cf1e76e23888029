"""What a workload looks like in numbers: rate, lengths, burstiness, shared prefixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.workload.requests import Requests

FloatArray = NDArray[np.float64]

WINDOWS_S = (1.0, 10.0, 60.0)
"""Lengths of the windows counts are taken in [s]."""

LEAST_WINDOWS = 10
"""Fewer whole windows than this say nothing about dispersion or a peak."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Window:
    """Counts of arrivals in whole windows of one length.

    Attributes:
        length_s: length of a window [s].
        dispersion: variance over mean of the counts (index of dispersion); 1 for a Poisson process.
        peak_to_mean: largest count over the mean.
        peak_rps: rate in the busiest window [1/s].
    """

    length_s: float
    dispersion: float
    peak_to_mean: float
    peak_rps: float


@dataclass(frozen=True, slots=True)
class Sharing:
    """Prompt blocks that requests share, in a cache that never forgets.

    Attributes:
        block_tokens: tokens of a block.
        blocks: blocks of all prompts.
        distinct: of these, different ones.
        hit_rate: share of all prompt tokens an ideal prefix cache would have; only whole leading
            blocks count.
        hit_requests: share of requests that would find at least one block.
    """

    block_tokens: int
    blocks: int
    distinct: int
    hit_rate: float
    hit_requests: float


@dataclass(frozen=True, slots=True)
class Description:
    """A workload in numbers. None where there is nothing to tell (one request, one instant).

    Attributes:
        requests: how many.
        span_s: from the first to the last arrival [s].
        rate_rps: mean rate, ``(n − 1)/span`` [1/s].
        gap_cv: standard deviation over mean of the gaps between arrivals; 1 for a Poisson process.
        same_instant: share of requests that arrive at the instant of the one before them, a sign of
            coarse clocks.
        windows: counts by length of window, where the span has ten of them.
        prompt_tokens: mean, percentiles, minimum and maximum of the prompts [tokens].
        output_tokens: the same of the outputs.
        correlation: Pearson's, of prompt and output length.
        rank_correlation: Spearman's.
        sharing: shared prompt blocks, where the trace has block ids.
    """

    requests: int
    span_s: float | None
    rate_rps: float | None
    gap_cv: float | None
    same_instant: float | None
    windows: tuple[Window, ...]
    prompt_tokens: dict[str, float]
    output_tokens: dict[str, float]
    correlation: float | None
    rank_correlation: float | None
    sharing: Sharing | None


def describe(requests: Requests, *, arrivals_known: bool = True) -> Description:
    """Describe a workload.

    Args:
        requests: the workload.
        arrivals_known: False if its arrivals mean nothing; all that is about time is then None.
    """
    timed = arrivals_known and requests.closed_loop is None and len(requests) > 1
    arrival = requests.arrival_s if timed else np.zeros(0)
    span = float(arrival[-1] - arrival[0]) if timed else 0.0
    gaps = np.diff(arrival)
    return Description(
        requests=len(requests),
        span_s=span if timed else None,
        rate_rps=requests.rate_rps if span > 0.0 else None,
        gap_cv=float(gaps.std() / gaps.mean()) if span > 0.0 else None,
        same_instant=float((gaps == 0.0).mean()) if timed else None,
        windows=windows(arrival),
        prompt_tokens=_quantiles(requests.prompt_tokens),
        output_tokens=_quantiles(requests.output_tokens),
        correlation=_correlation(requests.prompt_tokens, requests.output_tokens),
        rank_correlation=_correlation(
            _ranks(requests.prompt_tokens), _ranks(requests.output_tokens)
        ),
        sharing=_sharing(requests),
    )


def windows(arrival_s: FloatArray) -> tuple[Window, ...]:
    """Counts in windows of 1, 10 and 60 s from the first arrival on, whole ones only."""
    found = []
    for length in WINDOWS_S:
        count = window_counts(arrival_s, length)
        if count.size >= LEAST_WINDOWS:
            mean = float(count.mean())
            found.append(
                Window(
                    length,
                    float(count.var(ddof=1)) / mean,
                    float(count.max()) / mean,
                    float(count.max()) / length,
                )
            )
    return tuple(found)


def window_counts(arrival_s: FloatArray, length_s: float) -> NDArray[np.int64]:
    """Arrivals in each whole window of ``length_s`` from the first arrival on."""
    if not arrival_s.size:
        return np.zeros(0, dtype=np.int64)
    since = arrival_s - arrival_s[0]
    whole = int(since[-1] / length_s)
    index = (since / length_s).astype(np.int64)
    return np.bincount(index[index < whole], minlength=whole).astype(np.int64)


def _quantiles(tokens: NDArray[np.int64]) -> dict[str, float]:
    found = {"mean": float(tokens.mean()), "min": float(tokens.min())}
    found |= {name: float(np.quantile(tokens, q)) for name, q in QUANTILES.items()}
    return {**found, "max": float(tokens.max())}


def _correlation(a: NDArray[np.generic], b: NDArray[np.generic]) -> float | None:
    if a.size < 2 or a.min() == a.max() or b.min() == b.max():
        return None
    return float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])


def _ranks(values: NDArray[np.int64]) -> FloatArray:
    """Ranks; equal values share their mean rank."""
    _, index, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - 0.5 * (count - 1))[index], dtype=np.float64)


def _sharing(requests: Requests) -> Sharing | None:
    blocks = requests.blocks
    if blocks is None:
        return None
    hits = blocks.ideal_hit_tokens(requests.prompt_tokens)
    return Sharing(
        block_tokens=blocks.block_tokens,
        blocks=int(blocks.ids.size),
        distinct=int(np.unique(blocks.ids).size),
        hit_rate=float(hits.sum() / requests.prompt_tokens.sum()),
        hit_requests=float((hits > 0).mean()),
    )
