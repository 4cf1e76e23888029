"""How many tokens and experts the busiest expert-parallel group of a step sees, in expectation.

A router sends each of ``T`` tokens to ``k`` of ``E`` experts. The experts lie in ``G`` groups of
``E/G``, placed without regard to popularity, and a step waits for its busiest group. Popularity
follows a Zipf law with exponent ``skew``: the j-th most popular expert is drawn in proportion to
``j^-skew``; 0 is uniform routing, which a trained load-balancing loss aims at and which is the
default here. Drawing ``k`` without replacement in proportion to weights ``w`` reaches an expert with
probability ``1 - exp(-c·w)`` to good accuracy, with ``c`` such that these sum to ``k`` [1].

The busiest of ``G`` groups holds the mean plus ``e_G`` standard deviations, ``e_G`` being the mean of
the largest of ``G`` standard normal variables. The variance has two parts: the draw of the tokens
(hypergeometric for each token, tokens independent), and the placement of unequal experts. Held
against Monte Carlo routing in the tests.

References:
    [1] B. Rosén, "On sampling with probability proportional to size", J. Statist. Plann. Inference
        62(2), 1997 (order sampling with exponential ranks).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb, erf, sqrt

import numpy as np
import numpy.typing as npt

from simulator.model import MoeFfn

Array = npt.NDArray[np.float64]
Size = npt.ArrayLike


@dataclass(frozen=True, slots=True)
class Routing:
    """Expected load of the busiest of several groups of experts.

    Attributes:
        experts: routed experts E.
        per_token: experts a token visits k.
        groups: groups the experts are spread over G; it divides E.
        skew: Zipf exponent of the experts' popularity; 0: uniform.
    """

    experts: int
    per_token: int
    groups: int = 1
    skew: float = 0.0

    @classmethod
    def of(cls, ffn: MoeFfn, groups: int, skew: float) -> Routing:
        """Routing of a layer."""
        return cls(ffn.experts, ffn.experts_per_token, groups, skew)

    @property
    def local(self) -> int:
        """Experts of one group."""
        return self.experts // self.groups

    def rows(self, tokens: Size) -> Array:
        """(token, expert) pairs the busiest group computes [1].

        Args:
            tokens: tokens of the step over all groups.
        """
        t = np.asarray(tokens, dtype=np.float64)
        mean = t * self.per_token / self.groups
        if self.groups == 1:
            return mean
        draw = t * self.per_token * self._hypergeometric()
        placed = t**2 * _placement_variance(self, _reached(self))
        most = t * min(self.per_token, self.local)
        found = mean + _largest_normal(self.groups) * np.sqrt(draw + placed)
        return np.minimum(np.maximum(found, np.minimum(t, 1.0)), most)

    def distinct(self, tokens: Size) -> Array:
        """Different experts the busiest group reads the weights of [1].

        The group that computes the most rows and the one that reads the most experts need not be
        the same one; taking both at their worst overstates a step slightly.
        """
        t = np.asarray(tokens, dtype=np.float64)
        if self.skew != 0.0:
            return np.interp(t, *_skewed_distinct(self))
        touched = -np.expm1(t * _log_missed(self.per_token / self.experts))
        mean = self.local * touched
        return self._busiest(t, mean, mean * (1.0 - touched), 0.0)

    def _busiest(self, t: Array, mean: Array, spread: Array, placed: Array | float) -> Array:
        """Experts of the busiest group from the mean and the variances of a group's."""
        if self.groups == 1:
            return mean
        variance = spread * (1.0 - 1.0 / self.groups) + placed
        found = mean + _largest_normal(self.groups) * np.sqrt(variance)
        found = np.maximum(found, np.minimum(t, 1.0))
        return np.minimum(found, np.minimum(self.local, self.rows(t)))

    def visits(self, tokens: Size) -> Array:
        """Tokens that reach the busiest group at least once [1]: what dispatch sends it."""
        t = np.asarray(tokens, dtype=np.float64)
        if self.groups == 1:
            return t
        missed = comb(self.experts - self.local, self.per_token) / comb(
            self.experts, self.per_token
        )
        mean_rows = t * self.per_token / self.groups
        hot = np.divide(self.rows(t), mean_rows, out=np.ones_like(t), where=mean_rows > 0.0)
        return np.minimum(t * (1.0 - missed) * hot, t)

    def _hypergeometric(self) -> float:
        """Variance of the rows one token gives a group, for each expert it visits."""
        share = 1.0 / self.groups
        left = (self.experts - self.per_token) / max(self.experts - 1, 1)
        return share * (1.0 - share) * left


def _log_missed(reached: float) -> float:
    """Log of the probability that a token does not visit an expert."""
    return float(np.log1p(-min(reached, 1.0 - 1e-12)))


def _placement_variance(routing: Routing, each: Array) -> Array:
    """Variance of the sum over a random group of ``E/G`` of the experts' values (last axis)."""
    e, local = routing.experts, routing.local
    if routing.skew == 0.0 or e == local:
        return np.zeros(each.shape[:-1])
    return np.asarray(local * (1.0 - local / e) * each.var(axis=-1, ddof=1), dtype=np.float64)


@lru_cache(maxsize=64)
def _reached(routing: Routing) -> Array:
    """Probability that a token visits each expert, most popular first."""
    e, k = routing.experts, routing.per_token
    if routing.skew == 0.0 or k == e:
        return np.full(e, k / e)
    weight = np.arange(1, e + 1, dtype=np.float64) ** -routing.skew

    low, high = -50.0, 200.0
    for _ in range(200):  # the sum rises with c
        middle = 0.5 * (low + high)
        total = float(-np.expm1(-np.exp(middle) * weight).sum())
        low, high = (middle, high) if total < k else (low, middle)
    return np.asarray(-np.expm1(-np.exp(low) * weight), dtype=np.float64)


@lru_cache(maxsize=64)
def _skewed_distinct(routing: Routing) -> tuple[Array, Array]:
    """Numbers of tokens, and experts of the busiest group at each; between them it is smooth."""
    t = np.concatenate([np.arange(128.0), np.geomspace(128.0, 1e8, 1024)])
    each = -np.expm1(t[:, None] * np.log1p(-np.minimum(_reached(routing), 1.0 - 1e-12)))
    mean = each.sum(axis=-1) / routing.groups
    spread = (each * (1.0 - each)).sum(axis=-1) / routing.groups
    found = routing._busiest(t, mean, spread, _placement_variance(routing, each))
    return t, np.maximum.accumulate(found)


@lru_cache(maxsize=64)
def _largest_normal(n: int) -> float:
    """Mean of the largest of ``n`` independent standard normal variables."""
    if n == 1:
        return 0.0
    x = np.linspace(-9.0, 9.0, 4001)
    below = np.array([0.5 * (1.0 + erf(v / sqrt(2.0))) for v in x.tolist()])
    density = np.exp(-0.5 * x * x) / sqrt(2.0 * np.pi)
    return float(np.sum(n * x * density * below ** (n - 1)) * (x[1] - x[0]))
