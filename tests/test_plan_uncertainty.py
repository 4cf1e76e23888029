"""The probability that a plan holds."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from simulator.planner import Plan, confidence, plan
from simulator.planner.evidence import COLUMNS
from simulator.uncertainty import Factor
from simulator.uncertainty.factors import STEP
from tests.planner_kit import SPACE, TARGETS, short_runs, tiny

__all__ = ["short_runs"]


def asked(draws: int | None, **options: Any) -> Plan:
    return plan(tiny(), TARGETS, max_gpus=4, space=SPACE, uncertainty=draws, **options)


@pytest.mark.usefixtures("short_runs")
def test_finalists_get_a_probability_and_the_plan_stays() -> None:
    plain, sure = asked(None), asked(6)
    assert plain.confidence is None
    assert plain.to_dict()["uncertainty"] is None
    assert plain.winner is not None
    assert sure.winner is not None
    assert sure.winner.layout == plain.winner.layout
    assert sure.verdict.startswith(plain.verdict)
    assert "Of 6 draws" in sure.verdict
    held = sure.winner.holds_in_draws
    assert held is not None
    assert 0.0 <= held <= 1.0
    answer = sure.to_dict()
    assert answer["winner"]["holds_in_draws"] == held
    first = answer["uncertainty"]["finalists"][0]
    assert first["holds"] == held
    assert first["attainment"]["lo"] <= first["attainment"]["median"] <= first["attainment"]["hi"]
    assert tuple(sure.evidence.columns) == COLUMNS
    assert sure.evidence["holds_in_draws"].notna().sum() == len(answer["uncertainty"]["finalists"])
    assert asked(6, jobs=2).to_dict()["uncertainty"] == answer["uncertainty"]


@pytest.mark.usefixtures("short_runs")
def test_no_spread_is_a_sure_thing_and_a_wide_one_is_not(monkeypatch: Any) -> None:
    held = []
    for sigma in (1e-9, 1.0):
        monkeypatch.setattr(confidence, "factors_of", lambda *_, s=sigma: (Factor(STEP, s, ""),))
        found = asked(10)
        assert found.winner is not None
        held.append(found.winner.holds_in_draws)
    assert held[0] == 1.0
    # half of the draws are slower than modelled; a step twice as slow misses the targets
    assert 0.3 <= held[1] <= 0.9


def test_a_number_of_draws_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="uncertainty: found 1; allowed: from 2"):
        asked(1)
