"""Synthetic measurements with known parameters, for the tests of the fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from simulator.perf.fits import Sheet
from simulator.perf.fits.kernel import Kernel

SHEET = Sheet(peak_flops=989e12, bandwidth=3.35e12, l2_bytes=50e6, sms=132, link_bytes_per_s=450e9)
GEMM_TRUTH = {"t0_s": 3.5e-6, "compute_eff": 0.8, "memory_eff": 0.86, "p": 3.0}
DECODE_TRUTH = {"t0_s": 1.2e-5, "tile_s": 2e-6, "memory_eff": 0.9}
PREFILL_TRUTH = {"t0_s": 1.3e-5, "compute_eff": 0.68, "memory_eff": 0.45}
MOE_TRUTH = {
    "t0_s": 3e-5, "expert_s": 3e-8, "compute_eff": 0.5, "memory_eff": 0.9, "p": 3.0,
    "tile_rows": 40.0, "own_passes": 1.0, "all_passes": 2.0,
}  # fmt: skip
MLA_DECODE_TRUTH = {
    "t0_s": 1.3e-5, "sequence_s": 4e-8, "compute_eff": 0.6, "memory_eff": 0.9, "p": 2.0,
    "head_tile": 24.0, "head_s": 2e-9,
}  # fmt: skip
MLA_PREFILL_TRUTH = {"t0_s": 1.5e-5, "compute_eff": 0.6, "memory_eff": 0.5, "row_s": 2e-9}
REDUCE_TRUTH = {
    "t0_s": 4e-6, "rank_s": 1e-7, "one_shot_eff": 0.6, "two_shot_s": 5e-6, "two_shot_eff": 0.7,
}  # fmt: skip
BUS_TRUTH = {"alpha_s": 1e-5, "bus_bytes_per_s": 2e10}
EXCHANGE_TRUTH = {"t0_s": 1e-5, "rank_s": 1e-6, "eff": 0.5}
MOVE_TRUTH = {"t0_s": 3e-6, "memory_eff": 0.8}


def gemm_shapes(rng: np.random.Generator, weights: int = 80, each: int = 12) -> pd.DataFrame:
    n, k = np.exp(rng.uniform(np.log(6000), np.log(40_000), (2, weights))).astype(int)
    m = np.exp(rng.uniform(0, np.log(8192), (weights, each))).astype(int)
    return pd.DataFrame(
        {"dtype": "bfloat16", "m": m.ravel(), "n": n.repeat(each), "k": k.repeat(each)}
    )


def attention_shapes(rng: np.random.Generator, length: str) -> pd.DataFrame:
    heads = [(h, h // g) for h in range(4, 132, 4) for g in (2, 4, 8) if h % g == 0]
    rows = [
        (h, kv, int(b), int(n))
        for h, kv in heads
        for b, n in zip(
            np.exp(rng.uniform(0, np.log(256), 12)),
            np.exp(rng.uniform(np.log(64), np.log(16_000), 12)),
            strict=True,
        )
    ]
    table = pd.DataFrame(rows, columns=["n_heads", "n_kv_heads", "batch", length])
    return table.assign(kv_dtype="bfloat16", head_dim=128, window=0, step=0)


def latent_shapes(rng: np.random.Generator, length: str) -> pd.DataFrame:
    rows = [
        (h, b, int(n))
        for h in (1, 2, 4, 8, 16, 32, 64, 128)
        for b in (1, 2, 4, 8, 16, 32, 64, 128, 256)
        for n in np.exp(rng.uniform(np.log(64), np.log(30_000), 8))
    ]
    return pd.DataFrame(rows, columns=["n_heads", "batch", length]).assign(kv_dtype="bfloat16")


def expert_shapes(rng: np.random.Generator) -> pd.DataFrame:
    rows = [
        (int(t), h, w, k, e, ep)
        for h, w in ((2048, 768), (4096, 1536), (7168, 2048), (4096, 14336), (6144, 2560))
        for k, e in ((8, 128), (2, 8), (8, 256), (4, 64))
        for ep in (1, 2, 4)
        for t in np.exp(rng.uniform(0, np.log(16_384), 12))
    ]
    table = pd.DataFrame(rows, columns=["tokens", "hidden", "width", "topk", "experts", "ep"])
    return table.assign(dtype="bfloat16", balanced=True)


def messages() -> pd.DataFrame:
    rows = [(n, int(size)) for n in (2, 4, 8) for size in np.geomspace(8192, 8388608, 24)]
    return pd.DataFrame(rows, columns=["n_gpus", "bytes"])


def timed(
    kernel: Kernel,
    shapes: pd.DataFrame,
    truth: Mapping[str, float],
    rng: np.random.Generator,
    noise: float,
    shared: float = 0.0,
) -> pd.DataFrame:
    """Rows that follow the form exactly, times noise of each row and noise its group shares."""
    exact = kernel.predict(shapes, SHEET, truth)
    group = shapes.groupby(list(kernel.keys)).ngroup().to_numpy()
    error = noise * rng.standard_normal(len(shapes))
    error += shared * rng.standard_normal(group.max() + 1)[group]
    return shapes.assign(latency_us=1e6 * exact * np.exp(error))
