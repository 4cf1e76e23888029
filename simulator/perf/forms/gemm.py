"""Matrix multiplication.

References:
    [1] S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
        for multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

import numpy as np

from simulator.perf.forms.arrays import Array, Size, as_float, p_norm

TILE = 128.0 * 128.0
"""Outputs of a tile that one multiprocessor computes at a time [1]."""

SMALLEST_TILE = 16.0
"""Rows of the smallest tile tensor cores work on [1]."""

SHORT_ROWS, LONG_ROWS = 256.0, 1024.0
"""GEMMs of at most ``SHORT_ROWS`` rows run at the clocks a short benchmark sees, those of
``LONG_ROWS`` and more at the clocks a served prefill sustains [rows]."""


def sustained_share(m: Size, sustained: float) -> Array:
    """Share of a GEMM's benchmarked efficiency that serving reaches over ``m`` rows [1].

    Benchmarks time a kernel alone; a prefill step of a serving engine runs for tens of
    milliseconds at the power limit, between kernels that evict its inputs, and its large GEMMs
    reach less. 1 up to 256 rows, ``sustained`` from 1,024 on, linear in log m between.

    Args:
        m: rows: tokens [1].
        sustained: the share large GEMMs reach [1].
    """
    m = np.clip(as_float(m), SHORT_ROWS, LONG_ROWS)
    way = np.log(m / SHORT_ROWS) / np.log(LONG_ROWS / SHORT_ROWS)
    return np.asarray(1.0 - (1.0 - sustained) * way)


def padded_rows(m: Size, tile: float) -> Array:
    """Rows a kernel computes for ``m``: whole tiles, of half the rows each time m fits [1].

    A kernel of tile 256 has one of 128, 64, … 16 rows for few tokens: 17 rows cost 32, 300 cost 512.

    Args:
        m: rows: tokens [1].
        tile: rows of the largest tile, a power of two times 16 [1]; 0: no padding.
    """
    m = as_float(m)
    if tile <= 0.0:
        return m
    found = np.ceil(m / tile) * tile
    while tile > SMALLEST_TILE:
        tile /= 2.0
        found = np.where(m <= tile, np.ceil(m / tile) * tile, found)
    return np.asarray(found)


def gemm_terms(
    m: Size,
    n: Size,
    k: Size,
    *,
    peak_flops: float,
    bandwidth: float,
    compute_eff: float,
    memory_eff: float,
    weight_bytes: float = 2.0,
    input_bytes: float = 2.0,
    output_bytes: float = 2.0,
    sustained: float = 1.0,
    k_ramp: float = 0.0,
    wave_exponent: float = 0.0,
    wave_limit: float = 1.0,
    row_tile: float = 0.0,
    sms: float = 1.0,
) -> tuple[Array, Array]:
    """The two limits of a GEMM: time of its arithmetic alone, and of its memory traffic alone [s].

    Arguments as in ``gemm_s``.
    """
    m, n, k = as_float(m), as_float(n), as_float(k)
    padded = padded_rows(m, row_tile)
    compute = 2.0 * padded * n * k / (peak_flops * compute_eff * sustained_share(m, sustained))
    if k_ramp > 0.0:
        compute = compute * (1.0 + np.divide(k_ramp, k, out=np.zeros_like(k), where=k > 0.0))
    if wave_exponent > 0.0:
        compute = compute * _last_wave(padded * n / (TILE * sms), wave_exponent, wave_limit)
    traffic = n * k * weight_bytes + m * k * input_bytes + m * n * output_bytes
    return compute, traffic / (bandwidth * memory_eff)


def gemm_s(
    m: Size,
    n: Size,
    k: Size,
    *,
    t0_s: float,
    peak_flops: float,
    bandwidth: float,
    compute_eff: float,
    memory_eff: float,
    p: float,
    weight_bytes: float = 2.0,
    input_bytes: float = 2.0,
    output_bytes: float = 2.0,
    quant_eff: float | None = None,
    sustained: float = 1.0,
    k_ramp: float = 0.0,
    wave_exponent: float = 0.0,
    wave_limit: float = 1.0,
    row_tile: float = 0.0,
    sms: float = 1.0,
) -> Array:
    """Time [s] of ``y[m,n] = x[m,k] · W[k,n]``: a roofline [1] whose corner is a p-norm.

    ``t0 + (compute^p + memory^p)^(1/p)``, plus ``5·m·k / (bandwidth·quant_eff)`` when the input is
    quantised to 8 bits on the fly (read 16 bits to scale, read again, write 8).

    Args:
        m: rows: tokens [1].
        n: columns of the weight [1].
        k: inner size [1].
        t0_s: fixed cost of the kernel [s].
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        compute_eff: fraction of ``peak_flops`` reached [1].
        memory_eff: fraction of ``bandwidth`` reached [1].
        p: sharpness of the corner [1]; 1 adds the two limits, infinity takes the larger.
        weight_bytes: bytes of one weight [bytes].
        input_bytes: bytes of one input as the kernel reads it [bytes].
        output_bytes: bytes of one output [bytes].
        quant_eff: fraction of ``bandwidth`` reached by the quantisation kernel [1]; None: no such
            kernel.
        sustained: see ``sustained_share`` [1].
        k_ramp: inner size over which a tile fills and drains its pipeline [1]; arithmetic takes
            ``1 + k_ramp/k`` times as long.
        wave_exponent: how much of the idle multiprocessors of the last wave of tiles is lost [1];
            0 none, 1 all. With w waves arithmetic takes ``(ceil(w)/w)^wave_exponent`` times.
        wave_limit: but never more than so many times, since kernels split k to fill a wave [1].
        row_tile: rows of the kernel's tile, see ``padded_rows`` [1]; 0: padding costs nothing.
        sms: streaming multiprocessors of the GPU [1].
    """
    compute, memory = gemm_terms(
        m,
        n,
        k,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        weight_bytes=weight_bytes,
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        sustained=sustained,
        k_ramp=k_ramp,
        wave_exponent=wave_exponent,
        wave_limit=wave_limit,
        row_tile=row_tile,
        sms=sms,
    )
    time = t0_s + p_norm(compute, memory, p)
    if quant_eff is not None:
        time = time + 5.0 * as_float(m) * as_float(k) / (bandwidth * quant_eff)
    return np.where(as_float(m) > 0.0, time, 0.0)


def _last_wave(waves: Array, exponent: float, limit: float) -> Array:
    """How many times longer arithmetic takes for a last wave that is not full; monotone in all."""
    whole = np.divide(np.ceil(waves), waves, out=np.ones_like(waves), where=waves > 0.0)
    return np.asarray(np.minimum(whole**exponent, limit))
