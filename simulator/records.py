"""Columns the engine writes: one row a request, one row a stride, and aggregates of the strides.

Rows are appended to flat lists (one ``extend`` a row, a tenth of the cost of an ``array('d')``), which
become NumPy blocks of 8 bytes a value every few thousand rows. Strides are folded into aggregates block by block, so that memory
grows with requests and not with steps; they are kept as rows only when asked for.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from simulator.request import State

FloatArray = npt.NDArray[np.float64]

REQUEST_COLUMNS = (
    "id",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "state",
    "prefill_instance",
    "decode_instance",
    "queued_s",
    "prefill_start_s",
    "prefill_end_s",
    "transfer_start_s",
    "landed_s",
    "decode_start_s",
    "first_token_s",
    "last_token_s",
    "preemptions",
)
"""One row a request. Instants in seconds; the engine writes -1 for what never happened."""

STRIDE_COLUMNS = (
    "instance",
    "t_start_s",
    "t_end_s",
    "steps",
    "batch",
    "kv_tokens",
    "new_tokens",
    "pairs",
    "read_tokens",
    "rows",
    "fresh",
    "blocks",
    "prefills",
    "first_step_s",
)
"""One row a stride (``steps`` ≥ 1 steps with one batch).

``batch`` sequences decode and read ``kv_tokens`` KV tokens together in the first step (``batch``
more in each later one). A step with prefill chunks is a stride of one step: ``new_tokens`` prompt
tokens in ``prefills`` chunks, ``pairs`` query-key pairs, ``read_tokens`` KV tokens read back.
``rows`` tokens are sampled in each step. The first step takes ``first_step_s``. ``fresh`` of the decoding sequences did not emit a token
in the previous step of this instance. ``blocks`` KV blocks are used or promised in its last step.
"""

N_STRIDE = len(STRIDE_COLUMNS)
N_REQUEST = len(REQUEST_COLUMNS)


class Observer(Protocol):
    """Receives every change of state of every request, in simulated order."""

    def on_state(self, t_s: float, request_id: int, state: State, instance: int) -> None:
        """Request ``request_id`` entered ``state`` at ``t_s`` on ``instance`` (-1: none)."""
        ...


class ItlSketch:
    """Log-binned histogram of inter-token latencies; bins are 0.4 % wide.

    Relative error of any quantile is at most half a bin (0.2 %); the mean is exact. Weights are
    numbers of token gaps.
    """

    RATIO = 1.004
    FLOOR_S = 1e-6

    def __init__(self) -> None:
        self.counts: FloatArray = np.zeros(0)
        self.total_s = 0.0

    @property
    def n(self) -> float:
        """Number of gaps recorded."""
        return float(self.counts.sum())

    def add(self, gap_s: FloatArray, weight: FloatArray) -> None:
        """Record gaps [s] with their multiplicities, arrays of one shape."""
        if gap_s.size == 0:
            return
        self.total_s += float(np.dot(gap_s, weight))
        scaled = np.log(np.maximum(gap_s, self.FLOOR_S) / self.FLOOR_S) / np.log(self.RATIO)
        added = np.bincount(scaled.astype(np.int64), weights=weight)
        if added.size > self.counts.size:
            self.counts = np.pad(self.counts, (0, added.size - self.counts.size))
        self.counts[: added.size] += added

    def mean_s(self) -> float:
        """Mean gap [s]; NaN if there is none."""
        n = self.n
        return self.total_s / n if n else float("nan")

    def quantile_s(self, q: float) -> float:
        """The ``q`` quantile [s], 0 ≤ q ≤ 1; NaN if there is no gap."""
        n = self.n
        if not n:
            return float("nan")
        i = int(np.searchsorted(np.cumsum(self.counts), max(q * n, 1e-9), side="left"))
        i = min(i, self.counts.size - 1)
        return float(self.FLOOR_S * self.RATIO ** (i + 0.5))


class Timeline:
    """Time-weighted sums on fixed bins that double in width when a run outgrows them.

    ``sums[key][instance, bin]`` is ∫ value dt over the bin; divide by ``width_s`` for the mean.
    """

    MAX_BINS = 1024

    def __init__(self, instances: int, width_s: float, keys: tuple[str, ...]) -> None:
        self.width_s = width_s
        self.bins = 0
        self.instances = instances
        self.sums: dict[str, FloatArray] = {k: np.zeros((instances, self.MAX_BINS)) for k in keys}

    def _fit(self, t_end_s: float) -> None:
        while t_end_s > self.width_s * self.MAX_BINS:
            half = self.MAX_BINS // 2
            for key, v in self.sums.items():
                folded = v.reshape(self.instances, half, 2).sum(axis=2)
                self.sums[key] = np.pad(folded, ((0, 0), (0, half)))
            self.width_s *= 2.0
        self.bins = max(self.bins, int(np.ceil(t_end_s / self.width_s)))

    def add(
        self, instance: npt.NDArray[np.int64], t0: FloatArray, t1: FloatArray, **values: FloatArray
    ) -> None:
        """Add pieces [t0, t1) s of constant value for each key, arrays of one shape."""
        if t0.size == 0:
            return
        self._fit(float(t1.max()))
        w = self.width_s
        first = (t0 / w).astype(np.int64)
        last = np.minimum((t1 / w).astype(np.int64), self.MAX_BINS - 1)
        n = last - first + 1
        idx = np.repeat(np.arange(t0.size), n)
        bin_ = np.arange(idx.size) - np.repeat(np.cumsum(n) - n, n) + first[idx]
        overlap = np.minimum(t1[idx], (bin_ + 1) * w) - np.maximum(t0[idx], bin_ * w)
        overlap = np.maximum(overlap, 0.0)
        flat = instance[idx] * self.MAX_BINS + bin_
        for key, v in values.items():
            got = np.bincount(flat, weights=overlap * v[idx], minlength=self.sums[key].size)
            self.sums[key] += got.reshape(self.sums[key].shape)

    def edges_s(self) -> FloatArray:
        """Left edges of the bins in use [s]."""
        return np.arange(self.bins, dtype=np.float64) * np.float64(self.width_s)

    def mean(self, key: str) -> FloatArray:
        """Time-weighted mean per bin, shape (instances, bins)."""
        return np.asarray(self.sums[key][:, : self.bins] / self.width_s, dtype=np.float64)


TOTALS = (
    "busy_s",
    "strides",
    "steps",
    "tokens",
    "pairs",
    "rows",
    "kv_token_steps",
    "kv_peak_blocks",
)
"""Sums per instance over its strides (``kv_peak_blocks`` is a maximum).

``tokens`` are tokens computed (decoded and prefilled), ``kv_token_steps`` KV tokens read.
"""


class RequestLog:
    """Flat buffer of request rows, packed into blocks as it fills."""

    FLUSH_ROWS = 8192

    def __init__(self) -> None:
        self.buffer: list[float] = []
        self.limit = self.FLUSH_ROWS * N_REQUEST
        self.blocks: list[FloatArray] = []

    def flush(self) -> None:
        """Pack the buffered rows and empty the buffer in place."""
        if self.buffer:
            self.blocks.append(np.array(self.buffer, dtype=np.float64).reshape(-1, N_REQUEST))
            self.buffer.clear()

    def rows(self) -> FloatArray:
        """All rows, shape (requests, columns), in order of completion."""
        self.flush()
        return np.concatenate(self.blocks) if self.blocks else np.zeros((0, N_REQUEST))


class StrideLog:
    """Flat buffer of stride rows, folded into aggregates as it fills.

    Args:
        instances: number of instances in the run.
        width_s: first guess of the timeline's bin width [s].
        keep: also keep every row.

    The engine appends rows to ``buffer`` and calls ``flush`` when it holds ``limit`` values; gaps
    between two tokens of a request that were not consecutive decode steps go to ``gaps``, or, where
    many sequences share one, to ``pauses`` (gap, sequences, gap, sequences and so on).
    """

    FLUSH_ROWS = 8192

    def __init__(self, instances: int, width_s: float, keep: bool) -> None:
        self.buffer: list[float] = []
        self.gaps: list[float] = []
        self.pauses: list[float] = []
        self.limit = self.FLUSH_ROWS * N_STRIDE
        self.kept: list[FloatArray] | None = [] if keep else None
        self.itl = ItlSketch()
        self.timeline = Timeline(instances, width_s, ("busy", "batch", "blocks"))
        self.totals: dict[str, FloatArray] = {k: np.zeros(instances) for k in TOTALS}
        self.instances = instances

    def flush(self) -> None:
        """Fold the buffered rows into the aggregates and empty the buffers in place."""
        if self.gaps:
            gaps = np.array(self.gaps, dtype=np.float64)
            self.gaps.clear()
            self.itl.add(gaps, np.ones_like(gaps))
        if self.pauses:
            pauses = np.array(self.pauses, dtype=np.float64).reshape(-1, 2)
            self.pauses.clear()
            self.itl.add(pauses[:, 0], pauses[:, 1])
        if not self.buffer:
            return
        rows = np.array(self.buffer, dtype=np.float64).reshape(-1, N_STRIDE)
        self.buffer.clear()
        if self.kept is not None:
            self.kept.append(rows)
        self._fold(rows)

    def _fold(self, rows: FloatArray) -> None:
        _check_intervals(rows)
        instance = rows[:, 0].astype(np.int64)
        t0, t1, steps, batch, kv, new, pairs, read, sampled, fresh, blocks = rows[:, 1:12].T
        busy = t1 - t0
        # Σ_j (S + j·B) for j < steps, plus the KV read back by prefill chunks
        reads = steps * kv + batch * steps * (steps - 1) / 2 + read
        n = self.instances

        def count(weights: FloatArray | None) -> FloatArray:
            return np.bincount(instance, weights=weights, minlength=n).astype(np.float64)

        t = self.totals
        t["busy_s"] += count(busy)
        t["strides"] += count(None)
        t["steps"] += count(steps)
        t["tokens"] += count(batch * steps + new)
        # decode: one query per sequence against its whole context
        t["pairs"] += count(pairs + reads - read)
        t["rows"] += count(sampled * steps)
        t["kv_token_steps"] += count(reads)
        np.maximum.at(t["kv_peak_blocks"], instance, blocks)
        self.timeline.add(instance, t0, t1, busy=np.ones_like(t0), batch=batch, blocks=blocks)
        self._fold_gaps(rows[:, 13], busy / steps, steps, batch, fresh)

    def _fold_gaps(
        self,
        first_s: FloatArray,
        mean_s: FloatArray,
        steps: FloatArray,
        batch: FloatArray,
        fresh: FloatArray,
    ) -> None:
        """Token gaps of each stride: one per step and sequence that also decoded the step before.

        A sequence's first step after it joined (``fresh``) is left out; that gap is recorded when
        it is known. Step time is affine in the step's number within a stride, so a stride is cut into pieces
        across which it changes by at most half a bin, each piece standing at its middle.
        """
        half = mean_s - first_s  # half the rise from the first step to the last
        pieces = np.ceil(2.0 * half / (0.5 * (ItlSketch.RATIO - 1.0) * mean_s))
        n = np.clip(pieces, 1, np.maximum(steps, 1)).astype(np.int64)
        i = np.repeat(np.arange(n.size), n)
        j = np.arange(i.size) - np.repeat(np.cumsum(n) - n, n)
        # steps 0..k-1 rise linearly; piece j of n is centred at step (j + ½)·k/n − ½
        at = (j + 0.5) * (steps / n)[i] - 0.5
        slope = np.where(steps > 1, 2.0 * half / np.maximum(steps - 1, 1), 0.0)
        gap = first_s[i] + slope[i] * at
        self.itl.add(gap, (batch * steps / n)[i])
        self.itl.add(first_s, -fresh)

    def rows(self) -> FloatArray | None:
        """All stride rows, shape (strides, columns), if they were kept."""
        if self.kept is None:
            return None
        return np.concatenate(self.kept) if self.kept else np.zeros((0, N_STRIDE))


def _check_intervals(rows: FloatArray) -> None:
    """Refuse a stride that does not end, or ends before it begins: a fault of the engine.

    Raises:
        RuntimeError: the whole row, for a report.
    """
    forward = (rows[:, 2] >= rows[:, 1]) & np.isfinite(rows[:, 2])
    if not forward.all():
        row = rows[int(np.argmin(forward))].tolist()
        named = ", ".join(f"{key} {x:g}" for key, x in zip(STRIDE_COLUMNS, row, strict=True))
        raise RuntimeError(f"a stride runs backwards or never ends ({named}); this is a bug")
