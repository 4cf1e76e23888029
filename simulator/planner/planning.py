"""``plan``: the cheapest layout that holds the targets, and how that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from simulator.errors import InputError, ScenarioError, suggest
from simulator.planner import saved
from simulator.planner.bench import Bench, Progress
from simulator.planner.bounds import FamilyBound, family_bound, rejection
from simulator.planner.candidate import Candidate
from simulator.planner.confidence import Confidence, confidence
from simulator.planner.evidence import Evaluated
from simulator.planner.footing import with_footing
from simulator.planner.headroom import Headroom, headroom
from simulator.planner.inventory import DEFAULT_LINK, Inventory
from simulator.planner.ledger import Ledger
from simulator.planner.result import Plan, with_confidence
from simulator.planner.search import Search
from simulator.planner.sizes import cut, kind_of
from simulator.planner.space import Limits, Space, check_size, families, members
from simulator.planner.trial import Question
from simulator.planner.verdict import (
    Objective,
    closest,
    disaggregate,
    objective_key,
    undecided_below,
)
from simulator.scenario import SLO, Scenario
from simulator.uncertainty import check_draws
from simulator.workload import Requests

SAMPLE = 10_000
"""Requests that bounds are computed from."""

BRUTE_FORCE = 5 * 10_000
"""Requests a layout would take to judge by brute force: five runs of 10,000."""

BUDGET_SHARE = 0.15
"""Share of brute force that a plan may simulate by default."""

LEAST_BUDGET = 60_000
MOST_BUDGET = 1_000_000

OBJECTIVES: tuple[Objective, ...] = ("cost", "gpus")


@dataclass(frozen=True)
class Asked:
    """Everything a plan depends on; stored in its folder.

    Attributes:
        scenario: what to plan for.
        slo: the targets.
        inventory: what may be bought.
        max_gpus: limit of the option; None if not given.
        objective: what to minimise.
        budget_requests: requests to simulate at most; None for the default.
        seed: of the first replication.
        space: what may vary.
    """

    scenario: Scenario
    slo: SLO
    inventory: Inventory
    max_gpus: int | None
    objective: Objective
    budget_requests: int | None
    seed: int
    space: Space


def plan(
    scenario: Scenario | None = None,
    slo: SLO | None = None,
    *,
    max_gpus: int | None = None,
    inventory: Inventory | None = None,
    objective: Objective = "cost",
    jobs: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    budget_requests: int | None = None,
    progress: Progress | None = None,
    seed: int | None = None,
    space: Space | None = None,
    uncertainty: int | None = None,
) -> Plan:
    """Find the cheapest layout that holds latency targets.

    Args:
        scenario: model, workload, link and everything that a layout does not change. Its pools
            only say which GPU types there are, if there is no inventory.
        slo: the targets; the scenario's own if None.
        max_gpus: GPUs of a layout at most; 64 unless the inventory says otherwise.
        inventory: GPU types, prices, links and limits; the scenario's GPU types if None.
        objective: ``cost`` (USD/h) or ``gpus``; the other breaks ties.
        jobs: worker processes; -1 for one a core. The answer does not depend on it.
        out: folder for a ledger, so that the plan can be resumed, and for the results.
        resume: such a folder: goes on where its plan stopped. Nothing else but ``jobs``,
            ``progress`` and ``uncertainty`` may be given then.
        budget_requests: requests to simulate at most; by default 15 % of what five runs of 10,000
            requests for every layout would take, at most 1 million.
        progress: called as ``progress(what, requests simulated, budget)`` after every run.
        seed: of the first replication; the scenario's if None.
        space: batching limits and TP degrees to consider.
        uncertainty: simulate the winner and the best of each mode again in so many draws of what
            the model may be off by, for the probability that they hold.

    Returns:
        The plan. After an interrupt (Ctrl-C) it is what was known, ``complete`` False, and the
        folder can be resumed.

    Raises:
        InputError: bad input, or a folder that cannot be used.
    """
    if jobs < 1 and jobs != -1:
        raise InputError(f"jobs: found {jobs}; allowed: at least 1, or -1 for one a core.")
    if uncertainty is not None:
        check_draws(uncertainty, "uncertainty")
    if resume is not None:
        given = (scenario, slo, max_gpus, inventory, out, budget_requests, seed, space)
        if any(x is not None for x in given) or objective != "cost":
            raise InputError(
                "resume goes on with the plan as it was asked; allowed beside it: jobs, progress, "
                "uncertainty."
            )
        folder: Path | None = Path(resume)
        asked = saved.load_asked(Path(resume))
    else:
        asked = _asked(scenario, slo, max_gpus, inventory, objective, budget_requests, seed, space)
        folder = None if out is None else Path(out)
        if folder is not None:
            saved.store_asked(folder, asked)
    with Ledger(folder) as ledger:
        found = _Planner(asked, ledger, jobs, progress, uncertainty).plan()
        if folder is not None:
            saved.write_results(folder, found)
    return found


def _asked(
    scenario: Scenario | None,
    slo: SLO | None,
    max_gpus: int | None,
    inventory: Inventory | None,
    objective: Objective,
    budget_requests: int | None,
    seed: int | None,
    space: Space | None,
) -> Asked:
    if scenario is None:
        raise InputError("plan needs a scenario, or a folder to resume.")
    slo = scenario.slo if slo is None else slo
    if slo is None:
        raise ScenarioError(
            f"{scenario.name} has no latency targets and a plan needs some; give slo (--ttft, --tpot)."
        )
    if objective not in OBJECTIVES:
        raise InputError(f"objective: found {objective!r}; {suggest(str(objective), OBJECTIVES)}")
    for name, value in (("max_gpus", max_gpus), ("budget_requests", budget_requests)):
        if value is not None and value < 1:
            raise InputError(f"{name}: found {value}; allowed: at least 1.")
    return Asked(
        scenario=scenario,
        slo=slo,
        inventory=inventory or Inventory.of_scenario(scenario),
        max_gpus=max_gpus,
        objective=objective,
        budget_requests=budget_requests,
        seed=scenario.seed if seed is None else seed,
        space=space or Space(),
    )


class _Planner:
    """One plan being made."""

    def __init__(
        self,
        asked: Asked,
        ledger: Ledger,
        jobs: int,
        progress: Progress | None,
        draws: int | None = None,
    ) -> None:
        self.draws = draws
        self.asked = asked
        self.ledger = ledger
        self.jobs = jobs
        self.progress = progress
        self.kind = kind_of(asked.scenario)
        prices = {
            gpu: asked.inventory.usd_per_gpu_hour(gpu, asked.scenario)
            for gpu in asked.inventory.gpus
        }
        self.question = Question(asked.scenario, asked.slo, prices)
        self.sample = self._sample()
        self.rate_rps = self._rate()
        self.notes: list[str] = []

    def plan(self) -> Plan:
        candidates = self._candidates()
        search, bench = self._search(candidates)
        best, room, complete, sure = {}, None, False, None
        with suppress(KeyboardInterrupt):
            search.run()
            search.finish(lambda c: objective_key(c, self.asked.objective))
            first = min(
                search.found.values(),
                key=lambda c: (objective_key(c, self.asked.objective), search.rank(c)),
                default=None,
            )
            if first is not None and self.rate_rps is not None:
                length = search.trace_length
                room = headroom(bench, self.kind, first, self.asked.seed, self.rate_rps, length)
            complete = not search.exhausted
        best = search.found
        with suppress(KeyboardInterrupt):
            sure = self._confidence(search) if complete or best else None
        found = self._answer(candidates, search, best, room, complete, bench)
        found = with_footing(found, self.question, self.sample)
        return found if sure is None else with_confidence(found, sure)

    def _confidence(self, search: Search) -> Confidence | None:
        """The winner and the best of each mode, in draws; None if not asked or nothing holds."""
        key = lambda c: (objective_key(c, self.asked.objective), search.rank(c))  # noqa: E731 - once
        finalists = sorted((c for c in search.found.values() if c.reps), key=key)
        if self.draws is None or not finalists:
            return None
        return confidence(
            self.question,
            self.kind,
            finalists,
            draws=self.draws,
            seed=self.asked.seed,
            jobs=self.jobs,
            progress=self.progress,
        )

    # ------------------------------------------------------------------ preparation

    def _sample(self) -> Requests:
        count = SAMPLE if self.kind == "steady" else None
        # reads a trace for the first time, so that its errors name the scenario
        self.asked.scenario.requests(self.asked.seed) if self.kind == "trace" else None
        return self.question.requests(self.asked.seed, count)

    def _rate(self) -> float | None:
        rate = self.sample.rate_rps
        if self.kind == "steady":
            rate = self.asked.scenario.config.workload.mean_rate_rps or rate
        return rate if math.isfinite(rate) else None

    def _candidates(self) -> list[Candidate]:
        asked = self.asked
        limits = Limits.of(asked.inventory, asked.max_gpus)
        found: list[Candidate] = []
        kinds, notes = families(asked.scenario, asked.inventory, asked.space)
        self.notes += notes
        if not asked.scenario.config.link and asked.inventory.links is None:
            self.notes.append(
                f"The scenario has no link; disaggregated layouts use {DEFAULT_LINK}."
            )
        for family in kinds:
            some = list(members(family, limits, dict(self.question.prices), asked.space))
            check_size(len(found) + len(some))
            if some:
                bound = family_bound(family, asked.scenario, self.sample, asked.slo, self.rate_rps)
                found += [self._candidate(layout, bound) for layout in some]
        found.sort(key=lambda c: (*objective_key(c, asked.objective), c.layout.order))
        return found

    def _candidate(self, layout: Any, bound: FamilyBound) -> Candidate:
        counts = tuple(s.instances for s in layout.shapes)
        c = Candidate(layout, layout.usd_per_hour(self.question.prices), bound, counts)
        c.load, c.bottleneck = bound.bottleneck(counts)
        reason = rejection(bound, counts, self.asked.slo, self.asked.scenario, self.sample)
        if reason is not None:
            c.verdict, c.reason = "rejected", reason
        elif self.kind == "steady" and self.rate_rps is not None:
            c.skip, c.tail = cut(bound, counts[-1], self.rate_rps, c.load)
        return c

    def _search(self, candidates: list[Candidate]) -> tuple[Search, Bench]:
        budget = self.asked.budget_requests
        if budget is None:
            share = int(BUDGET_SHARE * BRUTE_FORCE * len(candidates))
            budget = min(MOST_BUDGET, max(LEAST_BUDGET, share))
        bench = Bench(
            self.question, self.ledger, jobs=self.jobs, budget=budget, progress=self.progress
        )
        alive = [c for c in candidates if c.verdict != "rejected"]
        key: Callable[[Candidate], Any] = lambda c: objective_key(c, self.asked.objective)  # noqa: E731 - used twice
        tiers = [
            sorted(tier, key=lambda c: (c.layout.mode, c.layout.order))
            for _, tier in groupby(alive, key=key)
        ]
        search = Search(
            bench, self.kind, tiers, seed=self.asked.seed, trace_length=len(self.sample)
        )
        return search, bench

    # ------------------------------------------------------------------ the answer

    def _answer(
        self,
        candidates: list[Candidate],
        search: Search,
        best: dict[Any, Candidate],
        room: Headroom | None,
        complete: bool,
        bench: Bench,
    ) -> Plan:
        objective = self.asked.objective
        target = self.asked.slo.attainment
        word, sentence = disaggregate(best, candidates, objective, target, complete)
        first = min(
            best.values(),
            key=lambda c: (objective_key(c, objective), search.rank(c)),
            default=None,
        )
        near = None if first else closest(candidates)
        close = undecided_below(candidates, None, first, objective, target) if first else []
        if first is not None:
            first.verdict = "winner"
        if not complete:
            self.notes.append(
                "The request budget ended the search; what it did not reach is unknown."
                if search.exhausted
                else "The search was interrupted; what it did not reach is unknown."
            )
        tokens = self._output_tokens_per_s()
        made = {id(c): Evaluated.of(c, tokens) for c in candidates}
        return Plan(
            scenario=self.asked.scenario,
            slo=self.asked.slo,
            objective=objective,
            prices=dict(self.question.prices),
            winner=made[id(first)] if first else None,
            disaggregated_best=_of(made, best.get("disaggregated")),
            colocated_best=_of(made, best.get("colocated")),
            disaggregate=word,
            verdict=sentence,
            binds=self._binds(room, near, first),
            headroom=room,
            closest=_of(made, near),
            too_close=tuple(made[id(c)] for c in close),
            rows=tuple(made[id(c)] for c in candidates),
            requests_simulated=bench.simulated,
            brute_force_requests=BRUTE_FORCE * len(candidates),
            complete=complete,
            interrupted=not complete and not search.exhausted,
            notes=tuple(self.notes),
        )

    def _binds(self, room: Headroom | None, near: Candidate | None, first: Candidate | None) -> str:
        if room is not None:
            return room.binds
        c = near or first
        if c is None:
            return "the limits: no layout is possible within them"
        what = c.why() if c.seen else c.reason
        loaded = f" (load {c.load:.2f})" if c.load is not None else ""
        return (
            f"{what}; the most loaded resource is {c.bottleneck}{loaded}" if c.bottleneck else what
        )

    def _output_tokens_per_s(self) -> float | None:
        if self.rate_rps is None:
            return None
        return self.rate_rps * float(self.sample.output_tokens.mean())


def _of(made: dict[int, Evaluated], c: Candidate | None) -> Evaluated | None:
    return None if c is None else made[id(c)]
