"""Whether a plan holds though the model may be off: its finalists simulated again in draws.

All finalists live in the same worlds and serve the same requests, those of their first replication.
Its luck is taken out: a draw's attainment is corrected by how far the first replication lies from
all of them (a control variate).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import joblib  # type: ignore[import-untyped]  # no stubs are published
import numpy as np

from simulator.planner.candidate import Candidate
from simulator.planner.layout import Layout
from simulator.planner.sizes import Kind, replication
from simulator.planner.trial import Question, Trial, run_trial
from simulator.uncertainty import SPREAD, Band, Draw, draw_factors, factors_of
from simulator.uncertainty.bands import LEVEL, band_of
from simulator.uncertainty.drivers import explained

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finalist:
    """How a layout fares over the draws.

    Attributes:
        layout: the layout.
        holds: share of the draws in which it reaches the attainment wanted without a growing
            backlog: the probability that it holds.
        attainment: 5-95 % band of its attainment.
        driver: what that band mostly comes from, and its share; None if it does not vary.
    """

    layout: Layout
    holds: float
    attainment: Band
    driver: tuple[str, float] | None


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a plan is of itself.

    Attributes:
        draws: how many worlds.
        seed: of the draws.
        finalists: the winner first, then the best of each mode.
    """

    draws: int
    seed: int
    finalists: tuple[Finalist, ...]

    def holds(self, layout: Layout) -> float | None:
        """Probability that a layout holds; None for one that was not simulated again."""
        return next((f.holds for f in self.finalists if f.layout == layout), None)

    def sentence(self) -> str:
        """What a verdict says of it."""
        parts = [f"{f.layout.label} in {100 * f.holds:.0f} %" for f in self.finalists]
        text = " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)
        weak = self.finalists[0].driver
        why = f" (mostly {weak[0]})" if weak is not None else ""
        return (
            f"Of {self.draws} draws of what the model may be off by, the targets hold with "
            f"{text}{why}."
        )

    def to_dict(self) -> dict[str, Any]:
        """The ``uncertainty`` object of ``plan --json``."""
        return {
            "draws": self.draws,
            "seed": self.seed,
            "level": LEVEL,
            "finalists": [
                {
                    "label": f.layout.full_label,
                    "mode": f.layout.mode,
                    "holds": f.holds,
                    "attainment": {
                        "lo": f.attainment.lo,
                        "median": f.attainment.median,
                        "hi": f.attainment.hi,
                    },
                    "driver": None if f.driver is None else f.driver[0],
                }
                for f in self.finalists
            ],
        }


def confidence(
    question: Question,
    kind: Kind,
    finalists: Sequence[Candidate],
    *,
    draws: int,
    seed: int,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Confidence:
    """Simulate finalists again in ``draws`` worlds.

    Args:
        question: scenario, targets and prices.
        kind: what the workload asks.
        finalists: layouts with at least one long run.
        draws: how many worlds.
        seed: of the draws, and of the first replication.
        jobs: worker processes; -1 for one a core. The answer does not depend on it.
        progress: called as ``progress(what, runs made, runs)``.
    """
    plans, work = [], []
    for candidate in finalists:
        deployment = candidate.layout.scenario(question.base, slo=question.slo).deployment()
        factors = factors_of(deployment, SPREAD)
        worlds = draw_factors(factors, (p.gpu for p in deployment.pools), draws, seed)
        trial = replication(candidate, kind, seed)
        plans.append((candidate, factors, worlds))
        work += [(trial, world) for world in worlds]
    seen: list[tuple[float, bool]] = []
    for outcome in _made(question, work, jobs):
        seen.append(outcome)
        if progress is not None:
            progress("drawing", len(seen), len(work))
    found = []
    for i, (candidate, factors, worlds) in enumerate(plans):
        some = seen[i * draws : (i + 1) * draws]
        shift = candidate.estimate()[0] - candidate.reps[0].attainment
        met = np.clip([share + shift for share, _ in some], 0.0, 1.0)
        calm = np.array([not overloaded for _, overloaded in some])
        logs = {f.name: np.array([w.logs[f.name] for w in worlds]) for f in factors}
        shares = explained(met, logs)
        name = max(shares, key=lambda n: shares[n]) if shares else None
        found.append(
            Finalist(
                layout=candidate.layout,
                holds=float(np.mean(calm & (met >= question.slo.attainment))),
                attainment=band_of(met),
                driver=None if name is None else (name, shares[name]),
            )
        )
    return Confidence(draws, seed, tuple(found))


def _made(
    question: Question, work: Sequence[tuple[Trial, Draw]], jobs: int
) -> Iterator[tuple[float, bool]]:
    if jobs == 1:
        yield from (_drawn(question, trial, world) for trial, world in work)
        return
    pool = joblib.Parallel(n_jobs=jobs, return_as="generator", batch_size=1)
    yield from pool(joblib.delayed(_drawn)(question, trial, world) for trial, world in work)


def _drawn(question: Question, trial: Trial, world: Draw) -> tuple[float, bool]:
    outcome = run_trial(question, trial, world)
    return outcome.attainment, outcome.overloaded
