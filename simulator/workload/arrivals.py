"""Arrival processes: instants [s] of ``n`` requests at a mean rate [1/s].

Each draws a sequence at unit rate and divides it by the rate, so two rates with one stream are
the same sequence, stretched (common random numbers).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def constant(n: int, rate_rps: float) -> NDArray[np.float64]:
    """One arrival every ``1/rate_rps`` seconds, the first at 0 (D arrivals of Kendall's notation).

    Args:
        n: how many requests.
        rate_rps: arrivals per second, positive.

    Returns:
        Instants [s], shape (n,).
    """
    return np.arange(n, dtype=np.float64) / rate_rps


def poisson(n: int, rate_rps: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Poisson process from time 0: independent exponential gaps of mean ``1/rate_rps``.

    Args:
        n: how many requests.
        rate_rps: arrivals per second, positive.
        rng: the stream ``"arrivals"``.

    Returns:
        Instants [s], shape (n,); the first is one gap after 0.
    """
    return np.cumsum(rng.standard_exponential(n)) / rate_rps


def gamma(n: int, rate_rps: float, cv: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Renewal process with gamma gaps of mean ``1/rate_rps`` and coefficient of variation ``cv``.

    ``cv`` 1 is the Poisson process, above 1 burstier, below 1 more regular. The gamma law for
    gaps between requests of a served model is BurstGPT's finding [1].

    Args:
        n: how many requests.
        rate_rps: arrivals per second, positive.
        cv: standard deviation over mean of the gaps, positive.
        rng: the stream ``"arrivals"``.

    Returns:
        Instants [s], shape (n,); the first is one gap after 0.

    References:
        [1] Wang et al., "BurstGPT: a real-world workload dataset to optimize LLM serving
            systems", arXiv:2401.17644.
    """
    shape = 1.0 / cv**2
    return np.cumsum(rng.standard_gamma(shape, n)) * (cv**2 / rate_rps)
