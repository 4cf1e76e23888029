"""Conversations and agents: sessions of several turns whose prompts grow.

A prompt of a later turn is the prompt of the turn before, the answer to it, and what is new. Turns
follow one another after gaps drawn beforehand, whether or not the answer has arrived: an open-loop
approximation. A slow system would in truth be asked later, so at overload this is pessimistic, and
turns of one session can be in the system together, which no client does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Turns:
    """All turns of some sessions, session by session.

    Attributes:
        session: which session, shape (n,).
        after_s: since the start of the session [s].
        prompt_tokens: the whole prompt [tokens].
        output_tokens: the answer [tokens].
    """

    session: IntArray
    after_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray


def turns_of(
    turns: IntArray,
    first_tokens: IntArray,
    new_tokens: IntArray,
    output_tokens: IntArray,
    gap_s: FloatArray,
    max_context_tokens: int,
) -> Turns:
    """Lay out the turns of sessions.

    A session ends early before the turn whose prompt and answer would exceed ``max_context_tokens``;
    a first turn that does is cut to it (its prompt first).

    Args:
        turns: turns of each session, at least 1, shape (s,).
        first_tokens: prompt of the first turn of each session, shape (s,).
        new_tokens: what the prompt of every turn adds, shape (Σ turns,); that of a first turn is
            not used.
        output_tokens: answers, shape (Σ turns,).
        gap_s: time since the turn before, shape (Σ turns,); that of a first turn is not used.
        max_context_tokens: longest prompt and answer together, at least 2.
    """
    session = np.repeat(np.arange(turns.size), turns)
    first = np.concatenate([[0], np.cumsum(turns)[:-1]])
    is_first = np.zeros(session.size, dtype=bool)
    is_first[first] = True
    output = np.minimum(output_tokens, max_context_tokens - 1)
    grown = np.where(is_first, first_tokens[session], new_tokens)
    grown[is_first] = np.minimum(grown[is_first], max_context_tokens - output[is_first])
    # prompt of a turn: Σ over the turns up to it of what is new, and of the answers before it
    added = grown + np.where(is_first, 0, np.concatenate([[0], output[:-1]]))
    prompt = _within(added, first, session)
    after = _within(np.where(is_first, 0.0, gap_s), first, session)
    fits = prompt + output <= max_context_tokens
    fits = _within((~fits).astype(np.int64), first, session) == 0
    return Turns(session[fits], after[fits], prompt[fits].astype(np.int64), output[fits])


def _within(values: NDArray[np.generic], first: IntArray, session: IntArray) -> FloatArray:
    """Running sums that start again with every session."""
    total = np.cumsum(values, dtype=np.float64)
    before = total[first] - np.asarray(values[first], dtype=np.float64)
    return np.asarray(total - before[session])
