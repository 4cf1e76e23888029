"""``Plan``: the answer with its evidence, as objects, tables and JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from simulator.analysis.bounds import finite
from simulator.analysis.measured import Measured
from simulator.html import card, dollars, duration, figures, share
from simulator.metrics import Interval
from simulator.planner.candidate import Candidate, Stage, Verdict
from simulator.planner.confidence import Confidence
from simulator.planner.headroom import Headroom
from simulator.planner.layout import Layout, Shape
from simulator.planner.verdict import Disaggregate, Objective
from simulator.scenario import SLO, Scenario
from simulator.scenario.settings import Settings

SCHEMA = 1
"""Version of the JSON contract of ``plan``."""

COLUMNS = (
    "label",
    "mode",
    "prefill_gpu",
    "prefill_tp",
    "prefill_instances",
    "decode_gpu",
    "decode_tp",
    "decode_instances",
    "colocated_gpu",
    "colocated_tp",
    "colocated_instances",
    "link",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpus",
    "usd_per_hour",
    "usd_per_m_output_tokens",
    "stage",
    "verdict",
    "reason",
    "load",
    "bottleneck",
    "attainment",
    "attainment_lo",
    "attainment_hi",
    "ttft_s_mean",
    "ttft_s_lo",
    "ttft_s_hi",
    "ttft_p99_s",
    "tpot_s_mean",
    "tpot_s_lo",
    "tpot_s_hi",
    "tpot_p99_s",
    "replications",
    "requests_simulated",
    "holds_in_draws",
)
"""Columns of the evidence table; seconds, USD, shares of 1."""

_WHOLE = ("_tp", "_instances", "max_num_seqs", "max_num_batched_tokens", "gpus", "replications")
_TEXTS = ("label", "mode", "link", "stage", "verdict", "reason", "bottleneck")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A layout with what was found about it; intervals are of 95 %.

    Attributes:
        layout: the layout.
        usd_per_hour: price of all its GPUs [USD/h].
        usd_per_m_output_tokens: at the planned rate [USD]; None if unknown.
        stage: how far it got.
        verdict: what is known.
        reason: why, in a sentence.
        load: highest closed-form load of a pool or link.
        bottleneck: what has it.
        attainment: share of requests that meet every target.
        ttft_s: mean time to first token [s].
        ttft_p99_s: its 99th percentile [s].
        tpot_s: mean time per output token [s].
        tpot_p99_s: its 99th percentile [s].
        replications: long runs made.
        requests_simulated: requests of all its runs.
        holds_in_draws: probability that it holds though the model may be off; None if not asked.
        measured: what of its time is not of measured kernels; None for layouts a plan does not name.
        settings: its engine settings and where they come from; None for the same layouts.
    """

    layout: Layout
    usd_per_hour: float
    usd_per_m_output_tokens: float | None
    stage: Stage
    verdict: Verdict
    reason: str
    load: float | None
    bottleneck: str | None
    attainment: Interval | None
    ttft_s: Interval | None
    ttft_p99_s: float | None
    tpot_s: Interval | None
    tpot_p99_s: float | None
    replications: int
    requests_simulated: int
    holds_in_draws: float | None = None
    measured: Measured | None = None
    settings: Settings | None = None

    @property
    def label(self) -> str:
        """The layout's label, batching limits apart."""
        return self.layout.label

    @property
    def gpus(self) -> int:
        """GPUs of the layout."""
        return self.layout.gpus

    @classmethod
    def of(cls, c: Candidate, output_tokens_per_s: float | None) -> Evaluated:
        """From a candidate.

        Args:
            c: the candidate.
            output_tokens_per_s: output tokens asked for, where no run tells [1/s].
        """
        tokens = c.output_tokens_per_s or (output_tokens_per_s if c.verdict != "rejected" else None)
        per_million = c.usd_per_hour / 3600.0 / tokens * 1e6 if tokens else None
        return cls(
            layout=c.layout,
            usd_per_hour=c.usd_per_hour,
            usd_per_m_output_tokens=per_million,
            stage=c.stage,
            verdict=c.verdict,
            reason=c.reason,
            load=c.load,
            bottleneck=c.bottleneck,
            attainment=c.attainment(),
            ttft_s=c.mean("ttft"),
            ttft_p99_s=c.p99("ttft"),
            tpot_s=c.mean("tpot"),
            tpot_p99_s=c.p99("tpot"),
            replications=len(c.reps),
            requests_simulated=c.simulated,
        )

    def to_dict(self) -> dict[str, Any]:
        """LAYOUT of the JSON contract; a missing value is None."""
        return {
            "label": self.label,
            "mode": self.layout.mode,
            "prefill": _shape(self.layout.prefill),
            "decode": _shape(self.layout.decode),
            "colocated": _shape(self.layout.colocated),
            "link": self.layout.link,
            "max_num_seqs": self.layout.max_num_seqs,
            "max_num_batched_tokens": self.layout.max_num_batched_tokens,
            "gpus": self.gpus,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_m_output_tokens": self.usd_per_m_output_tokens,
            "stage": self.stage,
            "verdict": self.verdict,
            "reason": self.reason,
            "load": finite(self.load),
            "bottleneck": self.bottleneck,
            "attainment": _interval(self.attainment),
            "ttft_s": _interval(self.ttft_s),
            "ttft_p99_s": self.ttft_p99_s,
            "tpot_s": _interval(self.tpot_s),
            "tpot_p99_s": self.tpot_p99_s,
            "replications": self.replications,
            "requests_simulated": self.requests_simulated,
            "holds_in_draws": self.holds_in_draws,
            "not_measured": None if self.measured is None else self.measured.to_list(),
            "settings": None if self.settings is None else self.settings.to_dict(),
        }

    def row(self) -> dict[str, Any]:
        """A row of the evidence table."""
        out: dict[str, Any] = {"label": self.label, "mode": self.layout.mode}
        for role in ("prefill", "decode", "colocated"):
            shape: Shape | None = getattr(self.layout, role)
            for name in ("gpu", "tp", "instances"):
                out[f"{role}_{name}"] = None if shape is None else getattr(shape, name)
        out.update({key: getattr(self.layout, key) for key in ("link", "max_num_seqs")})
        out["max_num_batched_tokens"] = self.layout.max_num_batched_tokens
        for name, column in (("attainment", ""), ("ttft_s", "_mean"), ("tpot_s", "_mean")):
            found: Interval | None = getattr(self, name)
            out[name + column] = found.mean if found else None
            out[f"{name}_lo"] = found.lo if found else None
            out[f"{name}_hi"] = found.hi if found else None
        for name in COLUMNS:
            if name not in out:
                out[name] = getattr(self, name)
        return out


def _shape(shape: Shape | None) -> dict[str, Any] | None:
    if shape is None:
        return None
    return shape.to_dict()


def _interval(found: Interval | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {"mean": finite(found.mean), "lo": finite(found.lo), "hi": finite(found.hi)}


def evidence_table(rows: list[Evaluated]) -> pd.DataFrame:
    """One row a layout; missing numbers are NaN (whole ones ``<NA>``), missing texts None."""
    table = pd.DataFrame([r.row() for r in rows], columns=list(COLUMNS))
    for name in COLUMNS:
        if name.endswith(_WHOLE) or name == "requests_simulated":
            table[name] = table[name].astype("Int64")
        elif name in _TEXTS or name.endswith("_gpu"):
            table[name] = table[name].astype(object).where(table[name].notna(), None)
        else:
            table[name] = table[name].astype(float)
    return table


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
