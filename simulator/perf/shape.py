"""What a step computes: its sufficient statistics, of an instance and of one of its GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.model import AttentionGroup, Parallel
from simulator.perf.forms import Array, Size, causal_pairs

Reads = Size | tuple[Size, ...]
"""A statistic of attention: one for each group, or one that holds for all groups."""


def per_group(reads: Reads, groups: int) -> tuple[Array, ...]:
    """One array for each attention group.

    Args:
        reads: one value for all groups (contexts shorter than every window), or one for each.
        groups: how many groups there are.

    Raises:
        ValueError: another number of values than groups.
    """
    if not isinstance(reads, tuple):
        return (np.asarray(reads, dtype=np.float64),) * groups
    if len(reads) != groups:
        raise ValueError(f"expected a value for each of {groups} attention groups: {reads!r}")
    return tuple(np.asarray(r, dtype=np.float64) for r in reads)


def pairs_of(group: AttentionGroup, cached: int, new: int) -> float:
    """Query-key pairs of a chunk under the causal mask, a query's own token counted half.

    The integral of what the query at each position reads: ``c·p + c²/2`` for full attention.
    """
    if group.window is None and group.local_chunk is None:
        return float(causal_pairs(cached, new))
    return _pairs_up_to(group, cached + new) - _pairs_up_to(group, cached)


def _pairs_up_to(group: AttentionGroup, x: int) -> float:
    if group.local_chunk is not None:
        whole, rest = divmod(x, group.local_chunk)
        return 0.5 * (whole * group.local_chunk**2 + rest * rest)
    assert group.window is not None
    below = min(x, group.window)
    return 0.5 * below * below + float(group.window) * (x - below)


def read_of(group: AttentionGroup, cached: int, new: int) -> int:
    """KV tokens a chunk reads, its own included: those any of its queries looks at."""
    if group.local_chunk is not None:
        return cached % group.local_chunk + new
    return new + (cached if group.window is None else min(cached, group.window))


def longest_of(group: AttentionGroup, chunks: Sequence[tuple[int, int]]) -> float:
    """Most tokens a query of some ``(cached, new)`` chunks attends to, its own included; 0 of none."""
    return float(min(max((read_of(group, p, c) for p, c in chunks), default=0), span_of(group)))


def span_of(group: AttentionGroup) -> float:
    """Tokens a query looks back at most."""
    return float(group.window or group.local_chunk or np.inf)


@dataclass(frozen=True, slots=True)
class StepShape:
    """The sufficient statistics of a step, as one GPU sees them.

    Attributes:
        batch: decoding sequences of its attention rank.
        reads: KV tokens they read, for each attention group.
        prefills: chunks.
        new: prompt tokens computed.
        pairs: query-key pairs of the chunks, for each group.
        read: KV tokens the chunks read back, for each group.
        longest: most tokens a query of the chunks attends to, for each group.
        rows: tokens sampled.
        tokens: new tokens, decoded and prefilled.
        all_tokens: those of all attention ranks.
    """

    batch: float
    reads: tuple[float, ...]
    prefills: float
    new: float
    pairs: tuple[float, ...]
    read: tuple[float, ...]
    longest: tuple[float, ...]
    rows: float
    tokens: float
    all_tokens: float


@dataclass(frozen=True, slots=True)
class Share:
    """What of a step's totals falls to the busiest GPU.

    Attention ranks hold whole sequences, as evenly as they can. In a *round* of a pipeline ``pp``
    microbatches are under way, each of about the same number of sequences and tokens, and every
    sequence advances by one token: the round takes as long as one microbatch takes through all
    stages. Otherwise the batch passes through the stages as a whole.

    Attributes:
        ranks: attention ranks.
        stages: pipeline stages whose microbatches share the step; 1 for a batch that passes whole.
    """

    ranks: int
    stages: int

    @classmethod
    def of(cls, parallel: Parallel, *, rounds: bool) -> Share:
        """For steps that are rounds of microbatches, or not."""
        return cls(parallel.attention_dp, parallel.pp if rounds else 1)

    def rank(self, sequences: Size) -> Array:
        """Sequences of the fullest rank."""
        n = np.asarray(sequences, dtype=np.float64)
        return np.asarray(n if self.ranks == 1 else np.ceil(n / self.ranks), dtype=np.float64)

    def micro(self, count: Size) -> Array:
        """Sequences, rows or tokens of a microbatch."""
        n = np.asarray(count, dtype=np.float64)
        return np.asarray(n if self.stages == 1 else np.ceil(n / self.stages), dtype=np.float64)


def part(of: Size, sequences: Size) -> Array:
    """``of / sequences``: what share of the tokens of all sequences falls to some; 0 of none."""
    n = np.asarray(sequences, dtype=np.float64)
    some = np.asarray(of, dtype=np.float64)
    return np.divide(some, n, out=np.zeros(np.broadcast(some, n).shape), where=n > 0.0)
