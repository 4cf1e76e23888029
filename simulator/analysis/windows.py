"""What attention groups with a window or chunks read and keep of many sequences at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.perf.table import AttentionGroupPlan

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def cumulative_reads(group: AttentionGroupPlan, tokens: IntArray) -> IntArray:
    """Tokens read by the decode steps at contexts 1 to ``tokens`` together, elementwise [tokens]."""
    if group.local_chunk is not None:
        c = group.local_chunk
        whole, rest = np.divmod(tokens, c)
        found = whole * (c * (c + 1) // 2) + rest * (rest + 1) // 2
    elif group.window is not None:
        below = np.minimum(tokens, group.window)
        found = below * (below + 1) // 2 + group.window * (tokens - below)
    else:
        found = tokens * (tokens + 1) // 2
    return np.asarray(found, dtype=np.int64)


def prompt_pairs(group: AttentionGroupPlan, prompt: IntArray) -> FloatArray:
    """Query-key pairs of whole prompts, however they are cut into chunks [pairs]."""
    p = prompt.astype(np.float64)
    if group.local_chunk is not None:
        whole, rest = np.divmod(p, group.local_chunk)
        return np.asarray(0.5 * (whole * group.local_chunk**2 + rest * rest))
    if group.window is not None:
        below = np.minimum(p, group.window)
        return np.asarray(0.5 * below * below + group.window * (p - below))
    return np.asarray(0.5 * p * p)


def read_back(group: AttentionGroupPlan, prompt: float, chunks: float | FloatArray) -> FloatArray:
    """KV tokens read by all ``chunks`` equal chunks of a prompt together [tokens].

    The j-th of k chunks of c tokens, from 0, reads its own c and the ``j·c`` before it, or as many
    of these as the group looks back on: all of them, a window, or on average half a chunk of local
    attention.
    """
    k = np.maximum(np.asarray(chunks, dtype=np.float64), 1.0)
    last = prompt * (k - 1.0) / k  # tokens before the last chunk
    if group.local_chunk is not None:
        back = np.minimum(last, group.local_chunk) / 2.0
    elif group.window is not None:
        inside = np.minimum(last, group.window)
        mean = inside * inside / 2.0 + group.window * (last - inside)
        back = np.divide(mean, last, out=np.zeros_like(last), where=last > 0.0)
    else:
        back = last / 2.0
    return np.asarray(prompt + k * back)


def cumulative_blocks(tokens: IntArray, block: int, span: int | None = None) -> IntArray:
    """``Σ_{L=1..tokens} ceil(min(L, span) / block)``, elementwise [blocks]."""
    kept = tokens if span is None else np.minimum(tokens, span)
    whole, rest = np.divmod(kept, block)
    found = block * whole * (whole + 1) // 2 + rest * (whole + 1)
    if span is not None:
        found = found + (tokens - kept) * -(-span // block)
    return np.asarray(found, dtype=np.int64)


def units_for(groups: tuple[AttentionGroupPlan, ...], tokens: IntArray, block: int) -> IntArray:
    """KV units of sequences, elementwise: blocks, where there is one group that keeps everything."""
    found = np.zeros_like(tokens)
    for group in groups:
        kept = tokens if group.span is None else np.minimum(tokens, group.span)
        found = found + group.units * -(-kept // block)
    return np.asarray(found, dtype=np.int64)
