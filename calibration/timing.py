"""How long a call takes: sustained blocks of many calls, and the median block.

The arithmetic of repetition lives here, apart from any device: what runs and times a number of
calls is a function, so that tests drive it with a clock of their own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

MOST_REPLAYS = 100_000
"""Replays of one block at most: a stopwatch that reads zero must not hang the harness."""

DISTURBED = 0.25
"""Spread of the blocks from which a measurement is tried again [1]."""
RETRIES = 2
"""Times it is tried again at most."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a case is timed.

    Attributes:
        blocks: timed blocks, of which the median counts; at least 5 for a result to keep.
        block_s: least duration of one [s].
        warm_s: running time before the first [s]; clocks and caches settle.
    """

    blocks: int = 5
    block_s: float = 0.004
    warm_s: float = 0.010


@dataclass(frozen=True, slots=True)
class Timing:
    """What was seen.

    Attributes:
        call_s: median over the blocks of the time of one call [s].
        spread: (slowest − fastest block) / median [1].
        blocks: blocks timed.
        calls: calls in each block.
    """

    call_s: float
    spread: float
    blocks: int
    calls: int


def measure(run: Callable[[int], float], calls: int, protocol: Protocol) -> Timing:
    """Time a program that makes ``calls`` calls each time it is replayed.

    Warm-up replays double until they have lasted ``protocol.warm_s`` together; the last of them
    says how many replays fill a block.

    Args:
        run: replays the program so many times and returns how long that took [s].
        calls: calls of one replay.
        protocol: durations and number of blocks.

    Returns:
        The median block, per call.
    """
    run(1)  # first use: lazy initialisation, page faults, kernel selection
    warm_s, replays, last_s = 0.0, 1, 0.0
    while True:
        last_s = max(run(replays), 1e-9)
        warm_s += last_s
        if warm_s >= protocol.warm_s or replays >= MOST_REPLAYS:
            break
        replays = min(2 * replays, MOST_REPLAYS)
    per_replay_s = last_s / replays
    replays = min(max(1, math.ceil(protocol.block_s / per_replay_s)), MOST_REPLAYS)
    seen = [run(replays) / (replays * calls) for _ in range(protocol.blocks)]
    middle = statistics.median(seen)
    spread = (max(seen) - min(seen)) / middle if middle > 0.0 else 0.0
    return Timing(middle, spread, protocol.blocks, replays * calls)


def steadiest(attempt: Callable[[], Timing], retries: int = RETRIES) -> Timing:
    """What ``attempt`` sees, tried again where something disturbed it; the steadiest of the tries.

    Args:
        attempt: measures once.
        retries: further attempts at most.
    """
    best = attempt()
    for _ in range(retries):
        if best.spread <= DISTURBED:
            break
        best = min(best, attempt(), key=lambda timing: timing.spread)
    return best


def copies_needed(bytes_per_call: float, cache_bytes: float, most: int = 256) -> int:
    """Sets of operands to rotate over, so that a set has left the cache before its next use.

    Together they hold at least four times the cache, unless that takes more than ``most`` sets.
    """
    if bytes_per_call <= 0.0:
        return 1
    return max(1, min(most, math.ceil(4.0 * cache_bytes / bytes_per_call)))


def is_cache_warm(bytes_per_call: float, copies: int, cache_bytes: float) -> bool:
    """Whether the sets rotated over are too few to push each other out of the cache."""
    return bytes_per_call * copies < 2.0 * cache_bytes


def calls_of_program(copies: int, least: int) -> int:
    """Calls of one replay: whole turns over the sets of operands, at least ``least``."""
    return copies * max(1, math.ceil(least / copies))
