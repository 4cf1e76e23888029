"""What the layouts a plan names rest on: engine settings, measured kernels, and what stands in."""

from __future__ import annotations

from dataclasses import replace

from simulator.analysis import analyze
from simulator.analysis.measured import Measured, measured, operating
from simulator.planner.result import Evaluated, Plan
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
    known: dict[str, tuple[Measured, Settings]] = {}
    said: dict[str, list[str]] = {}

    def told(found: Evaluated | None) -> Evaluated | None:
        if found is None:
            return None
        label = found.layout.full_label
        if label not in known:
            rests, settings, sentences = _footing(found, question, sample)
            known[label] = rests, settings
            for sentence in sentences:
                said.setdefault(sentence, []).append(found.label)
        return replace(found, measured=known[label][0], settings=known[label][1])

    told_plan = replace(
        plan,
        winner=told(plan.winner),
        disaggregated_best=told(plan.disaggregated_best),
        colocated_best=told(plan.colocated_best),
        closest=told(plan.closest),
    )
    notes = [f"{', '.join(dict.fromkeys(labels))}: {text}" for text, labels in said.items()]
    return replace(told_plan, notes=(*plan.notes, *notes))


def _footing(
    found: Evaluated, question: Question, sample: Requests
) -> tuple[Measured, Settings, tuple[str, ...]]:
    deployment = found.layout.scenario(question.base, slo=question.slo).deployment()
    bounds = analyze(deployment, sample, slo=question.slo)
    rests = measured(deployment, sample, operating(deployment, bounds))
    notes = dict.fromkeys(note for pool in deployment.pools for note in pool.step.notes)
    return rests, deployment.settings, (*notes, *rests.sentences)
