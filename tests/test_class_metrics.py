"""Metrics by request class, and targets of classes wherever targets are judged."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.analysis.loads import binding_tpot_s
from simulator.engine import simulate
from simulator.metrics import attainment, attains, class_summaries, goodput, summarize
from simulator.planner.saved import _slo
from simulator.planner.sizes import kind_of
from simulator.planner.trial import Question, Trial, outcome_of
from simulator.report.results import write_results
from simulator.report.summary import summary_blocks, verdicts
from simulator.run import Run
from simulator.scenario import SLO, ClassSLO, Scenario
from simulator.workload import Requests
from tests.metrics_kit import by_hand

FAST = ClassSLO(ttft_s=0.2)
CHAT = ClassSLO(ttft_s=1.0, tpot_s=0.05)


def classed(run: Run, names: list[str]) -> Run:
    """The run with a class for every request."""
    table = run.requests.assign(**{"class": pd.Categorical(names)})
    return replace(run, requests=table)


def worked() -> Run:
    """Three requests; TTFT 0.3, 0.3 and 0.1 s, TPOT 0.1, 0.02 and 0.1 s."""

    def row(at: float, first: float, tpot: float) -> dict[str, float]:
        return {
            "arrival_s": at,
            "prefill_start_s": at,
            "prefill_end_s": at + first,
            "transfer_start_s": at + first,
            "landed_s": at + first,
            "decode_start_s": at + first,
            "first_token_s": at + first,
            "last_token_s": at + first + 10 * tpot,
        }

    rows = [row(0.0, 0.3, 0.1), row(1.0, 0.3, 0.02), row(2.0, 0.1, 0.1)]
    return classed(by_hand(rows), ["fast", "chat", "fast"])


def test_every_request_is_held_to_the_targets_of_its_class() -> None:
    run = worked()
    slo = SLO(classes={"fast": FAST, "chat": CHAT})
    assert attains(run, slo).tolist() == [False, True, True]
    # a class without targets of its own is held to the scenario's
    slo = SLO(tpot_s=0.05, classes={"fast": FAST})
    assert attains(run, slo).tolist() == [False, True, True]
    slo = SLO(tpot_s=0.01, classes={"fast": FAST})
    assert attains(run, slo).tolist() == [False, False, True]
    # without targets of classes, classes make no difference
    assert attains(run, SLO(ttft_s=0.2)).tolist() == [False, False, True]


def test_classes_add_up_to_the_whole() -> None:
    run = worked()
    slo = SLO(classes={"fast": FAST, "chat": CHAT})
    found = class_summaries(run, slo)
    assert set(found) == {"fast", "chat"}
    assert found["fast"].slo_attainment == 0.5
    assert found["chat"].slo_attainment == 1.0
    assert found["fast"].requests == {
        "arrived": 2,
        "completed": 2,
        "rejected": 0,
        "cancelled": 0,
        "failed": 0,
    }
    assert found["fast"].slo == {"ttft_s": 0.2, "tpot_s": None}
    assert found["fast"].ttft_s["mean"] == pytest.approx(0.2)
    assert found["chat"].tpot_s["p99"] == pytest.approx(0.02)
    assert sum(found["fast"].waterfall_s[p] or 0.0 for p in found["fast"].waterfall_s) == (
        pytest.approx(0.2)
    )
    assert sum(c.goodput_rps or 0.0 for c in found.values()) == pytest.approx(goodput(run, slo))
    assert attainment(run, slo) == pytest.approx(2 / 3)


def test_no_classes_no_summaries() -> None:
    run = by_hand([{"first_token_s": 1.0, "last_token_s": 2.0}])
    assert class_summaries(run, SLO(ttft_s=1.0)) == {}


def offered(shares: dict[str, int]) -> Requests:
    index = np.repeat(np.arange(len(shares)), list(shares.values()))
    n = index.size
    ones = np.ones(n, dtype=np.int64)
    return Requests(
        np.arange(n) * 1.0, ones, ones, source="x", classes=tuple(shares), class_index=index
    )


@pytest.mark.parametrize(
    ("slo", "expected"),
    [
        (SLO(tpot_s=0.03), 0.03),
        # 90 % slow, 10 % quick: at 0.9 the slow ones are enough, beyond it the quick ones bind
        (SLO(attainment=0.9, classes={"a": ClassSLO(tpot_s=0.1), "b": ClassSLO(tpot_s=0.02)}), 0.1),
        (
            SLO(attainment=0.95, classes={"a": ClassSLO(tpot_s=0.1), "b": ClassSLO(tpot_s=0.02)}),
            0.02,
        ),
        (SLO(attainment=0.5, classes={"a": ClassSLO(ttft_s=1), "b": ClassSLO(tpot_s=0.02)}), None),
        (SLO(attainment=1.0, classes={"a": ClassSLO(ttft_s=1), "b": ClassSLO(tpot_s=0.02)}), 0.02),
        (SLO(tpot_s=0.04, attainment=0.99, classes={"b": ClassSLO(tpot_s=0.2)}), 0.04),
    ],
)
def test_the_binding_tpot_target(slo: SLO, expected: float | None) -> None:
    assert binding_tpot_s(slo, offered({"a": 90, "b": 10})) == expected


SCENARIO = {
    "name": "two kinds",
    "model": "llama-3.1-8b",
    "workload": {
        "rate_rps": 20,
        "requests": 400,
        "classes": {
            "short": {
                "weight": 3,
                "prompt_tokens": {"dist": "fixed", "tokens": 128},
                "output_tokens": {"dist": "fixed", "tokens": 16},
                "slo": {"ttft_s": 0.06},
            },
            "long": {
                "prompt_tokens": {"dist": "fixed", "tokens": 6000},
                "output_tokens": {"dist": "fixed", "tokens": 32},
                "slo": {"ttft_s": "2s", "tpot_s": "50ms"},
            },
        },
    },
    "pools": {"prefill": {"gpu": "h100_sxm"}, "decode": {"gpu": "h100_sxm"}},
    "link": "ib_ndr",
}


def test_a_run_knows_the_class_of_every_request(tmp_path: Path) -> None:
    scenario = Scenario.from_dict(SCENARIO)
    run = simulate(scenario)
    assert (run.requests["class"] == "long").sum() == (run.requests.prompt_tokens == 6000).sum()
    summary = summarize(run, scenario.slo)
    answer = summary.to_dict()
    assert set(answer["classes"]) == {"short", "long"}
    arrived = sum(c["requests"]["arrived"] for c in answer["classes"].values())
    assert arrived == answer["requests"]["arrived"] == 400
    share = sum(c["slo_attainment"] * c["requests"]["arrived"] for c in answer["classes"].values())
    assert share / 400 == pytest.approx(answer["slo_attainment"])
    titles = [block.title for block in summary_blocks(run, summary, scenario.slo)]
    assert "Request classes" in titles
    assert "least of all" in verdicts(summary, scenario.slo)[0].text
    files = write_results(tmp_path, scenario, run, summary)
    assert "classes.png" in files
    assert "Request classes" in (tmp_path / "report.html").read_text()
    assert str(pd.read_parquet(tmp_path / "requests.parquet")["class"].iloc[0]) in ("short", "long")


def test_warm_up_is_left_out_of_every_class() -> None:
    scenario = Scenario.from_dict(SCENARIO)
    run = simulate(scenario)
    summary = summarize(run, scenario.slo, warmup_s=5.0)
    kept = sum(c.requests["arrived"] for c in summary.classes.values())
    assert kept == summary.requests["arrived"] < 400


def test_a_plan_judges_by_class_unless_told_otherwise() -> None:
    scenario = Scenario.from_dict(SCENARIO)
    run = simulate(scenario)
    assert scenario.slo is not None
    trial = Trial(layout=None, seed=1, requests=400)  # type: ignore[arg-type]  # not looked at
    stable = summarize(run, scenario.slo).stability
    mine = outcome_of(run, scenario.slo, stable, trial)
    assert mine.hits == int(attains(run, scenario.slo).sum())
    loose = outcome_of(run, SLO(ttft_s=2.0), stable, trial)
    assert loose.hits > mine.hits
    assert loose.missed_ttft == 0.0 < mine.missed_ttft


def test_the_question_draws_any_number_of_requests_of_all_classes() -> None:
    scenario = Scenario.from_dict(SCENARIO)
    assert scenario.slo is not None
    question = Question(scenario, scenario.slo, {})
    few, many = question.requests(3, 100), question.requests(3, 900)
    assert (len(few), len(many)) == (100, 900)
    np.testing.assert_array_equal(many.class_index[:100], few.class_index)
    faster = question.requests(3, 100, rate_scale=2.0)
    np.testing.assert_allclose(faster.arrival_s * 2.0, few.arrival_s)


def test_targets_survive_a_plan_folder() -> None:
    slo = SLO(attainment=0.9, classes={"a": ClassSLO(ttft_s=1.0)})
    raw = {
        "ttft_s": None,
        "tpot_s": None,
        "attainment": 0.9,
        "classes": {"a": {"ttft_s": 1.0, "tpot_s": None}},
    }
    assert _slo(raw) == slo
    assert _slo({"ttft_s": 1.0, "tpot_s": None, "attainment": 0.9}) == SLO(
        ttft_s=1.0, attainment=0.9
    )
    assert math.isclose(slo.attainment, 0.9)


@pytest.mark.parametrize(
    ("workload", "kind", "rate"),
    [
        ({"rate_rps": 5, "requests": 50}, "steady", 5.0),
        (
            {
                "arrivals": {
                    "process": "bursty",
                    "on_rps": 9,
                    "off_rps": 1,
                    "on_s": 5,
                    "off_s": 15,
                },
                "requests": 50,
            },
            "steady",
            3.0,
        ),
        (
            {
                "arrivals": {"process": "diurnal", "period_s": 60, "peak_to_mean": 1.5},
                "rate_rps": 5,
                "requests": 300,
            },
            "trace",
            None,
        ),
        (
            {"arrivals": {"process": "ramp", "from_rps": 1, "to_rps": 9, "over_s": 60}},
            "trace",
            None,
        ),
        ({"closed_loop": {"concurrency": 4}}, "closed", None),
    ],
)
def test_what_a_plan_asks_of_a_workload(
    workload: dict[str, object], kind: str, rate: float | None
) -> None:
    lengths = {"dist": "fixed", "tokens": 100}
    raw = {
        **SCENARIO,
        "workload": {**workload, "prompt_tokens": lengths, "output_tokens": lengths},
    }
    scenario = Scenario.from_dict(raw)
    assert kind_of(scenario) == kind
    if rate is not None:
        assert scenario.config.workload.mean_rate_rps == pytest.approx(rate)


def test_rates_of_classes_add_up() -> None:
    classes = SCENARIO["workload"]["classes"]  # type: ignore[index]
    own = {
        name: {**{k: v for k, v in c.items() if k != "weight"}, "rate_rps": rate}
        for (name, c), rate in zip(classes.items(), (8, 3), strict=True)
    }
    scenario = Scenario.from_dict({**SCENARIO, "workload": {"requests": 200, "classes": own}})
    assert scenario.config.workload.mean_rate_rps == 11
    assert kind_of(scenario) == "steady"
