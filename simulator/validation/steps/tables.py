"""Measured kernels looked up at the shapes of a step, between the shapes that were measured.

GEMMs are interpolated in the logarithms of columns and rows at an ``m`` that was measured (half of
the grid of columns and rows is kept apart, so the points are scattered); attention is looked up at
head counts, batches and lengths that were measured; all-reduce is interpolated in its bytes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.interpolate import LinearNDInterpolator

from simulator.validation.operators.predict import SMALL_KV_BYTES, WARM_SHARE
from simulator.validation.operators.tables import Table

MISSING = float("nan")


class MeasuredKernels:
    """The bf16 kernels of one GPU and framework.

    Args:
        tables: the GPU's tables, one per operator.
        framework: whose kernels.
    """

    def __init__(self, tables: list[Table], framework: str) -> None:
        self.gpu = tables[0].gpu
        frames = {t.operator: t.frame for t in tables}
        self._frames = {
            name: frame[frame["framework"].astype(str) == framework]
            for name, frame in frames.items()
        }
        self._surfaces: dict[int, LinearNDInterpolator | None] = {}

    def gemm_s(self, m: int, n: int, k: int) -> float:
        """Time of a GEMM [s]; NaN outside what was measured."""
        if m not in self._surfaces:
            self._surfaces[m] = self._surface(m)
        surface = self._surfaces[m]
        if surface is None:
            return MISSING
        return float(np.exp(surface(np.log(n), np.log(k)))) * 1e-6

    def _surface(self, m: int) -> LinearNDInterpolator | None:
        frame = self._frames["gemm"]
        rows = frame[(frame["m"] == m) & (frame["dtype"].astype(str) == "bfloat16")]
        if rows.empty:
            return None
        mean = rows.groupby(["n", "k"])["latency_us"].mean()
        points = np.log(np.array(mean.index.to_list(), dtype=np.float64))
        return LinearNDInterpolator(points, np.log(mean.to_numpy()))

    def decode_s(self, batch: int, context: int, heads: int, kv_heads: int, dim: int) -> float:
        """Time of decode attention [s]; NaN where not measured, or where the L2 cache served it."""
        kv = 4.0 * batch * context * kv_heads * dim
        if SMALL_KV_BYTES <= kv <= WARM_SHARE * self.gpu.l2_bytes.value:
            return MISSING
        return self._attention("attn_decode", batch, context, heads, kv_heads, dim)

    def prefill_s(self, batch: int, length: int, heads: int, kv_heads: int, dim: int) -> float:
        """Time of prefill attention over whole prompts [s]; NaN where not measured."""
        return self._attention("attn_prefill", batch, length, heads, kv_heads, dim)

    def _attention(
        self, name: str, batch: int, length: int, heads: int, kv: int, dim: int
    ) -> float:
        return self._attentions[name].get((batch, length, heads, kv, dim), MISSING) * 1e-6

    @cached_property
    def _attentions(self) -> dict[str, dict[tuple[int, ...], float]]:
        out: dict[str, dict[tuple[int, ...], float]] = {}
        for name, length in (("attn_decode", "kv_len"), ("attn_prefill", "isl")):
            frame = self._frames[name]
            rows = frame[(frame["kv_dtype"].astype(str) == "bfloat16") & (frame["window"] == 0)]
            keys = ["batch", length, "n_heads", "n_kv_heads", "head_dim"]
            mean = rows.groupby(keys)["latency_us"].mean()
            shapes = mean.index.to_frame().to_numpy(dtype=np.int64).tolist()
            out[name] = dict(zip(map(tuple, shapes), mean.tolist(), strict=True))
        return out

    def all_reduce_s(self, size_bytes: float, gpus: int) -> float:
        """Time of an all-reduce [s]; 0 on one GPU, NaN where not measured."""
        if gpus == 1:
            return 0.0
        frame = self._frames["comm"]
        rows = frame[(frame["op"].astype(str) == "all_reduce") & (frame["n_gpus"] == gpus)]
        mean = rows.groupby("bytes")["latency_us"].mean()
        sizes = mean.index.to_numpy(dtype=np.float64)
        if not len(sizes) or not sizes[0] <= size_bytes <= sizes[-1]:
            return MISSING
        return float(np.exp(np.interp(np.log(size_bytes), np.log(sizes), np.log(mean)))) * 1e-6


def by_gpu(tables: list[Table]) -> dict[str, list[Table]]:
    """Tables of each GPU that has all four operators."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        found.setdefault(table.gpu.name, []).append(table)
    return {name: group for name, group in found.items() if len(group) == 4}
