"""Routed experts: two grouped GEMMs of one rank, and the small kernels around them.

References:
    [1] SGLang 0.5.10 and 0.5.14, the fused experts in Triton: their tiles come from a table shipped
        for a GPU, a number of experts on the rank and their width; shapes without one take 16-row
        tiles up to as many tokens as experts and 64-row ones from there on.
    [2] E. Frantar et al., "MARLIN: mixed-precision auto-regressive parallel inference on large
        language models", PPoPP 2025; as vLLM 0.24 and SGLang 0.5.14 run it for experts in int4, the
        tile is the smallest of 8 to 64 rows that an expert's even share fills to nine tenths.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from simulator.perf.forms.arrays import Array, Size, as_float, p_norm

Flags = npt.NDArray[np.bool_]

ACTIVATION_BYTES = 2.0
"""Inputs, products and outputs of an expert are bf16 in memory [bytes]."""

DEFAULT_TILE = 64.0
"""Rows of the tile for shapes without a table of tiles and more tokens than experts [1]: see above."""


TILE_FILL = 0.9
"""Share of a tile an expert's even share of the pairs may fill before the next one is chosen [1]."""


def chosen_tile(share: Size, tiles: Sequence[float]) -> Array:
    """Rows of the smallest tile that an expert's even share of the pairs fills to nine tenths [1].

    Args:
        share: (token, expert) pairs of all ranks per expert of this one [1].
        tiles: rows of the tiles there are, ascending [1].
    """
    rows = np.asarray(tiles, dtype=np.float64)
    place = np.searchsorted(rows * TILE_FILL, as_float(share), side="right")
    return np.asarray(rows[np.minimum(place, len(rows) - 1)], dtype=np.float64)


def default_tiles(
    tokens: Size, *, local: Size, width: Size, tuned: Collection[tuple[int, int]] | None
) -> Flags:
    """Where the kernel runs its default tile for many tokens, since nobody tuned one [1].

    Args:
        tokens: tokens routed, of all ranks [1].
        local: experts on the rank [1].
        width: inner width of an expert on this rank [1].
        tuned: (experts on the rank, width) with a table of tiles; None: all shapes have theirs.
    """
    tokens, local, width = np.broadcast_arrays(tokens, local, width)
    if tuned is None:
        return np.zeros(tokens.shape, dtype=np.bool_)
    pairs = zip(local.ravel(), width.ravel(), strict=True)
    known = np.array([(int(e), int(w)) in tuned for e, w in pairs], dtype=np.bool_)
    return np.asarray(~known.reshape(tokens.shape) & (tokens > local))


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
    tile: Size = 0.0,
    even: Flags | bool = False,
    untuned: Flags | bool = False,
    untuned_compute: float = 1.0,
    untuned_memory: float = 1.0,
) -> tuple[Array, Array]:
    """The two limits of the grouped GEMMs: their arithmetic alone, their weights alone [s].

    Arguments as in ``moe_gemm_s``.
    """
    expert = 3.0 * as_float(hidden) * as_float(width)
    rows, touched = as_float(rows), as_float(touched)
    whole = np.where(untuned, DEFAULT_TILE, as_float(tile))
    some = rows + tile_rows * touched
    padded = np.where(whole > 0.0, _whole_tiles(rows, touched, whole, even), some)
    flops_per_s = peak_flops * compute_eff * np.where(untuned, untuned_compute, 1.0)
    bytes_per_s = bandwidth * memory_eff * np.where(untuned, untuned_memory, 1.0)
    return 2.0 * padded * expert / flops_per_s, touched * expert * weight_bytes / bytes_per_s


def _whole_tiles(rows: Array, touched: Array, tile: Array, even: Flags | bool) -> Array:
    """Rows when each expert's fill whole tiles: exactly of even loads, in expectation of others."""
    size = np.maximum(tile, 1.0)
    rows, touched, size = np.broadcast_arrays(rows, touched, size)
    filled = np.divide(rows, touched * size, out=np.zeros(rows.shape), where=touched > 0.0)
    count = np.where(even, np.ceil(filled), np.maximum(1.0, filled + 0.5))
    return np.asarray(touched * size * count, dtype=np.float64)


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
    tile: Size = 0.0,
    even: Flags | bool = False,
    untuned: Flags | bool = False,
    untuned_compute: float = 1.0,
    untuned_memory: float = 1.0,
    slots: Size | None = None,
    foreign_rows: float = 0.0,
) -> Array:
    """Time [s] of one layer's gated routed experts on one rank, sort and weighted sum included.

    ``t0 + expert·touched + (compute^p + weights^p)^(1/p) + activations``. Weights are read once for
    each expert any token visits; each of them pads its rows by part of a tile; activations move
    ``own_passes`` times for the rank's own (token, expert) pairs and ``all_passes`` times for those
    of all ranks, which kernels that sort, clear and sum without knowing whose pairs they are go
    through. Shapes that nobody tuned tiles for keep a share of both efficiencies and pad each expert
    to whole tiles of ``DEFAULT_TILE`` rows, by half a tile on average [1]; so do kernels with a
    ``tile`` of their own choice [2].

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
        all_passes: passes over ``hidden + width`` numbers of every pair of all ranks [1].
        weight_bytes: bytes of one weight, scales included [bytes].
        tile: rows of the tile an expert's rows fill whole ones of (``chosen_tile``) [1]; 0: they
            are padded by ``tile_rows``.
        even: where all experts visited get as many rows as the next.
        untuned: where the default tile runs (``default_tiles``).
        untuned_compute: share of ``compute_eff`` it keeps [1].
        untuned_memory: share of ``memory_eff`` it keeps [1].
        slots: pairs of the tokens that visit this rank, whichever rank computes them [1]; ``rows``
            when None.
        foreign_rows: share of those beyond ``rows`` that this rank computes as well, since its
            kernel does not leave them out [1].
    """
    rows, hidden, width = as_float(rows), as_float(hidden), as_float(width)
    if slots is not None:
        rows = rows + foreign_rows * np.maximum(as_float(slots) - rows, 0.0)
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
        tile=tile,
        even=even,
        untuned=untuned,
        untuned_compute=untuned_compute,
        untuned_memory=untuned_memory,
    )
    own = own_passes * rows * (2.0 * hidden + 3.0 * width)
    every = all_passes * as_float(pairs) * (hidden + width)
    moved = ACTIVATION_BYTES * (own + every) / bandwidth
    time = t0_s + expert_s * as_float(touched) + p_norm(compute, memory, p) + moved
    return np.where(as_float(pairs) > 0.0, time, 0.0)
