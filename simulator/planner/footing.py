"""What the layouts a plan names rest on: engine settings, measured kernels, and what stands in."""

from __future__ import annotations

from dataclasses import replace

from simulator.analysis import analyze
from simulator.analysis.measured import Measured, measured, operating
from simulator.planner.evidence import Evaluated
from simulator.planner.layout import Layout
from simulator.planner.result import Plan
from simulator.planner.trial import Question
from simulator.scenario.settings import Settings
from simulator.workload import Requests


def with_footing(plan: Plan, question: Question, sample: Requests) -> Plan:
    """The plan with what its named layouts do not have measured (also in its notes), and settings.

    Batches are those of the closed form.

    Args:
        plan: a plan.
        question: scenario, targets and prices.
        sample: requests of the workload.
    """
    said: dict[str, list[str]] = {}
    told: dict[Layout, Evaluated] = {}
    for found in (plan.winner, plan.disaggregated_best, plan.colocated_best, plan.closest):
        if found is not None and found.layout not in told:
            rests, settings, sentences = _footing(found, question, sample)
            told[found.layout] = replace(found, measured=rests, settings=settings)
            for sentence in sentences:
                said.setdefault(sentence, []).append(found.label)

    def of(found: Evaluated | None) -> Evaluated | None:
        return None if found is None else told[found.layout]

    notes = [f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in said.items()]
    return replace(
        plan,
        winner=of(plan.winner),
        disaggregated_best=of(plan.disaggregated_best),
        colocated_best=of(plan.colocated_best),
        closest=of(plan.closest),
        rows=tuple(told.get(row.layout, row) for row in plan.rows),
        notes=(*plan.notes, *notes),
    )


def _footing(
    found: Evaluated, question: Question, sample: Requests
) -> tuple[Measured, Settings, tuple[str, ...]]:
    deployment = found.layout.scenario(question.base, slo=question.slo).deployment()
    bounds = analyze(deployment, sample, slo=question.slo)
    rests = measured(deployment, sample, operating(deployment, bounds))
    notes = dict.fromkeys(note for pool in deployment.pools for note in pool.step.notes)
    return rests, deployment.settings, (*notes, *rests.sentences)
