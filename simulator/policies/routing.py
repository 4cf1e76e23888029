"""Routers: which instance gets a request. A router sees instances as of their last step boundary.

A router is a function ``(views, t_s, fits) -> position`` that returns the position of the chosen
view, or -1 when none fits. Ties go to the lowest position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np


class InstanceView(Protocol):
    """What a router may ask of an instance."""

    def outstanding_tokens(self, t_s: float, stop: int) -> int:
        """Tokens on their way through the instance, as of its last step boundary.

        If there are ``stop`` or more, any number from ``stop`` on may be returned.
        """
        ...


Fits = Callable[[int], bool]
_MANY = 1 << 62
Router = Callable[[Sequence[InstanceView], float, Fits | None], int]


def round_robin() -> Router:
    """Each in turn; one that does not fit is skipped and keeps its place in the order."""
    turn = 0

    def route(views: Sequence[InstanceView], t_s: float, fits: Fits | None) -> int:
        nonlocal turn
        n = len(views)
        for step in range(n):
            i = (turn + step) % n
            if fits is None or fits(i):
                turn = (i + 1) % n
                return i
        return -1

    return route


def random_choice(rng: np.random.Generator) -> Router:
    """Uniformly among those that fit."""
    block: list[float] = []

    def route(views: Sequence[InstanceView], t_s: float, fits: Fits | None) -> int:
        able = [i for i in range(len(views)) if fits is None or fits(i)]
        if not able:
            return -1
        if not block:
            block.extend(rng.random(1024).tolist())
        return able[int(block.pop() * len(able))]

    return route


def least_outstanding_tokens() -> Router:
    """The one with the fewest tokens on their way among those that fit.

    On a prefill instance the prompt tokens assigned and not yet prefilled count; on a decode or
    colocated instance the KV tokens resident, in transfer or still to be computed.
    """

    def route(views: Sequence[InstanceView], t_s: float, fits: Fits | None) -> int:
        best, fewest = -1, _MANY
        for i, view in enumerate(views):
            tokens = view.outstanding_tokens(t_s, fewest)
            if tokens < fewest and (fits is None or fits(i)):
                best, fewest = i, tokens
                if not tokens:
                    break  # nobody can have fewer, and ties go to the lowest position
        return best

    return route


def make_router(name: str, rng: np.random.Generator) -> Router:
    """The router of this name; ``random`` draws from ``rng``."""
    if name == "round_robin":
        return round_robin()
    if name == "random":
        return random_choice(rng)
    if name == "least_outstanding_tokens":
        return least_outstanding_tokens()
    raise ValueError(f"no router is called {name!r}")
