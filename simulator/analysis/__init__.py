"""What a deployment can do, in closed form and before any simulation.

``analyze`` answers four questions in milliseconds: how loaded is each pool and link, what binds
first, how many instances would do, and what the best latency is in an empty system. Its loads are
fluid limits: they replace fluctuating batches by their means, so a load above 1 means that no
schedule holds the rate, and a load below 1 leaves queueing, preemption and imbalance to simulation.
"""

from simulator.analysis.bounds import (
    BestCase,
    Bottleneck,
    Bounds,
    ClientEstimate,
    LinkBound,
    Peak,
    PoolBound,
)
from simulator.analysis.loads import analyze

__all__ = [
    "BestCase",
    "Bottleneck",
    "Bounds",
    "ClientEstimate",
    "LinkBound",
    "Peak",
    "PoolBound",
    "analyze",
]
