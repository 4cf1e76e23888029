"""Time of one kernel as a function of its shape: few physical parameters, vectorised.

Every function broadcasts NumPy arrays over shapes, returns seconds, and costs nothing for an empty
shape (no kernel is launched). Time never falls when a size grows. Efficiencies are fractions of the
data sheet, so a parameter set reads as "how much of the silicon this kernel family reaches".

The forms were chosen on measured kernels of the ``aiconfigurator-core`` 0.12.0 operator tables
(Apache-2.0), held out by weight shape, head configuration or batch: see docs/hardware.md.

References:
    [1] S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
        for multicore architectures", CACM 52(4), 2009.
    [2] T. Dao, "FlashAttention-2: faster attention with better parallelism and work
        partitioning", 2023: causal attention computes half of the square, and never writes it.
    [3] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations
        in MPICH", IJHPCA 19(1), 2005: costs of one-shot and two-shot (reduce-scatter, all-gather)
        all-reduce.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Size = npt.ArrayLike


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
    m = np.clip(_float(m), SHORT_ROWS, LONG_ROWS)
    way = np.log(m / SHORT_ROWS) / np.log(LONG_ROWS / SHORT_ROWS)
    return np.asarray(1.0 - (1.0 - sustained) * way)


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
) -> tuple[Array, Array]:
    """The two limits of a GEMM: time of its arithmetic alone, and of its memory traffic alone [s].

    Arguments as in ``gemm_s``.
    """
    m, n, k = _float(m), _float(n), _float(k)
    compute = 2.0 * m * n * k / (peak_flops * compute_eff * sustained_share(m, sustained))
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
    )
    time = t0_s + _p_norm(compute, memory, p)
    if quant_eff is not None:
        time = time + 5.0 * _float(m) * _float(k) / (bandwidth * quant_eff)
    return np.where(_float(m) > 0.0, time, 0.0)


def decode_attention_coefficients(
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    tile_s: float,
    memory_eff: float,
    bandwidth: float,
    sms: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
) -> tuple[float, Array, Array]:
    """What ``decode_attention_s`` is affine in: (fixed [s], per sequence [s], per KV token [s]).

    Arguments as in ``decode_attention_s``.
    """
    memory = bandwidth * memory_eff
    q_o = 2.0 * _float(heads) * _float(head_dim) * io_bytes
    kv = 2.0 * _float(kv_heads) * _float(head_dim) * kv_bytes
    return t0_s, tile_s * _float(kv_heads) / sms + q_o / memory, kv / memory


def decode_attention_s(
    batch: Size,
    kv_tokens: Size,
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    tile_s: float,
    memory_eff: float,
    bandwidth: float,
    sms: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
) -> Array:
    """Time [s] of one layer's attention for one new token a sequence; affine in resident tokens.

    ``t0 + tile·batch·kv_heads/SMs + (KV read once + Q and O)/(bandwidth·memory_eff)``: each
    (sequence, KV head) is a tile of work on one multiprocessor, and each KV byte is read once.

    Args:
        batch: sequences [1].
        kv_tokens: resident KV tokens they read together, the current ones included [tokens].
        heads: query heads on this GPU [1].
        kv_heads: KV heads on this GPU [1].
        head_dim: width of a head [1].
        t0_s: fixed cost, the write of the new K and V included [s].
        tile_s: cost of one tile [s].
        memory_eff: fraction of ``bandwidth`` reached [1].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        sms: streaming multiprocessors of the GPU [1].
        kv_bytes: bytes of one stored K or V number [bytes].
        io_bytes: bytes of one Q or O number [bytes].
    """
    fixed, per_sequence, per_token = decode_attention_coefficients(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        t0_s=t0_s,
        tile_s=tile_s,
        memory_eff=memory_eff,
        bandwidth=bandwidth,
        sms=sms,
        kv_bytes=kv_bytes,
        io_bytes=io_bytes,
    )
    batch = _float(batch)
    return np.where(batch > 0.0, fixed + per_sequence * batch + per_token * _float(kv_tokens), 0.0)


def prefill_attention_coefficients(
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_dim_exponent: float = 0.0,
) -> tuple[float, Array, Array, Array]:
    """What ``prefill_attention_s`` adds up: (fixed, per pair, per new token, per token read) [s].

    Arguments as in ``prefill_attention_s``.
    """
    head_dim = _float(head_dim)
    memory = bandwidth * memory_eff
    width = _float(heads) * head_dim
    kv = 2.0 * _float(kv_heads) * head_dim * kv_bytes
    efficiency = np.minimum(1.0, compute_eff * (head_dim / 128.0) ** head_dim_exponent)
    per_pair = 4.0 * width / (peak_flops * efficiency)
    return t0_s, per_pair, (2.0 * width * io_bytes + kv) / memory, kv / memory


def prefill_attention_s(
    new: Size,
    pairs: Size,
    read: Size,
    *,
    heads: Size,
    kv_heads: Size,
    head_dim: Size,
    t0_s: float,
    compute_eff: float,
    memory_eff: float,
    peak_flops: float,
    bandwidth: float,
    kv_bytes: float = 2.0,
    io_bytes: float = 2.0,
    head_dim_exponent: float = 0.0,
) -> Array:
    """Time [s] of one layer's causal attention over prompt chunks; additive in its parts.

    ``t0 + 4·heads·head_dim·pairs/(peak·compute_eff)
    + (Q and O and K,V written of new tokens, K,V read back)/(bandwidth·memory_eff)``.
    A chunk of ``c`` tokens after ``p`` cached ones has ``pairs = c·p + c²/2`` [2] and reads back
    ``p + c``; whole prompts of length L in a batch b have ``new = read = b·L``,
    ``pairs = b·L²/2``. The measured tables have no cached prefix: ``p > 0`` extrapolates.

    Args:
        new: tokens computed, summed over the chunks [tokens].
        pairs: query-key pairs under the causal mask, summed [1]; see ``causal_pairs``.
        read: KV tokens read back, summed ``p + c`` [tokens].
        heads: query heads on this GPU [1].
        kv_heads: KV heads on this GPU [1].
        head_dim: width of a head [1].
        t0_s: fixed cost of the kernels of one step [s].
        compute_eff: fraction of ``peak_flops`` reached at head_dim 128 [1].
        memory_eff: fraction of ``bandwidth`` reached [1]; above 1 where the L2 cache serves reads.
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth of the data sheet [bytes/s].
        kv_bytes: bytes of one stored K or V number [bytes].
        io_bytes: bytes of one Q or O number [bytes].
        head_dim_exponent: the compute efficiency scales with ``(head_dim/128)`` to this power, and
            never exceeds 1 [1].
    """
    fixed, per_pair, per_new, per_read = prefill_attention_coefficients(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        t0_s=t0_s,
        compute_eff=compute_eff,
        memory_eff=memory_eff,
        peak_flops=peak_flops,
        bandwidth=bandwidth,
        kv_bytes=kv_bytes,
        io_bytes=io_bytes,
        head_dim_exponent=head_dim_exponent,
    )
    new = _float(new)
    time = fixed + per_pair * _float(pairs) + per_new * new + per_read * _float(read)
    return np.where(new > 0.0, time, 0.0)


def causal_pairs(cached: Size, new: Size) -> Array:
    """Query-key pairs of a chunk of ``new`` tokens after ``cached`` ones: ``c·p + c²/2``."""
    new = _float(new)
    return new * (_float(cached) + 0.5 * new)


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
) -> Array:
    """Time [s] of an all-reduce within a node: the better of one-shot and two-shot [3].

    One-shot, every rank reads every other's tensor: ``t + (N-1)·B/(link·e1)``. Two-shot,
    reduce-scatter then all-gather: ``t + d + 2(N-1)/N·B/(link·e2)``. Both with
    ``t = t0 + rank·(N-1)``. One GPU has nothing to reduce.

    Args:
        message_bytes: the tensor each rank holds [bytes].
        gpus: ranks N [1].
        t0_s: fixed cost [s].
        rank_s: cost per further rank [s].
        one_shot_eff: fraction of the link reached one-shot [1].
        two_shot_s: extra fixed cost of two-shot [s].
        two_shot_eff: fraction of the link reached two-shot [1].
        link_bytes_per_s: bandwidth of one GPU's links, one way [bytes/s].
    """
    size = _float(message_bytes)
    if gpus <= 1:
        return np.zeros_like(size)
    start = t0_s + rank_s * (gpus - 1)
    one = (gpus - 1) * size / (link_bytes_per_s * one_shot_eff)
    two = two_shot_s + 2.0 * (gpus - 1) / gpus * size / (link_bytes_per_s * two_shot_eff)
    return np.where(size > 0.0, start + np.minimum(one, two), 0.0)


def all_reduce_ring_s(
    message_bytes: Size, gpus: int, *, alpha_s: float, bus_bytes_per_s: float
) -> Array:
    """Time [s] of an all-reduce over a bus without NVLink: ``alpha + 2(N-1)/N·B/bus`` [3].

    Args:
        message_bytes: the tensor each rank holds [bytes].
        gpus: ranks N [1]; one GPU has nothing to reduce.
        alpha_s: fixed cost at this N [s].
        bus_bytes_per_s: bus bandwidth at this N, in the convention of nccl-tests [bytes/s].
    """
    size = _float(message_bytes)
    if gpus <= 1:
        return np.zeros_like(size)
    time = alpha_s + 2.0 * (gpus - 1) / gpus * size / bus_bytes_per_s
    return np.where(size > 0.0, time, 0.0)


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
    size = _float(traffic_bytes)
    return np.where(size > 0.0, kernels * t0_s + size / (bandwidth * memory_eff), 0.0)


def _float(x: Size) -> Array:
    return np.asarray(x, dtype=np.float64)


def _p_norm(a: Array, b: Array, p: float) -> Array:
    """``(a^p + b^p)^(1/p)`` without overflow or underflow, for a, b >= 0 and not both 0."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(low, high, out=np.zeros_like(high), where=high > 0.0)
    return np.asarray(high * (1.0 + ratio**p) ** (1.0 / p), dtype=np.float64)
