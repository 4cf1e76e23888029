"""Distributions of token counts per request: whole numbers, at least 1 [tokens].

Every function returns int64 of shape (n,). With one stream, a longer draw begins with the shorter
one, and a lognormal with another mean is the same sample, stretched (common random numbers).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 10**8
"""Longest length accepted anywhere [tokens], far beyond any model's context."""


def fixed(n: int, tokens: int) -> NDArray[np.int64]:
    """Every request has ``tokens`` tokens.

    Closed-loop clients with fixed lengths phase-lock: all requests finish together and come back
    together, which no real traffic does. Prefer ``uniform_ratio`` there.
    """
    return np.full(n, tokens, dtype=np.int64)


def uniform(n: int, low: int, high: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Whole numbers from ``low`` to ``high``, both included, equally likely."""
    return rng.integers(low, high, size=n, dtype=np.int64, endpoint=True)


def uniform_ratio(
    n: int, maximum: int, ratio: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Uniform between ``ratio`` × ``maximum`` (rounded down) and ``maximum``, both included.

    This is how the public serving benchmark clients read ``--random-range-ratio ratio`` with
    ``--random-input-len maximum`` (vLLM's ``benchmark_serving.py`` of 2025 and the clients made
    from it): the given length is the longest, not the mean. Later versions of ``vllm bench``
    spread symmetrically, ``(1 ± ratio) × length``; write that as ``uniform``.
    """
    return uniform(n, ratio_low(maximum, ratio), maximum, rng)


def ratio_low(maximum: int, ratio: float) -> int:
    """Shortest length [tokens] of ``uniform_ratio``, at least 1."""
    return max(1, int(maximum * ratio))


def lognormal(
    n: int,
    mean: float,
    cv: float,
    rng: np.random.Generator,
    minimum: int = 1,
    maximum: int = MAX_TOKENS,
) -> NDArray[np.int64]:
    """Lognormal, rounded to whole tokens and then clipped to ``minimum`` … ``maximum``.

    ``mean`` and ``cv`` describe the distribution before clipping; a ``maximum`` in its tail
    lowers the mean of what is returned (mean 1,024, cv 1, maximum 8,192: by 0.5 %).

    Args:
        n: how many requests.
        mean: mean of the distribution [tokens], positive.
        cv: standard deviation over mean, not negative.
        rng: a stream of this distribution's own.
        minimum: shortest length [tokens].
        maximum: longest length [tokens].
    """
    sigma2 = math.log1p(cv * cv)
    drawn = mean * np.exp(math.sqrt(sigma2) * rng.standard_normal(n) - 0.5 * sigma2)
    return np.clip(np.rint(drawn), minimum, maximum).astype(np.int64)
