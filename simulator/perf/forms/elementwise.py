"""Kernels that only move bytes."""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float


def elementwise_s(
    traffic_bytes: Size, *, kernels: float = 1.0, t0_s: float, memory_eff: float, bandwidth: float
) -> Array:
    """Time [s] of ``kernels`` memory-bound kernels that move ``traffic_bytes`` together.

    Args:
        traffic_bytes: bytes read and written [bytes].
        kernels: how many kernels share them [1].
        t0_s: fixed cost of one [s].
        memory_eff: fraction of ``bandwidth`` reached [1].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
    """
    size = as_float(traffic_bytes)
    return np.where(size > 0.0, kernels * t0_s + size / (bandwidth * memory_eff), 0.0)
