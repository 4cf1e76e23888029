"""Units and tolerances shared by every layer: seconds, SI bytes, tokens, FLOPs.

GB is 1e9 bytes and GiB is 2**30 bytes; the two are never mixed. Bandwidth is bytes per second
unless a name ends in ``_gbps``, which is the network convention of 1e9 *bits* per second.
"""

from __future__ import annotations

KB = 1e3
MB = 1e6
GB = 1e9
TB = 1e12
KIB = 2**10
MIB = 2**20
GIB = 2**30

US = 1e-6
MS = 1e-3

TIE_REL = 1e-9
"""Relative width of a tie: two instants closer than ``TIE_REL * max(1, t)`` are the same instant."""


def tie_s(t_s: float) -> float:
    """Half-width [s] of the tie window around the instant ``t_s`` [s] (see docs/ties.md)."""
    return TIE_REL * t_s if t_s > 1.0 else TIE_REL


def gbps_to_bytes_per_s(gbps: float) -> float:
    """Convert a network rate in gigabits per second to bytes per second."""
    return gbps * 1e9 / 8.0
