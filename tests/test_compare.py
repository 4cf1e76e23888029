"""Comparisons: what the colocated twin is, that both sides see one workload, what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from simulator.comparison import Comparison, compare
from simulator.comparison.twins import cost_twins, inventory, inventory_twin
from simulator.comparison.verdict import verdict
from simulator.errors import InputError
from simulator.metrics import Interval, attains
from simulator.report.comparison import (
    blocks,
    comparison_figure,
    print_comparison,
    write_comparison,
)
from simulator.report.files import json_text
from simulator.scenario import SLO, Scenario

FEW = "workload.requests=150"
HETERO = [
    "model=llama-3.1-8b",
    FEW,
    "pools.prefill={role: prefill, gpu: h100_sxm, tp: 2, instances: 2, "
    "max_num_batched_tokens: 4096, max_num_seqs: 16}",
    "pools.decode={role: decode, gpu: a100_sxm, tp: 1, instances: 3, max_num_seqs: 96, "
    "max_num_batched_tokens: 2048, block_tokens: 32, memory_fraction: 0.8}",
]


@pytest.fixture(scope="module")
def quick() -> Comparison:
    return compare(Scenario.load("quick_8b", [FEW]))


@pytest.fixture(scope="module")
def cheap() -> Comparison:
    return compare(Scenario.load("quick_8b", [FEW, "pools.decode.gpu=a100_sxm"]), twin="cost")


def _twin(*overrides: str) -> tuple[Scenario, str, tuple[str, ...]]:
    scenario = Scenario.load("quick_8b", overrides)
    return inventory_twin(scenario, inventory(scenario, scenario.deployment()))


# --- twins --------------------------------------------------------------------------------------


def test_inventory_twin_is_the_same_gpus_in_one_pool(quick: Comparison) -> None:
    ours, theirs = quick.disaggregated.run.deployment, quick.colocated.run.deployment
    assert ours.gpus == theirs.gpus == 2
    assert ours.usd_per_hour == theirs.usd_per_hour
    assert [(p.name, p.role, p.tp, p.instances) for p in theirs.pools] == [
        ("colocated", "colocated", 1, 2)
    ]
    assert quick.how.endswith("2 × h100_sxm TP1.")
    assert quick.notes == ()


def test_each_gpu_type_is_a_pool_with_its_own_limits() -> None:
    twin, how, notes = _twin(*HETERO)
    pools = {name: pool.model_dump() for name, pool in twin.config.pools.items()}
    assert list(pools) == ["colocated_h100_sxm", "colocated_a100_sxm_80gb"]
    h100, a100 = pools.values()
    assert (h100["tp"], h100["instances"], h100["max_num_batched_tokens"]) == (2, 2, 4096)
    assert (a100["tp"], a100["instances"], a100["max_num_batched_tokens"]) == (1, 3, 2048)
    assert (h100["max_num_seqs"], a100["max_num_seqs"]) == (16, 96)
    assert (a100["block_tokens"], a100["memory_fraction"]) == (32, 0.8)
    assert "2 × h100_sxm TP2 and 3 × a100_sxm_80gb TP1" in how
    assert notes == ()


@pytest.mark.parametrize(
    ("prefill", "decode", "expected", "idle"),
    [
        ((2, 1), (2, 2), (2, 3), ""),  # one TP: all instances
        ((2, 2), (4, 1), (4, 2), ""),  # the decode pool's, when nothing is left over
        ((2, 1), (4, 1), (2, 3), ""),  # the one that leaves no GPU idle
        ((4, 1), (8, 1), (4, 3), ""),
        ((8, 1), (4, 1), (4, 3), ""),
    ],
)
def test_the_tp_of_a_type_leaves_fewest_gpus_idle(
    prefill: tuple[int, int], decode: tuple[int, int], expected: tuple[int, int], idle: str
) -> None:
    twin, _, notes = _twin(
        f"pools.prefill.tp={prefill[0]}",
        f"pools.prefill.instances={prefill[1]}",
        f"pools.decode.tp={decode[0]}",
        f"pools.decode.instances={decode[1]}",
    )
    pool = twin.config.pools["colocated"]
    assert (pool.tp, pool.instances) == expected
    assert "".join(notes) == idle


def test_the_token_budget_of_a_type_is_its_prefill_pools() -> None:
    twin, _, _ = _twin(
        "pools.prefill.max_num_batched_tokens=100",
        "pools.decode.max_num_seqs=200",
        "pools.decode.max_num_batched_tokens=5000",
    )
    pool = twin.config.pools["colocated"]
    assert pool.max_num_seqs == 200
    assert pool.max_num_batched_tokens == 200  # raised from 100: every sequence needs its token


def test_a_twin_keeps_all_else_and_drops_what_it_cannot_have() -> None:
    twin, _, _ = _twin(
        "first_token=handoff", "transfer=layerwise", "reserve=before_prefill", "seed=7"
    )
    ours = Scenario.load("quick_8b", ["seed=7"]).config.model_dump()
    theirs = twin.config.model_dump()
    for key in ("model", "precision", "workload", "slo", "prices", "engine", "seed"):
        assert theirs[key] == ours[key], key
    for key in ("link", "first_token", "transfer", "reserve"):
        assert theirs[key] is None, key
    assert twin.config.routing.decode is None
    assert twin.name == "quick_8b_colocated"


def test_cost_twins_are_all_that_the_budget_buys() -> None:
    scenario = Scenario.load("quick_8b", [FEW, "pools.decode.gpu=a100_sxm"])
    deployment = scenario.deployment()
    found = cost_twins(scenario, inventory(scenario, deployment), deployment.usd_per_hour)
    layouts = {(d.pools[0].gpu.name, d.pools[0].tp, d.pools[0].instances) for _, d in found}
    # 2.80 + 1.60 = 4.40 USD/h
    assert layouts == {("h100_sxm", 1, 1), ("a100_sxm_80gb", 1, 2), ("a100_sxm_80gb", 2, 1)}
    assert all(d.usd_per_hour <= deployment.usd_per_hour + 1e-9 for _, d in found)


def test_the_cost_twin_is_the_best_screened(cheap: Comparison) -> None:
    chosen = [c for c in cheap.screening if c.chosen]
    assert len(chosen) == 1
    assert len(cheap.screening) == 3
    assert chosen[0].layout in cheap.how
    assert chosen[0].slo_attainment == max(c.slo_attainment or 0 for c in cheap.screening)
    assert cheap.colocated.summary.cost.usd_per_hour == pytest.approx(chosen[0].usd_per_hour)
    # all requests fit the screening run, which is then the same as the full one
    assert cheap.colocated.summary.slo_attainment == chosen[0].slo_attainment


def test_free_gpus_are_counted_by_number() -> None:
    scenario = Scenario.load("quick_8b", [FEW, "prices={h100_sxm: 0}"])
    deployment = scenario.deployment()
    found = cost_twins(scenario, inventory(scenario, deployment), deployment.usd_per_hour)
    assert {(d.pools[0].tp, d.pools[0].instances) for _, d in found} == {(1, 2), (2, 1)}


@pytest.mark.parametrize(
    ("name", "twin", "sentence"),
    [
        ("colocated_70b_h100", "inventory", "compare wants a disaggregated scenario"),
        ("colocated_70b_h100", "cost", "compare wants a disaggregated scenario"),
        ("quick_8b", "twin", r"twin: found 'twin'; allowed: cost, inventory\."),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_sentence(
    name: str, twin: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        compare(Scenario.load(name), twin=twin)  # type: ignore[arg-type]


# --- both sides ---------------------------------------------------------------------------------


def test_both_sides_serve_the_same_requests(quick: Comparison) -> None:
    ours, theirs = quick.disaggregated.run.requests, quick.colocated.run.requests
    for column in ("id", "arrival_s", "prompt_tokens", "output_tokens"):
        np.testing.assert_array_equal(ours[column], theirs[column])


def test_the_twins_file_gives_the_same_run_alone(quick: Comparison, tmp_path: Path) -> None:
    from simulator.engine import simulate

    path = tmp_path / "twin.yaml"
    path.write_text(quick.colocated.scenario.to_yaml(), encoding="utf-8")
    alone = simulate(Scenario.load(path))
    np.testing.assert_array_equal(
        alone.requests["last_token_s"], quick.colocated.run.requests["last_token_s"]
    )


def test_a_seed_is_recorded_and_changes_both_sides(quick: Comparison) -> None:
    other = compare(Scenario.load("quick_8b", [FEW]), seed=5)
    assert other.disaggregated.scenario.seed == other.colocated.scenario.seed == 5
    assert other.colocated.run.seed == 5
    assert not np.array_equal(
        other.colocated.run.requests["arrival_s"], quick.colocated.run.requests["arrival_s"]
    )


def test_the_gain_is_the_difference_of_the_attainments(quick: Comparison) -> None:
    slo = SLO(ttft_s=0.03)
    tight = compare(Scenario.load("quick_8b", [FEW, "slo={ttft_s: 0.03}"]))
    assert tight.gain is not None
    expected = (
        attains(tight.disaggregated.run, slo).mean() - attains(tight.colocated.run, slo).mean()
    )
    assert tight.gain.mean == pytest.approx(float(expected))
    assert tight.gain.lo <= tight.gain.mean <= tight.gain.hi
    without = compare(Scenario.load("quick_8b", [FEW, "slo=null"]))
    assert without.gain is None
    assert "without latency targets" in without.verdict


def test_progress_covers_every_run() -> None:
    heard: set[str] = set()
    compare(
        Scenario.load("quick_8b", [FEW]), twin="cost", progress=lambda what, *_: heard.add(what)
    )
    assert heard == {"screening 1 of 2", "screening 2 of 2", "disaggregated", "colocated"}


def test_json_form(quick: Comparison, cheap: Comparison) -> None:
    for c in (quick, cheap):
        data = json.loads(json_text(c.to_dict()))
        assert data["schema"] == 1
        assert data["twin"] == c.twin
        assert data["disaggregated"]["summary"]["mode"] == "disaggregated"
        assert data["colocated"]["summary"]["mode"] == "colocated"
        assert [p["role"] for p in data["colocated"]["layout"]] == ["colocated"]
        assert data["verdict"] == c.verdict
        assert len(data["screening"]) == len(c.screening)


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "said"),
    [
        (0.995, 0.5, 0.4, "only disaggregated reaches the target of 99 %."),
        (0.5, 0.995, -0.6, "only colocated reaches the target of 99 %."),
        (0.5, 0.4, 0.05, "neither reaches the target of 99 %."),
        (1.0, 0.9999, 0.00001, "for over 99.9 % at $5.60/h; both reach the target of 99 %."),
        (0.995, 0.992, -0.001, "and the difference is too close to call from one run."),
    ],
)
def test_the_verdict(quick: Comparison, ours: float, theirs: float, low: float, said: str) -> None:
    a = replace(quick.disaggregated.summary, slo_attainment=ours)
    b = replace(quick.colocated.summary, slo_attainment=theirs)
    high = low + 0.2 if low > 0 or theirs < 0.995 else low + 0.1
    gain = Interval(ours - theirs, low, high, 0.95, "rule")
    sentence = verdict(a, b, SLO(ttft_s=0.2, tpot_s=0.02, attainment=0.99), gain)
    assert said in sentence
    assert sentence.startswith("Disaggregated meets TTFT ≤ 200 ms and TPOT ≤ 20 ms for")


def test_the_verdict_names_the_side_that_does_not_keep_up(quick: Comparison) -> None:
    a, b = quick.disaggregated.summary, quick.colocated.summary
    b = replace(b, stability=replace(b.stability, stable=False))
    sentence = verdict(a, b, SLO(ttft_s=0.2), quick.gain)
    assert sentence.endswith("colocated does not keep up with the load.")


def test_side_by_side(quick: Comparison, cheap: Comparison) -> None:
    out = Console(width=120, record=True, file=StringIO(), highlight=False, force_terminal=True)
    print_comparison(out, quick)
    shown = " ".join(out.export_text().split())
    for part in ("1P1D disaggregated against 2 colocated", "TTFT p99", "change", "points"):
        assert part in shown, part
    assert quick.verdict in shown
    assert [b.title for b in blocks(cheap)][-1] == "Screened for the twin"
    arrows = [row[0] for row in blocks(cheap)[-1].rows if row[0].startswith("→")]
    assert len(arrows) == 1


def test_files(quick: Comparison, tmp_path: Path) -> None:
    written = write_comparison(tmp_path, quick)
    assert sorted(written) == sorted(p.name for p in tmp_path.iterdir())
    assert Scenario.load(tmp_path / "colocated.yaml") == quick.colocated.scenario
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") == 1


def test_the_figure_shows_both_sides(quick: Comparison) -> None:
    left, right, below = comparison_figure(quick).axes
    solid = [line for line in left.lines if line.get_linestyle() == "-"]
    assert len(solid) == 2
    assert right.get_legend() is not None
    assert [t.get_text() for t in below.get_yticklabels()] == ["disaggregated", "colocated"]


def test_the_public_name_is_the_function() -> None:
    import simulator
    import simulator.comparison.twins  # the package must not hide the function

    assert simulator.compare is compare
