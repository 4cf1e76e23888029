"""Whole plans on tiny questions: the answer, its evidence, and what must not change it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from simulator.engine import simulate
from simulator.errors import InputError, ScenarioError
from simulator.metrics import summarize
from simulator.planner import COLUMNS, Inventory, Plan, Space, plan, save_scenarios
from simulator.scenario import SLO, Scenario
from tests.planner_kit import SPACE, TARGETS, short_runs, tiny, two_types

pytestmark = pytest.mark.usefixtures(short_runs.__name__)


@pytest.fixture(scope="module")
def small() -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        from simulator.planner import sizes

        patch.setattr(sizes, "COUNTED", 320)
        patch.setattr(sizes, "PROBE", 160)
        return plan(tiny(), TARGETS, max_gpus=5, space=SPACE)


def test_the_answer(small: Plan) -> None:
    # a decode instance of 8 sequences holds about 45 requests/s, so 60 need two of them
    assert small.winner is not None
    assert small.winner.label == "2C h100_sxm:TP1"
    assert small.winner.verdict == "winner"
    assert small.colocated_best is small.winner
    assert small.disaggregated_best is not None
    assert small.disaggregated_best.label == "1P2D h100_sxm:TP1 / h100_sxm:TP1 ib_ndr"
    assert small.disaggregate == "no"
    assert "saves $2.80/h (33 %)" in small.verdict
    assert small.complete
    assert small.layout is small.winner.layout


def test_the_evidence_has_every_layout_with_a_reason(small: Plan) -> None:
    table = small.evidence
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == len(small.rows) == 12 - 1  # 3P3D has six GPUs
    assert table["reason"].str.len().min() > 5
    assert (table["verdict"] == "winner").sum() == 1
    rejected = table[table["verdict"] == "rejected"]
    assert (rejected["requests_simulated"] == 0).all()
    assert (rejected["load"] > 1).all()
    dominated = table[table["verdict"] == "dominated"]
    assert dominated["reason"].str.contains("dearer than").all()
    seen = table[table["stage"] == "replicated"]
    assert (seen["attainment_lo"] <= seen["attainment"]).all()
    assert (seen["attainment"] <= seen["attainment_hi"]).all()
    assert table["requests_simulated"].sum() <= small.requests_simulated
    assert table["usd_per_hour"].is_monotonic_increasing


def test_the_head_room_brackets_the_rate_at_which_it_breaks(small: Plan) -> None:
    assert small.headroom is not None
    assert small.headroom_interval_rps is not None
    low, high = small.headroom_interval_rps
    assert high is not None
    assert 60.0 <= low < high < 100.0
    assert small.headroom_rps == 0.5 * (low + high)
    assert "times the rate" in small.binds


def test_the_json_contract(small: Plan) -> None:
    found = json.loads(json.dumps(small.to_dict(), allow_nan=False))
    assert found["schema"] == 1
    assert {"winner", "colocated_best", "verdict", "evidence", "pareto"} <= set(found)
    winner = found["winner"]
    assert winner["mode"] == "colocated"
    assert winner["colocated"] == {"gpu": "h100_sxm", "tp": 1, "instances": 2}
    assert set(winner["attainment"]) == {"mean", "lo", "hi"}
    assert found["evidence"][0]["attainment"] is None
    assert len(found["pareto"]) == len(small.pareto())


def test_nothing_on_the_pareto_front_is_beaten(small: Plan) -> None:
    front = small.pareto()
    values = front[["usd_per_hour", "ttft_p99_s", "tpot_p99_s"]].to_numpy(dtype=float)
    for a in values:
        assert not any((b <= a).all() and (b < a).any() for b in values)


def test_every_row_is_a_runnable_scenario(small: Plan, tmp_path: Path) -> None:
    assert save_scenarios(tmp_path, small) == len(small.rows)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(small.rows)
    assert small.winner is not None
    loaded = Scenario.load(tmp_path / f"{small.winner.layout.slug}.yaml")
    assert loaded.slo == TARGETS
    run = simulate(loaded.with_overrides(["workload.requests=500"]))
    assert summarize(run, loaded.slo).cost.usd_per_hour == small.winner.usd_per_hour


def test_workers_do_not_change_the_evidence(small: Plan) -> None:
    two = plan(tiny(), TARGETS, max_gpus=5, space=SPACE, jobs=2)
    pd.testing.assert_frame_equal(two.evidence, small.evidence, check_exact=True)
    assert two.to_dict() == small.to_dict()


def test_looser_targets_never_cost_more() -> None:
    costs = []
    for ttft_s in (0.06, 0.1, 0.5):
        found = plan(tiny(50.0), SLO(ttft_s=ttft_s, attainment=0.9), max_gpus=4, space=SPACE)
        costs.append(found.winner.usd_per_hour if found.winner else math.inf)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < math.inf


def test_a_larger_inventory_never_costs_more(small: Plan) -> None:
    more = plan(tiny(), TARGETS, max_gpus=5, space=SPACE, inventory=two_types())
    assert more.winner is not None
    assert small.winner is not None
    assert more.winner.usd_per_hour <= small.winner.usd_per_hour
    assert len(more.rows) > len(small.rows)


def test_no_feasible_layout_is_an_answer() -> None:
    found = plan(tiny(200.0), TARGETS, max_gpus=4, space=SPACE)
    assert found.winner is None
    assert found.headroom is None
    assert found.disaggregate == "neither"
    assert found.verdict.startswith("No layout within the limits holds; closest came")
    assert found.closest is not None
    assert "overloaded" in found.closest.reason
    assert found.to_dict()["winner"] is None


def test_an_empty_space_is_an_answer_too() -> None:
    base = Scenario.load("chat_70b_h100")
    found = plan(base, max_gpus=1, space=Space(tps=(4,)))
    assert found.winner is None
    assert found.verdict == "No layout is possible within the limits."
    assert len(found.evidence) == 0


def test_one_mode_alone_leaves_the_question_open() -> None:
    space = Space(max_num_seqs=(8,), max_num_batched_tokens=(4096,), tps=(1,), modes=("colocated",))
    found = plan(tiny(), TARGETS, max_gpus=3, space=space)
    assert found.winner is not None
    assert found.disaggregate == "undecided"
    assert "no disaggregated layout was considered" in found.verdict


def test_the_objective_may_be_gpus() -> None:
    inventory = Inventory.from_dict(
        {
            "gpus": {
                "h100_sxm": {"price": {"on_demand": 10.0}},
                "a100_sxm_80gb": {"price": {"on_demand": 1.0}},
            }
        }
    )
    slo = SLO(ttft_s=0.1, attainment=0.9)
    cost = plan(tiny(50.0), slo, max_gpus=3, space=SPACE, inventory=inventory)
    gpus = plan(tiny(50.0), slo, max_gpus=3, space=SPACE, inventory=inventory, objective="gpus")
    assert cost.winner is not None
    assert gpus.winner is not None
    assert gpus.winner.gpus <= cost.winner.gpus
    assert cost.winner.usd_per_hour <= gpus.winner.usd_per_hour


def test_a_trace_is_planned_as_given() -> None:
    base = tiny(workload={"trace": {"path": "azure2023_conv", "max_requests": 800}})
    space = Space(max_num_seqs=(64,), max_num_batched_tokens=(8192,), tps=(1,))
    found = plan(base, SLO(ttft_s=0.5, attainment=0.95), max_gpus=3, space=space)
    assert found.winner is not None
    assert found.winner.attainment is not None
    assert found.winner.attainment.rule.startswith("moving-block bootstrap, blocks of")
    assert found.winner.replications == 1


def test_a_closed_loop_has_no_rate_and_no_head_room() -> None:
    lengths = {"dist": "uniform", "low": 64, "high": 192}
    client = {"concurrency": 8, "requests": 200}
    workload = {"closed_loop": client, "prompt_tokens": lengths, "output_tokens": lengths}
    found = plan(tiny(workload=workload), SLO(tpot_s=0.02, attainment=0.9), max_gpus=2, space=SPACE)
    assert found.winner is not None
    assert found.winner.load is None
    assert found.headroom is None


def test_a_small_budget_ends_the_search_and_says_so() -> None:
    found = plan(tiny(), TARGETS, max_gpus=5, space=SPACE, budget_requests=1500)
    assert found.requests_simulated <= 1500
    assert not found.complete
    assert not found.interrupted
    assert any("budget" in note for note in found.notes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jobs": 0}, "jobs: found 0"),
        ({"objective": "price"}, "objective: found 'price'; allowed: cost, gpus."),
        ({"max_gpus": 0}, "max_gpus: found 0"),
        ({"resume": "somewhere"}, "allowed beside it: jobs, progress"),
    ],
)
def test_bad_options(given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan(tiny(), TARGETS, **given)  # type: ignore[arg-type]  # wrong on purpose


def test_a_plan_needs_targets_and_a_scenario() -> None:
    with pytest.raises(ScenarioError, match="no latency targets"):
        plan(tiny())
    with pytest.raises(InputError, match="needs a scenario"):
        plan()
