"""``Plan``: the answer with its evidence, as objects, tables and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from simulator.html import card, dollars, duration, figures, share
from simulator.planner.confidence import Confidence
from simulator.planner.evidence import Evaluated, evidence_table
from simulator.planner.headroom import Headroom
from simulator.planner.layout import Layout
from simulator.planner.verdict import Disaggregate, Objective
from simulator.scenario import SLO, Scenario

SCHEMA = 1
"""Version of the JSON contract of ``plan``."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan:
    """The answer of ``plan``.

    Attributes:
        scenario: what was planned for.
        slo: the targets.
        objective: what was minimised.
        prices: of one GPU-hour, by GPU type [USD/h].
        winner: the cheapest layout that holds; None if none was found.
        disaggregated_best: the cheapest disaggregated one.
        colocated_best: the cheapest colocated one.
        disaggregate: ``yes``, ``no``, ``too close to call``, ``neither`` (no layout holds) or
            ``undecided`` (one mode was not considered, or the search was cut short).
        verdict: the same in a sentence, with by how much.
        binds: what binds first as traffic grows; without a winner, what keeps the closest layout
            from the targets.
        headroom: the bracket of the rate at which the winner breaks; None without a winner, in a
            closed loop, or if the request budget was spent.
        closest: without a winner, the layout that came closest.
        too_close: layouts that cost no more than the winner and cannot be told from holding, or
            cannot be ranked against it.
        rows: every layout considered, cheapest first.
        requests_simulated: requests of all runs, those of a resumed plan included.
        brute_force_requests: what five runs of 10,000 requests for every layout would take.
        complete: whether the search ended by itself (not by the budget or an interrupt).
        interrupted: whether Ctrl-C ended it.
        notes: what to know before reading the rest.
        confidence: whether the finalists hold though the model may be off; None if not asked.
    """

    scenario: Scenario
    slo: SLO
    objective: Objective
    prices: dict[str, float]
    winner: Evaluated | None
    disaggregated_best: Evaluated | None
    colocated_best: Evaluated | None
    disaggregate: Disaggregate
    verdict: str
    binds: str
    headroom: Headroom | None
    closest: Evaluated | None
    too_close: tuple[Evaluated, ...]
    rows: tuple[Evaluated, ...]
    requests_simulated: int
    brute_force_requests: int
    complete: bool
    interrupted: bool
    notes: tuple[str, ...]
    confidence: Confidence | None = None

    @property
    def layout(self) -> Layout | None:
        """The winner's layout."""
        return self.winner.layout if self.winner else None

    @property
    def headroom_rps(self) -> float | None:
        """The rate at which the winner breaks, the middle of its bracket [1/s]."""
        return self.headroom.rps if self.headroom else None

    @property
    def headroom_interval_rps(self) -> tuple[float, float | None] | None:
        """Highest rate seen to hold and lowest seen to break [1/s]; the latter may be None."""
        h = self.headroom
        return (h.holds_rps, h.breaks_rps) if h else None

    @property
    def evidence(self) -> pd.DataFrame:
        """One row for every layout considered (columns ``COLUMNS``), cheapest first."""
        return evidence_table(list(self.rows))

    def scenario_of(self, evaluated: Evaluated) -> Scenario:
        """A layout as a runnable scenario, with the plan's prices and targets."""
        return evaluated.layout.scenario(self.scenario, prices=self.prices, slo=self.slo)

    def pareto(self) -> pd.DataFrame:
        """Simulated layouts that no other beats in price, p99 TTFT and p99 TPOT together.

        Rows of ``evidence`` that were not rejected for a growing backlog; missing percentiles
        count as 0 (a target that does not exist for a workload of one-token outputs).
        """
        known = [r for r in self.rows if r.ttft_p99_s is not None and r.replications]
        points = [(r.usd_per_hour, r.ttft_p99_s or 0.0, r.tpot_p99_s or 0.0) for r in known]
        front = [
            r
            for r, p in zip(known, points, strict=True)
            if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
        ]
        return evidence_table(front)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of ``plan --json``, schema 1; a missing value is None."""
        head = self.headroom
        return {
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "slo": {
                "ttft_s": self.slo.ttft_s,
                "tpot_s": self.slo.tpot_s,
                "attainment": self.slo.attainment,
                "classes": {
                    name: {"ttft_s": own.ttft_s, "tpot_s": own.tpot_s}
                    for name, own in self.slo.classes.items()
                },
            },
            "objective": self.objective,
            "winner": _plain(self.winner),
            "colocated_best": _plain(self.colocated_best),
            "disaggregated_best": _plain(self.disaggregated_best),
            "disaggregate": self.disaggregate,
            "verdict": self.verdict,
            "binds": self.binds,
            "headroom": None
            if head is None
            else {
                "rps": head.rps,
                "lo": head.holds_rps,
                "hi": head.breaks_rps,
                "planned_rps": head.planned_rps,
            },
            "closest": _plain(self.closest),
            "too_close": [e.to_dict() for e in self.too_close],
            "evidence": [e.to_dict() for e in self.rows],
            "pareto": [_json_row(row) for row in self.pareto().to_dict("records")],
            "complete": self.complete,
            "notes": list(self.notes),
            "uncertainty": None if self.confidence is None else self.confidence.to_dict(),
            "meta": {
                "layouts": len(self.rows),
                "requests_simulated": self.requests_simulated,
                "brute_force_requests": self.brute_force_requests,
            },
        }

    def __repr__(self) -> str:
        best = self.winner.label if self.winner else "no layout"
        return f"Plan({self.scenario.name!r}, {best}, {len(self.rows)} layouts)"

    def _repr_html_(self) -> str:
        named = {
            "winner": self.winner,
            "best disaggregated": self.disaggregated_best,
            "best colocated": self.colocated_best,
            "closest": self.closest,
        }
        head = self.headroom
        facts = {
            "binds first": self.binds,
            "head-room": f"breaks at {figures(head.rps)} requests/s, planned for "
            f"{figures(head.planned_rps)}"
            if head
            else "",
            "too close to call": ", ".join(e.layout.full_label for e in self.too_close),
            "evidence": f"{len(self.rows):,} layouts, {self.requests_simulated:,} requests simulated",
        }
        return card(
            f"Plan for {self.scenario.name}: {self.winner.label if self.winner else 'no layout'}",
            verdict=self.verdict,
            good=self.winner is not None,
            facts=facts,
            header=("", "layout", "GPUs", "$/h", "attainment (95 %)", "TTFT p99", "TPOT p99"),
            rows=[(name, *_shown(e)) for name, e in named.items() if e is not None],
            notes=self.notes,
        )


def with_confidence(plan: Plan, sure: Confidence) -> Plan:
    """The plan with the probability that its finalists hold, in its verdict and its evidence."""

    def told(found: Evaluated | None) -> Evaluated | None:
        return None if found is None else replace(found, holds_in_draws=sure.holds(found.layout))

    return replace(
        plan,
        confidence=sure,
        verdict=f"{plan.verdict} {sure.sentence()}",
        winner=told(plan.winner),
        disaggregated_best=told(plan.disaggregated_best),
        colocated_best=told(plan.colocated_best),
        rows=tuple(replace(row, holds_in_draws=sure.holds(row.layout)) for row in plan.rows),
    )


def _shown(found: Evaluated) -> tuple[str, ...]:
    """A layout's cells in the HTML card."""
    met = found.attainment
    return (
        found.label,
        str(found.gpus),
        dollars(found.usd_per_hour),
        f"{share(met.lo, 2)} to {share(met.hi, 2)}" if met else "",
        duration(found.ttft_p99_s),
        duration(found.tpot_p99_s),
    )


def _plain(found: Evaluated | None) -> dict[str, Any] | None:
    return None if found is None else found.to_dict()


def _json_row(row: dict[Any, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
            return None
        return value.item() if hasattr(value, "item") else value

    return {str(key): plain(value) for key, value in row.items()}
