"""The rate at which a layout breaks, by bracketing, on the same requests arriving faster."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.planner.bench import Bench
from simulator.planner.candidate import Candidate
from simulator.planner.sizes import Kind, cost, replication
from simulator.planner.trial import Outcome

POINTS = 3
"""Rates tried side by side inside a bracket."""

ROUNDS = 2
"""Times the bracket is narrowed; each divides it by ``POINTS + 1``."""

MOST_FACTOR = 4.0
"""Highest multiple of the planned rate that is tried."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """How much more traffic a layout takes.

    Attributes:
        holds_rps: highest rate at which it was seen to hold its targets [1/s].
        breaks_rps: lowest rate above that at which it was seen to miss them [1/s]; None if it held
            everywhere it was tried.
        planned_rps: the rate planned for [1/s].
        binds: what binds first, at the rate where it breaks.
    """

    holds_rps: float
    breaks_rps: float | None
    planned_rps: float
    binds: str

    @property
    def rps(self) -> float:
        """The rate at which it breaks: the middle of the bracket [1/s]."""
        if self.breaks_rps is None:
            return self.holds_rps
        return 0.5 * (self.holds_rps + self.breaks_rps)


def headroom(
    bench: Bench, kind: Kind, winner: Candidate, seed: int, rate_rps: float, trace_length: int
) -> Headroom | None:
    """Bracket the rate at which a layout that holds at the planned rate breaks.

    A rate holds if the share of requests that meet the targets is at least the one wanted, and the
    named stability test finds no growing backlog; one run a rate, always with the same seed.

    Returns:
        None for a closed loop, and where the request budget does not allow it.
    """
    if kind == "closed":
        return None
    bench.what = "head-room"
    low, high = 1.0, _most(winner)
    broken: Outcome | None = None
    for _ in range(ROUNDS):
        step = (high - low) / (POINTS + 1)
        factors = [round(low + step * (i + 1), 6) for i in range(POINTS)]
        if broken is None:
            factors.append(round(high, 6))
        trials = [replication(winner, kind, seed, factor) for factor in factors]
        if sum(cost(t, trace_length) for t in trials) > bench.left:
            break
        for factor, outcome in zip(factors, bench.run(trials), strict=True):
            if outcome.attainment >= bench.question.slo.attainment and not outcome.overloaded:
                low = max(low, factor) if factor < high else low
                if broken is None and factor >= high:
                    low = high
            else:
                high, broken = factor, outcome
                break
        if low >= high:
            break
    if broken is None:
        return Headroom(low * rate_rps, None, rate_rps, _binds(winner, None, low))
    return Headroom(low * rate_rps, high * rate_rps, rate_rps, _binds(winner, broken, high))


def _most(winner: Candidate) -> float:
    """A rate at which something surely breaks: 5 % beyond the first load of 1."""
    if not winner.load:
        return MOST_FACTOR
    return min(MOST_FACTOR, max(1.05, 1.05 / winner.load))


def _binds(winner: Candidate, broken: Outcome | None, factor: float) -> str:
    """What binds first when traffic grows to ``factor`` times the plan's."""
    loaded = ""
    if winner.load is not None and winner.bottleneck is not None:
        loaded = f"; the most loaded resource is {winner.bottleneck}, at {winner.load * factor:.2f}"
    if broken is None:
        return f"nothing up to {factor:.2f} times the rate{loaded}"
    at = f"at {factor:.2f} times the rate"
    if broken.missed_tpot > broken.missed_ttft:
        return f"TPOT {at}: {100 * broken.missed_tpot:.1f} % of requests miss its target{loaded}"
    if broken.missed_ttft > 0.0:
        part = (broken.slow_part or "").replace("_", " ")
        return (
            f"TTFT {at}: {100 * broken.missed_ttft:.1f} % of requests miss its target, "
            f"with most of their time in {part}{loaded}"
        )
    if broken.overloaded:
        return f"stability {at}: {broken.why}{loaded}"
    return f"{100 * broken.unserved:.1f} % of requests are not served {at}{loaded}"
