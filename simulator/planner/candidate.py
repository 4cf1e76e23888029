"""A layout under consideration, what has been seen of it, and what that says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from simulator.metrics import Interval
from simulator.planner.bounds import FamilyBound
from simulator.planner.intervals import (
    effective_size,
    expected_cluster,
    mean_interval,
    share_interval,
)
from simulator.planner.layout import Layout
from simulator.planner.trial import Outcome
from simulator.scenario import SLO

Stage = Literal["bound", "screened", "replicated"]
Verdict = Literal["rejected", "holds", "fails", "marginal", "dominated", "winner"]

REPLICATIONS = 5
"""Independent replications before a layout may be said to hold; from here on they, and no longer
batches of consecutive requests, are the units of its intervals."""

DECISION_LEVEL = 0.98
"""Confidence level of a decision; a search looks several times, reported intervals are of 0.95."""

NORMAL_99 = 2.33
"""99 % quantile of the normal distribution."""

T_DECISION = 2.6
"""Student quantile of a decision with as many replications as a layout gets at most."""

LEVEL = 0.95
"""Confidence level of reported intervals."""


@dataclass(eq=False)
class Candidate:
    """A layout and what is known about it.

    Attributes:
        layout: the layout.
        usd_per_hour: its price [USD/h].
        bound: closed form of its family.
        counts: instances of its pools.
        load: highest load of a pool or link; None if the rate is unknown.
        bottleneck: what has it.
        skip: requests of a trial that arrive while the empty system fills.
        tail: requests of a trial that decode while it drains.
        probe: a short run from an empty system, which flatters.
        reps: long runs, one a seed (or one replay of a trace).
        stage: how far it got.
        verdict: what is known.
        reason: why, in a sentence.
    """

    layout: Layout
    usd_per_hour: float
    bound: FamilyBound
    counts: tuple[int, ...]
    load: float | None = None
    bottleneck: str | None = None
    skip: int = 0
    tail: int = 0
    probe: Outcome | None = None
    reps: list[Outcome] = field(default_factory=list)
    stage: Stage = "bound"
    verdict: Verdict = "dominated"
    reason: str = ""
    simulated: int = 0

    def hopeless(self, target: float, most: int) -> bool:
        """Whether even ``most`` replications would hardly show that it holds (futility).

        The estimate would have to rise by more than it does in 99 of 100 cases, given its standard
        error now, for the decision interval of all of them to lie above the target.

        Args:
            target: attainment wanted.
            most: replications a layout gets at most.
        """
        p, now = self.estimate()
        then = now * (len(self.seen) / most) ** 0.5
        drift = max(now**2 - then**2, 0.0) ** 0.5
        return bool(p + NORMAL_99 * drift - T_DECISION * then < target)

    def beside(self, other: Candidate) -> tuple[float, float]:
        """Attainment and standard error carried over from a layout with more replications.

        The other's over all its replications, plus the mean difference on the replications that
        both have, batch by batch of the same requests: layouts that share their arrivals differ by
        much less than either scatters (a control variate).

        Args:
            other: a layout that has seen all its seeds and more.
        """
        gaps = [
            a / m - b / n
            for mine, theirs in zip(self.reps, other.reps, strict=False)
            for a, m, b, n in zip(
                mine.batch_hits,
                mine.batch_sizes,
                theirs.batch_hits,
                theirs.batch_sizes,
                strict=True,
            )
        ]
        p, error = other.estimate()
        spread = float(np.var(gaps, ddof=1)) / len(gaps)
        return p + float(np.mean(gaps)), float((error**2 + spread) ** 0.5)

    def hopeless_beside(self, other: Candidate, target: float, most: int) -> bool:
        """``hopeless`` with the estimate carried over from a layout with more replications."""
        p, now = self.beside(other)
        then = other.estimate()[1] * (len(other.reps) / most) ** 0.5
        return bool(p + NORMAL_99 * now - T_DECISION * then < target)

    @property
    def twin_key(self) -> tuple[object, ...]:
        """Equal for layouts that did the same to every request of the first long run.

        A limit that never binds changes nothing; one of such twins speaks for all.
        """
        first = self.reps[0]
        return (*first.batch_hits, first.ttft_mean_s, first.tpot_mean_s, first.ttft_p99_s)

    def estimate(self) -> tuple[float, float]:
        """Attainment and its standard error."""
        units = self._units()
        p = sum(units[0]) / sum(units[1])
        return p, float((p * (1.0 - p) / effective_size(*units)) ** 0.5)

    def _units(self) -> tuple[list[int], list[int]]:
        """Hits and sizes of the units of its intervals."""
        if len(self.seen) >= REPLICATIONS:
            return [o.hits for o in self.seen], [o.counted for o in self.seen]
        hits = [h for o in self.seen for h in o.batch_hits]
        return hits, [n for o in self.seen for n in o.batch_sizes]

    @property
    def seen(self) -> list[Outcome]:
        """The runs its numbers come from: the long ones, else the probe."""
        return self.reps or ([self.probe] if self.probe is not None else [])

    def attainment(self, level: float = LEVEL) -> Interval | None:
        """Share of requests that meet every target, with its interval; None before any run."""
        seen = self.seen
        if not seen:
            return None
        if seen[0].bootstrap is not None:
            return _replayed(seen[0], "attainment", seen[0].attainment)
        return share_interval(*self._units(), level, cluster=expected_cluster(self.load))

    def mean(self, name: str) -> Interval | None:
        """Mean TTFT or TPOT [s]; without an interval (NaN ends) from a single synthetic run."""
        values = [getattr(o, f"{name}_mean_s") for o in self.seen]
        known = [v for v in values if v is not None]
        if not known:
            return None
        if self.seen[0].bootstrap is not None:
            return _replayed(self.seen[0], f"{name}_s", known[0])
        found = mean_interval(known, LEVEL)
        nan = float("nan")
        return found or Interval(known[0], nan, nan, LEVEL, "a single run has no interval")

    def p99(self, name: str) -> float | None:
        """99th percentile of TTFT or TPOT [s], averaged over the runs."""
        return _average([getattr(o, f"{name}_p99_s") for o in self.seen])

    @property
    def output_tokens_per_s(self) -> float | None:
        """Output tokens [1/s], averaged over the runs."""
        return _average([o.output_tokens_per_s for o in self.seen])

    def slack(self, slo: SLO) -> float:
        """Largest 99th percentile over its target: below 1 is room; ``inf`` before any run."""
        targets = [slo, *slo.classes.values()]
        loosest = {
            name: max(getattr(t, f"{name}_s") or 0.0 for t in targets) for name in ("ttft", "tpot")
        }
        ratios = [(self.p99(name) or 0.0) / target for name, target in loosest.items() if target]
        return max(ratios, default=0.0) if self.seen else float("inf")

    @property
    def overloaded(self) -> bool:
        """Whether most of the runs show a growing backlog (the named stability test)."""
        return sum(o.overloaded for o in self.seen) > 0.5 * len(self.seen)

    def why(self) -> str:
        """What keeps requests from their targets, over all runs seen."""
        seen = self.seen
        late, slow = _share(seen, "missed_ttft"), _share(seen, "missed_tpot")
        unserved = _share(seen, "unserved")
        if unserved > max(late, slow):
            return f"{100 * unserved:.1f} % of requests are not served"
        if slow > late:
            return f"{100 * slow:.1f} % of requests miss the TPOT target"
        if late == 0.0:
            return "no request misses a target"
        parts = [o.slow_part for o in seen if o.slow_part]
        part = max(sorted(set(parts)), key=parts.count).replace("_", " ") if parts else ""
        most = f", most of the time of these in {part}" if part else ""
        return f"{100 * late:.1f} % of requests miss the TTFT target{most}"


def _share(seen: list[Outcome], name: str) -> float:
    total = sum(o.counted for o in seen)
    return float(sum(getattr(o, name) * o.counted for o in seen)) / total if total else 0.0


def _average(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _replayed(outcome: Outcome, name: str, mean: float) -> Interval:
    """Interval of one replay of a trace, made by a moving-block bootstrap."""
    found = outcome.bootstrap or {}
    lo, hi = found.get(name, [float("nan"), float("nan")])
    block = found.get("block", [0.0])[0]
    rule = f"moving-block bootstrap, blocks of {block:.0f} requests"
    return Interval(mean, lo, hi, LEVEL, rule)
