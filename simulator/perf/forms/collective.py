"""Collectives within a node.

References:
    [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations
        in MPICH", IJHPCA 19(1), 2005: costs of one-shot and two-shot (reduce-scatter, all-gather)
        all-reduce.
    [2] B. Klenk et al., "An in-network architecture for accelerating shared-memory multiprocessor
        collectives", ISCA 2020: reduction and multicast in the NVLink switch.
"""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float

CUSTOM_MOST_BYTES = 8388608.0
"""Largest message engines reduce with one-shot and two-shot kernels of their own [bytes]; larger ones
go to the collective library."""


def all_reduce_s(
    message_bytes: Size,
    gpus: int,
    *,
    t0_s: float,
    rank_s: float,
    one_shot_eff: float,
    two_shot_s: float,
    two_shot_eff: float,
    link_bytes_per_s: float,
    large_s: float = 0.0,
    ring_eff: float = 0.0,
    switch_eff: float = 0.0,
    custom_bytes: float = CUSTOM_MOST_BYTES,
) -> Array:
    """Time [s] of an all-reduce within a node: the better of one-shot and two-shot [1].

    One-shot, every rank reads every other's tensor: ``t + (N-1)·B/(link·e1)``. Two-shot,
    reduce-scatter then all-gather: ``t + d + 2(N-1)/N·B/(link·e2)``. Both with
    ``t = t0 + rank·(N-1)``. One GPU has nothing to reduce.

    Messages over ``custom_bytes`` are the collective library's: ``t + l`` and the better of a
    ring, ``2(N-1)/N·B/(link·er)`` [1], and of a sum in the switch [2], where a rank sends its tensor
    once and receives its share of the sum, ``(N+1)/N·B/(link·es)``.

    Args:
        message_bytes: the tensor each rank holds [bytes].
        gpus: ranks N [1].
        t0_s: fixed cost [s].
        rank_s: cost per further rank [s].
        one_shot_eff: fraction of the link reached one-shot [1].
        two_shot_s: extra fixed cost of two-shot [s].
        two_shot_eff: fraction of the link reached two-shot [1].
        link_bytes_per_s: bandwidth of one GPU's links, one way [bytes/s].
        large_s: extra fixed cost of a large message [s].
        ring_eff: fraction of the link a ring reaches with large messages [1]; 0: not known, large
            messages are two-shot.
        switch_eff: fraction of the link reached where the switch sums [1]; 0: it does not.
        custom_bytes: largest message of the engine's own kernels [bytes].
    """
    size = as_float(message_bytes)
    if gpus <= 1:
        return np.zeros_like(size)
    start = t0_s + rank_s * (gpus - 1)
    one = (gpus - 1) * size / (link_bytes_per_s * one_shot_eff)
    two = two_shot_s + 2.0 * (gpus - 1) / gpus * size / (link_bytes_per_s * two_shot_eff)
    moved = np.minimum(one, two)
    if ring_eff > 0.0:
        each = 2.0 * (gpus - 1) / gpus / ring_eff
        if switch_eff > 0.0:
            each = min(each, (gpus + 1) / gpus / switch_eff)
        large = large_s + each * size / link_bytes_per_s
        moved = np.where(size > custom_bytes, large, moved)
    return np.where(size > 0.0, start + moved, 0.0)


def all_reduce_ring_s(
    message_bytes: Size, gpus: int, *, alpha_s: float, bus_bytes_per_s: float
) -> Array:
    """Time [s] of an all-reduce over a bus without NVLink: ``alpha + 2(N-1)/N·B/bus`` [1].

    Args:
        message_bytes: the tensor each rank holds [bytes].
        gpus: ranks N [1]; one GPU has nothing to reduce.
        alpha_s: fixed cost at this N [s].
        bus_bytes_per_s: bus bandwidth at this N, in the convention of nccl-tests [bytes/s].
    """
    size = as_float(message_bytes)
    if gpus <= 1:
        return np.zeros_like(size)
    time = alpha_s + 2.0 * (gpus - 1) / gpus * size / bus_bytes_per_s
    return np.where(size > 0.0, time, 0.0)


def all_to_all_s(
    message_bytes: Size,
    gpus: int,
    *,
    t0_s: float,
    rank_s: float,
    eff: float,
    link_bytes_per_s: float,
) -> Array:
    """Time [s] of an all-to-all within a node: every rank keeps one share and sends the others.

    ``t0 + rank·(N-1) + (N-1)/N·B/(link·eff)``. One GPU has nothing to send.

    Args:
        message_bytes: the tensor each rank holds, its own share included [bytes].
        gpus: ranks N [1].
        t0_s: fixed cost [s].
        rank_s: cost per further rank [s].
        eff: fraction of the link reached [1].
        link_bytes_per_s: bandwidth of one GPU's links, one way [bytes/s].
    """
    size = as_float(message_bytes)
    if gpus <= 1:
        return np.zeros_like(size)
    moved = (gpus - 1) / gpus * size / (link_bytes_per_s * eff)
    return np.where(size > 0.0, t0_s + rank_s * (gpus - 1) + moved, 0.0)
