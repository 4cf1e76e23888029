"""The planner against brute force on two tiny families; four larger ones are in benchmarks/."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bruteforce import MOST_SHARE, Cache, Checked, check, faults, judge, report
from families import FAMILIES, TINY, Family

COUNTED = 1000
"""Requests counted per run here; the share of brute force is still taken of 10,000."""


@pytest.mark.parametrize("family", TINY, ids=lambda f: f.name)
def test_the_plan_is_as_good_as_trying_everything(family: Family) -> None:
    found = check(family, counted=COUNTED)  # once a family: it is most of the time
    assert found.plan.complete
    assert found.wrong == []
    assert found.share <= MOST_SHARE
    winner, cheapest = found.plan.winner, found.cheapest
    assert winner is not None
    assert cheapest is not None
    assert winner.usd_per_hour <= cheapest.usd_per_hour
    assert {e.layout.full_label for e in found.plan.rows} == set(found.judged)
    assert {"holds", "fails"} <= {j.verdict for j in found.judged.values()}
    # bounds reject nothing that holds
    rejected = [e.layout.full_label for e in found.plan.rows if e.verdict == "rejected"]
    assert all(found.judged[label].verdict == "fails" for label in rejected)
    assert_worse_plans_are_found_out(found)
    text = report([found])
    assert f"| {family.name} | {len(found.judged)} |" in text
    assert "| ok |" in text
    assert "**wrong**" in report([replace(found, wrong=["so it is"])])


def assert_worse_plans_are_found_out(found: Checked) -> None:
    """The check is able to fail, for each of its reasons."""
    made, judged = found.plan, found.judged
    dearest = max(made.rows, key=lambda e: e.usd_per_hour)
    assert "costs" in faults(replace(made, winner=dearest), judged)[0]
    failing = next(e for e in made.rows if judged[e.layout.full_label].verdict == "fails")
    assert any("fails" in w for w in faults(replace(made, winner=failing), judged))
    label = failing.layout.full_label
    marginal = {**judged, label: replace(judged[label], verdict="marginal", usd_per_hour=0.0)}
    assert any("not listed" in w for w in faults(replace(made, too_close=()), marginal))
    spent = replace(made, requests_simulated=made.brute_force_requests)
    assert any("of brute force" in w for w in faults(spent, judged))
    assert any("inf" in w for w in faults(replace(made, winner=None), judged))


@pytest.mark.parametrize(
    ("values", "grows", "verdict"),
    [
        ([0.991, 0.995, 0.990, 0.999, 0.992], [False] * 5, "holds"),  # all five
        ([0.9965, 0.9960, 0.9962, 0.9964, 0.9961], [False] * 5, "holds"),
        ([0.9, 0.9, 0.9, 0.9, 0.9], [False] * 5, "fails"),
        ([0.985, 0.993, 0.991, 0.992, 0.988], [False] * 5, "marginal"),
        ([1.0] * 5, [True, True, True, False, False], "fails"),  # a backlog grows
        ([1.0] * 5, [True, True, False, False, False], "holds"),
    ],
)
def test_judging(values: list[float], grows: list[bool], verdict: str) -> None:
    assert judge(values, grows, 0.99)[0] == verdict


def test_cache_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "out" / "runs.jsonl"
    Cache(path).add("a", [0.5], [False])
    Cache(path).add("b", [0.6], [True])
    path.write_text(path.read_text(encoding="utf-8") + '{"key": "c", "atta', encoding="utf-8")
    assert Cache(path).known == {"a": [[0.5], [False]], "b": [[0.6], [True]]}
    assert [json.loads(x)["key"] for x in path.read_text(encoding="utf-8").splitlines()[:2]] == [
        "a",
        "b",
    ]


def test_families_can_be_tried_whole() -> None:
    assert len(FAMILIES) == 4
    for family in (*FAMILIES, *TINY):
        assert family.scenario().slo is not None
        assert set(family.stock().gpus) == set(family.inventory["gpus"])
