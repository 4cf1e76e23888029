"""Making trials, in waves over worker processes, each trial once.

A wave is a list that the search decides before it starts, so it does not depend on the number of
workers; outcomes come back in the order of the list whatever the order they finish in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import joblib  # type: ignore[import-untyped]  # no stubs are published

from simulator.planner.ledger import Ledger
from simulator.planner.trial import Outcome, Question, Trial, run_trial

Progress = Callable[[str, int, int], None]


class Bench:
    """Makes trials and remembers them.

    Args:
        question: scenario, targets and prices.
        ledger: outcomes found before, and where new ones go.
        jobs: worker processes; 1 for none, -1 for one a core.
        budget: requests that may be simulated in all.
        progress: called as ``progress(what, requests simulated, budget)`` after every trial.

    Attributes:
        simulated: requests of all trials the search has asked for, recovered ones included.
        trials: how many these are.
        recovered: trials among them that were found in the ledger.
    """

    def __init__(
        self,
        question: Question,
        ledger: Ledger,
        *,
        jobs: int,
        budget: int,
        progress: Progress | None,
    ) -> None:
        self.question = question
        self.ledger = ledger
        self.jobs = jobs
        self.budget = budget
        self.progress = progress
        self.what = "planning"
        self.simulated = 0
        self.trials = 0
        self.recovered = 0
        self._asked: set[str] = set()
        self._workers: joblib.Parallel | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._workers = None

    @property
    def left(self) -> int:
        """Requests of the budget that are left."""
        return self.budget - self.simulated

    def run(self, wave: Sequence[Trial]) -> list[Outcome]:
        """Outcomes of a wave, in its order."""
        new = [t for t in dict.fromkeys(wave) if t.key not in self._asked]
        missing = []
        for trial in new:
            known = self.ledger.get(trial)
            if known is None:
                missing.append(trial)
            else:
                self.recovered += 1
                self._count(trial, known)
        for trial, outcome in self._made(missing):
            self.ledger.add(trial, outcome)
            self._count(trial, outcome)
        found = [self.ledger.get(trial) for trial in wave]
        assert all(outcome is not None for outcome in found)
        return [outcome for outcome in found if outcome is not None]

    def _count(self, trial: Trial, outcome: Outcome) -> None:
        self._asked.add(trial.key)
        self.simulated += outcome.simulated
        self.trials += 1
        if self.progress is not None:
            self.progress(self.what, self.simulated, self.budget)

    def _made(self, trials: list[Trial]) -> Iterator[tuple[Trial, Outcome]]:
        if self.jobs == 1 or len(trials) < 2:
            for trial in trials:
                yield trial, run_trial(self.question, trial)
            return
        if self._workers is None:
            self._workers = joblib.Parallel(
                n_jobs=self.jobs, return_as="generator_unordered", batch_size=1
            )
        calls = (joblib.delayed(_numbered)(self.question, i, t) for i, t in enumerate(trials))
        for i, outcome in self._workers(calls):
            yield trials[i], outcome


def _numbered(question: Question, number: int, trial: Trial) -> tuple[int, Outcome]:
    """A trial in a worker process, with its place in the wave."""
    return number, run_trial(question, trial)
