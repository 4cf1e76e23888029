"""Routed experts: two grouped GEMMs of one rank, and the small kernels around them."""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float, p_norm

ACTIVATION_BYTES = 2.0
"""Inputs, products and outputs of an expert are bf16 in memory [bytes]."""


def uniform_experts(tokens: Size, *, local: Size, experts: Size, per_token: Size) -> Array:
    """Distinct experts of one rank that ``tokens`` tokens visit under uniform routing [1].

    ``local·(1 - (1 - per_token/experts)^tokens)``.

    Args:
        tokens: tokens routed, of all ranks [1].
        local: experts on the rank [1].
        experts: experts in all [1].
        per_token: experts a token visits [1].
    """
    missed = 1.0 - as_float(per_token) / as_float(experts)
    return as_float(local) * (1.0 - missed ** as_float(tokens))


def moe_terms(
    rows: Size,
    touched: Size,
    *,
    hidden: Size,
    width: Size,
    peak_flops: float,
    bandwidth: float,
    compute_eff: float,
    memory_eff: float,
    tile_rows: float,
    weight_bytes: float = 2.0,
) -> tuple[Array, Array]:
    """The two limits of the grouped GEMMs: their arithmetic alone, their weights alone [s].

    Arguments as in ``moe_gemm_s``.
    """
    expert = 3.0 * as_float(hidden) * as_float(width)
    touched = as_float(touched)
    padded = as_float(rows) + tile_rows * touched
    compute = 2.0 * padded * expert / (peak_flops * compute_eff)
    return compute, touched * expert * weight_bytes / (bandwidth * memory_eff)


def moe_gemm_s(
    rows: Size,
    touched: Size,
    pairs: Size,
    *,
    hidden: Size,
    width: Size,
    t0_s: float,
    expert_s: float,
    peak_flops: float,
    bandwidth: float,
    compute_eff: float,
    memory_eff: float,
    p: float,
    tile_rows: float,
    own_passes: float,
    all_passes: float,
    weight_bytes: float = 2.0,
) -> Array:
    """Time [s] of one layer's gated routed experts on one rank, sort and weighted sum included.

    ``t0 + expert·touched + (compute^p + weights^p)^(1/p) + activations``. Weights are read once for
    each expert any token visits; each of them pads its rows by part of a tile; activations move
    ``own_passes`` times for the rank's own (token, expert) pairs and ``all_passes`` times for those
    of all ranks, which kernels that sort and sum without knowing whose pairs they are go through.

    Args:
        rows: (token, expert) pairs this rank computes [1].
        touched: different experts they visit [1].
        pairs: (token, expert) pairs of all ranks, ``tokens·experts_per_token`` [1].
        hidden: width of the residual stream [1].
        width: inner width of an expert on this rank [1].
        t0_s: fixed cost of all kernels of the layer [s].
        expert_s: fixed cost of an expert visited [s].
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        compute_eff: fraction of ``peak_flops`` reached [1].
        memory_eff: fraction of ``bandwidth`` reached [1].
        p: sharpness of the corner [1].
        tile_rows: rows of padding an expert visited costs [1].
        own_passes: passes over the activations of the rank's own pairs, each reading or writing
            ``2·hidden + 3·width`` numbers, at the bandwidth of the data sheet [1].
        all_passes: passes over ``hidden`` numbers of every pair of all ranks [1].
        weight_bytes: bytes of one weight, scales included [bytes].
    """
    rows, hidden, width = as_float(rows), as_float(hidden), as_float(width)
    compute, memory = moe_terms(
        rows,
        touched,
        hidden=hidden,
        width=width,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        tile_rows=tile_rows,
        weight_bytes=weight_bytes,
    )
    own = own_passes * rows * (2.0 * hidden + 3.0 * width)
    every = all_passes * as_float(pairs) * hidden
    moved = ACTIVATION_BYTES * (own + every) / bandwidth
    time = t0_s + expert_s * as_float(touched) + p_norm(compute, memory, p) + moved
    return np.where(as_float(pairs) > 0.0, time, 0.0)
