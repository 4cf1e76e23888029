"""How long runs are, and which requests of them count.

An open-loop workload asks about steady state: the requests that arrive before the empty system has
filled to 98 % of its mean content are not counted (``FamilyBound.warm_up_s``), nor those after them
that arrive while its queues approach their steady length (three relaxation times [1]), nor those
that arrive within one mean decode time of the end, around which the system drains. The rule depends on the
layout and the workload, never on the targets, so that a looser target sees the same requests. A
trace and a closed loop are finite things: all of their requests count.

References:
    [1] W. Whitt, Planning queueing simulations, Management Science 35(11), 1989: in heavy traffic a
        queue forgets its start over about ``1/(1 − ρ)²`` service times, which is about
        ``ρ/(1 − ρ)²`` arrivals.
"""

from __future__ import annotations

import math
from typing import Literal

from simulator.planner.bounds import FamilyBound
from simulator.planner.candidate import Candidate
from simulator.planner.trial import Trial
from simulator.scenario import Scenario
from simulator.scenario.draw import is_stationary

Kind = Literal["steady", "trace", "closed"]

COUNTED = 4000
"""Requests counted in one replication."""

PROBE = 800
"""Requests of a probe."""

TRACE_PROBES = (2000, 6000)
"""First requests of a trace that are replayed before all of it."""

MOST_SKIPPED = 20_000
"""Requests left out at the start of a run at most."""


def kind_of(scenario: Scenario) -> Kind:
    """What a workload asks: a steady state, a given trace, or a closed loop.

    Rates that change with time are asked as a trace is: one course of them, all of it.
    """
    workload = scenario.config.workload
    if workload.trace is not None:
        return "trace"
    if workload.closed_loop is not None:
        return "closed"
    return "steady" if all(is_stationary(p) for p, _ in workload.processes) else "trace"


RELAXATIONS = 3.0
"""Relaxation times of the queues at the start of a run that are not counted."""

MOST_RELAXATION = 1000.0
"""Arrivals of one relaxation time at most; beyond load 0.97 no run of this length forgets."""


def cut(bound: FamilyBound, instances: int, rate_rps: float, load: float | None) -> tuple[int, int]:
    """Requests not counted at the start and at the end of a steady-state run.

    Args:
        bound: closed form of the layout's family.
        instances: decode or colocated instances.
        rate_rps: arrival rate.
        load: highest load of a pool or link.
    """
    fill_s, decode_s = bound.warm_up_s(instances)
    idle = max(1.0 - (load or 0.0), 1e-3)
    relaxation = min(MOST_RELAXATION, (load or 0.0) / idle**2)
    skip = min(MOST_SKIPPED, _hundreds(rate_rps * fill_s + RELAXATIONS * relaxation))
    return skip, min(MOST_SKIPPED, _hundreds(rate_rps * decode_s))


def probe(candidate: Candidate, kind: Kind, seed: int, number: int = 0) -> Trial | None:
    """The short run number ``number``, counted whole; None where there is no such run."""
    if kind == "steady" and number == 0:
        return Trial(candidate.layout, seed, PROBE)
    if kind == "trace" and number < len(TRACE_PROBES):
        return Trial(candidate.layout, seed, TRACE_PROBES[number])
    return None


def replication(candidate: Candidate, kind: Kind, seed: int, rate_scale: float = 1.0) -> Trial:
    """A long run with one seed, with arrivals ``rate_scale`` times as fast."""
    if kind != "steady":
        return Trial(candidate.layout, seed, None, rate_scale=rate_scale)
    # filling and draining take their time whatever the rate, so more requests arrive meanwhile
    skip, tail = (_hundreds(n * rate_scale) for n in (candidate.skip, candidate.tail))
    return Trial(candidate.layout, seed, skip + COUNTED + tail, skip, tail, rate_scale)


def cost(trial: Trial, trace_length: int) -> int:
    """Requests a trial simulates."""
    return trace_length if trial.requests is None else trial.requests


def _hundreds(count: float) -> int:
    return 100 * math.ceil(count / 100.0)
