"""Queueing results that need no simulation: oracles for tests and sanity checks for plans.

``queues`` holds steady-state means (M/M/1, M/M/c, M/D/1, M/G/1), ``recursions`` the exact pathwise
waiting times of FCFS queues (Lindley, Kiefer-Wolfowitz), ``little`` the sample-path identity
L = λW. Everything is plain numbers and arrays; nothing here knows about tokens or GPUs.
"""

from simulator.theory.little import LittleSides, little, number_in_system
from simulator.theory.queues import QueueMeans, erlang_b, erlang_c, md1, mg1, mm1, mmc
from simulator.theory.recursions import kiefer_wolfowitz, lindley

__all__ = [
    "LittleSides",
    "QueueMeans",
    "erlang_b",
    "erlang_c",
    "kiefer_wolfowitz",
    "lindley",
    "little",
    "md1",
    "mg1",
    "mm1",
    "mmc",
    "number_in_system",
]
