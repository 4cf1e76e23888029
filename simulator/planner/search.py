"""The search: cheapest first, every layout until it is decided and not longer.

Layouts that survive the bounds are taken tier by tier (equal objective), cheapest first, in both
modes side by side. In a tier

1. *probes*: every layout runs a few hundred requests from an empty system. That flatters it (no
   queue at the start, none behind it at the end), so a layout that fails even so is out;
2. *screening*: in the order of the probes, six at a time, a long run each; what fails at the
   decision level is out;
3. *replications*: the best of what is left get independent replications until one holds, or none
   is promising any more, or the limit is reached. What is undecided then is ``marginal``.

A mode ends at the first tier with a layout that holds: what is dearer cannot be the answer.

Every layout sees the same arrivals and lengths at the same seed (common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from simulator.metrics import Interval
from simulator.planner.bench import Bench
from simulator.planner.candidate import DECISION_LEVEL, REPLICATIONS, T_DECISION, Candidate
from simulator.planner.layout import Mode
from simulator.planner.sizes import Kind, cost, probe, replication
from simulator.planner.trial import Trial

CHUNK = 6
"""Layouts screened together."""

FINALISTS = 3
"""Layouts of a tier and mode that get replications side by side."""

LEVELS = (3, REPLICATIONS, 8, 12, 16)
"""Replications at which a layout is judged again."""

FINAL_REPLICATIONS = 8
"""Replications of what is as cheap as the answer and may hold."""

TIER_SHARE = 0.3
"""Share of the request budget that the replications of one tier and mode may take."""

RESERVE = 0.1
"""Share of the request budget kept for the head-room of the winner."""


class Search:
    """One search; ``run`` makes it, and leaves the verdicts in the candidates.

    Args:
        bench: makes the trials.
        kind: what the workload asks.
        tiers: candidates that survived the bounds, cheapest tier first.
        seed: of the first replication; the others follow.
        trace_length: requests of a trace or closed loop.

    Attributes:
        found: by mode, a layout of the cheapest tier that holds.
        exhausted: whether the budget ended the search.
    """

    def __init__(
        self,
        bench: Bench,
        kind: Kind,
        tiers: Sequence[Sequence[Candidate]],
        *,
        seed: int,
        trace_length: int,
    ) -> None:
        self.bench = bench
        self.kind = kind
        self.tiers = tiers
        self.seed = seed
        self.trace_length = trace_length
        self.slo = bench.question.slo
        self.found: dict[Mode, Candidate] = {}
        self.exhausted = False

    def run(self) -> None:
        """Search all tiers until every mode has an answer, or the budget is spent."""
        for tier in self.tiers:
            for c in tier:
                c.reason = "not reached: the search ended before"
        for number, tier in enumerate(self.tiers, start=1):
            for mode, same in groupby(tier, key=lambda c: c.layout.mode):
                members = list(same)
                self.bench.what = f"tier {number} of {len(self.tiers)}, {mode}"
                if mode in self.found:
                    self._dominated(members, self.found[mode])
                elif not self.exhausted:
                    self._tier(mode, members)

    def _dominated(self, members: Iterable[Candidate], by: Candidate) -> None:
        for c in members:
            c.verdict = "dominated"
            c.reason = f"dearer than {by.layout.full_label}, which holds"

    # ------------------------------------------------------------------ one tier

    def _tier(self, mode: Mode, members: list[Candidate]) -> None:
        left = self._probed(members)
        spent_before = self.bench.simulated
        for start in range(0, len(left), CHUNK):
            chunk = left[start : start + CHUNK]
            if not self._screen(chunk):
                return
            self._settle(left[: start + CHUNK], spent_before)
            holding = [c for c in left[: start + CHUNK] if c.verdict == "holds"]
            if holding:
                best = min(holding, key=self.rank)
                self.found[mode] = best
                for c in left[start + CHUNK :]:
                    c.verdict = "dominated"
                    c.reason = f"costs as much as {best.layout.full_label}, which holds, and is no better in a short run"
                return

    def rank(self, c: Candidate) -> tuple[object, ...]:
        """Best first: attainment, then room to the targets, then load."""
        found = c.attainment()
        met = round(found.mean, 4) if found else 0.0
        return (-met, c.slack(self.slo), c.load or 0.0, c.layout.order)

    def _probed(self, members: list[Candidate]) -> list[Candidate]:
        """Members that are not rejected by short runs, most promising first."""
        left = sorted(members, key=lambda c: (c.load or 0.0, c.layout.order))
        for number in range(2):
            trials = [t for c in left if (t := probe(c, self.kind, self.seed, number)) is not None]
            trials = [t for t in trials if t.requests is None or t.requests < self.trace_length]
            if not trials:
                break
            if not self._affordable(trials):
                return []
            for c, outcome in zip(left, self.bench.run(trials), strict=True):
                c.probe, c.stage = outcome, "screened"
                c.simulated += outcome.simulated
                self._judge_probe(c)
            left = [c for c in left if c.verdict != "fails"]
        return sorted(left, key=self.rank)

    def _judge_probe(self, c: Candidate) -> None:
        assert c.probe is not None
        target = self.slo.attainment
        if self.kind == "trace":
            missed = c.probe.counted - c.probe.hits
            failed = missed > (1.0 - target) * self.trace_length
            said = f"{missed} of the first {c.probe.counted} requests miss the targets, more than allowed in all {self.trace_length}"
        else:
            found = c.attainment(0.99)
            assert found is not None
            failed = found.hi < target
            said = f"attainment is at most {found.hi:.4f} (99 % interval) even in the first {c.probe.counted} requests of an empty system"
        c.verdict = "fails" if failed else "marginal"
        c.reason = f"{said}: {c.why()}" if failed else "undecided after a short run"

    def _screen(self, chunk: list[Candidate]) -> bool:
        """One long run each; False if the budget does not allow it."""
        return self._replicate(chunk, 1)

    def _settle(self, contenders: list[Candidate], spent_before: int) -> None:
        """Replications of the best until one holds or none is left open."""
        if self.kind == "trace":
            return
        for level in LEVELS:
            best = self._distinct([c for c in contenders if self.promising(c, contenders)])
            # the dearer mode only says by how much: its best layout will do
            best = best if level <= REPLICATIONS else best[: 1 if self.found else 2]
            if not best or not self._replicate(best, level):
                return
            if any(c.verdict == "holds" for c in contenders):
                return
            if self.bench.simulated - spent_before > TIER_SHARE * self.bench.budget:
                return

    def promising(self, c: Candidate, others: Sequence[Candidate]) -> bool:
        """Whether it is undecided, and more replications may well show that it holds.

        What is known of a layout with more replications counts for the others as well.
        """
        target = self.slo.attainment
        if c.verdict != "marginal" or c.hopeless(target, LEVELS[-1]):
            return False
        known = [o for o in others if len(o.reps) > len(c.reps)]
        return not any(c.hopeless_beside(o, target, LEVELS[-1]) for o in known)

    def _replicate(self, members: list[Candidate], count: int, spare: bool = False) -> bool:
        """Bring members to ``count`` replications and judge them; False if too dear.

        Args:
            members: layouts.
            count: replications wanted.
            spare: whether the search can do without.
        """
        wave: list[tuple[Candidate, Trial]] = [
            (c, replication(c, self.kind, self.seed + i))
            for c in members
            for i in range(len(c.reps), count)
        ]
        if not self._affordable([t for _, t in wave], spare):
            return False
        for (c, _), outcome in zip(wave, self.bench.run([t for _, t in wave]), strict=True):
            c.reps.append(outcome)
            c.simulated += outcome.simulated
            c.stage = "screened" if len(c.reps) == 1 and self.kind != "trace" else "replicated"
        for c in members:
            self.judge(c)
        return True

    def _affordable(self, trials: list[Trial], spare: bool = False) -> bool:
        wanted = sum(cost(t, self.trace_length) for t in trials)
        enough = wanted <= self.bench.left - RESERVE * self.bench.budget
        if not enough and not spare:
            self.exhausted = True
        return enough and not self.exhausted

    # ------------------------------------------------------------------ one layout

    def judge(self, c: Candidate) -> None:
        """Verdict and reason of a layout from its long runs."""
        found = c.attainment(DECISION_LEVEL)
        assert found is not None
        target = self.slo.attainment
        said = _said(c, found)
        if c.overloaded and (len(c.reps) >= LEVELS[0] or self.kind == "trace"):
            c.verdict, c.reason = "fails", f"a backlog grows: {c.seen[-1].why}"
        elif found.hi < target:
            c.verdict, c.reason = "fails", f"{said}, below {target:g}: {c.why()}"
        elif found.lo >= target and (len(c.reps) >= REPLICATIONS or self.kind == "trace"):
            c.verdict, c.reason = "holds", f"{said}, at least {target:g}"
        else:
            c.verdict, c.reason = "marginal", f"{said}, too close to {target:g} to call"

    def finish(self, dearness: Callable[[Candidate], tuple[float, float]]) -> None:
        """Replications for what is as cheap as the winner and undecided, as far as affordable.

        The best few of each mode that may hold are brought to more replications; of those that hold,
        the cheapest and then the best is the mode's answer.

        Args:
            dearness: what is minimised, with what breaks ties.
        """
        if self.kind == "trace" or not self.found:
            return
        self.bench.what = "finalists"
        least = min(dearness(c) for c in self.found.values())
        for mode in ("disaggregated", "colocated"):
            rivals = [
                c
                for tier in self.tiers
                for c in tier
                if c.layout.mode == mode and c.reps and dearness(c) <= least
            ]
            for level in (REPLICATIONS, FINAL_REPLICATIONS, *LEVELS[3:]):
                some = self._distinct([c for c in rivals if self._may_hold(c)])
                if level > FINAL_REPLICATIONS:
                    # only where the verdict hangs on it: one that has just not been decided
                    some = [c for c in some if c.verdict == "marginal"][:1]
                    some = [] if self._answered(mode, least, dearness) else some
                self._replicate([c for c in some if len(c.reps) < level], level, spare=True)
                self._carry_over(rivals)
            holding = [c for c in rivals if c.verdict == "holds"]
            if holding:
                self.found[mode] = min(holding, key=lambda c: (dearness(c), self.rank(c)))

    def _answered(
        self,
        mode: Mode,
        least: tuple[float, float],
        dearness: Callable[[Candidate], tuple[float, float]],
    ) -> bool:
        """Whether a mode has a layout as cheap as the winner that holds."""
        return mode in self.found and dearness(self.found[mode]) <= least

    def _distinct(self, some: Sequence[Candidate]) -> list[Candidate]:
        """The best few, one of each kind of twins."""
        found: dict[tuple[object, ...], Candidate] = {}
        for c in sorted(some, key=self.rank):
            found.setdefault(c.twin_key, c)
        return list(found.values())[:FINALISTS]

    def _may_hold(self, c: Candidate) -> bool:
        found = c.attainment()
        undecided = c.verdict in ("holds", "marginal")
        return undecided and found is not None and found.hi >= self.slo.attainment

    def _carry_over(self, rivals: Sequence[Candidate]) -> None:
        """Decide what is undecided by what is known of neighbours with more replications."""
        target = self.slo.attainment
        for c in rivals:
            if c.verdict != "marginal":
                continue
            for other in rivals:
                if len(other.reps) <= max(len(c.reps), REPLICATIONS - 1):
                    continue
                p, error = c.beside(other)
                if p + T_DECISION * error < target:
                    c.verdict = "fails"
                    c.reason = (
                        f"attainment {p:.4f}, at most {p + T_DECISION * error:.4f}, below {target:g}: "
                        f"carried over from {other.layout.full_label} ({len(other.reps)} runs) by "
                        f"the difference on the same requests ({len(c.reps)} runs)"
                    )
                    break


def _said(c: Candidate, found: Interval) -> str:
    runs = f"{len(c.reps)} runs" if len(c.reps) > 1 else "one run"
    level = f"{100 * found.level:g} %"
    return (
        f"attainment {found.mean:.4f}, {level} interval {found.lo:.4f} to {found.hi:.4f} ({runs})"
    )
