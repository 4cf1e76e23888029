"""Inventory, layouts, space, bounds, intervals: the parts of a plan."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.analysis import analyze
from simulator.errors import ScenarioError
from simulator.planner import Inventory, Layout, Shape, Space, inventory_names
from simulator.planner.bounds import family_bound, rejection
from simulator.planner.intervals import effective_size, mean_interval, share_interval
from simulator.planner.space import Limits, families, members
from simulator.planner.trial import Question, Trial, block_length, run_trial
from simulator.scenario import SLO, Scenario
from tests.planner_kit import SPACE, TARGETS, tiny, two_types

# ---------------------------------------------------------------- inventory


def test_the_bundled_example_says_what_may_be_bought() -> None:
    assert "example" in inventory_names()
    found = Inventory.load("example")
    base = Scenario.load("chat_70b_h100")
    assert found.usd_per_gpu_hour("h100_sxm", base) == 2.80
    assert found.node_size("h100_sxm") == 8
    assert found.links_for(base) == ("ib_ndr",)


def test_without_an_inventory_the_scenarios_gpus_and_prices_count() -> None:
    base = tiny(prices={"h100_sxm": 9.0})
    found = Inventory.of_scenario(base)
    assert list(found.gpus) == ["h100_sxm"]
    assert found.usd_per_gpu_hour("h100_sxm", base) == 9.0


def test_the_tariff_that_applies_is_paid() -> None:
    price = {"on_demand": 3.0, "reserved": 2.0}
    raw = {"gpus": {"h100_sxm": {"price": price, "pays": "reserved"}}}
    assert Inventory.from_dict(raw).usd_per_gpu_hour("h100_sxm", tiny()) == 2.0


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            {"gpus": {"h100_sxm": {"cuont": 4}}},
            "gpus.h100_sxm.cuont: unknown key; did you mean 'count'",
        ),
        (
            {"gpus": {"h100_sx": {}}},
            "gpus.h100_sx: GPU 'h100_sx' is unknown; did you mean 'h100_sxm'",
        ),
        ({"gpus": {"h100_sxm": {"tp": [16]}}}, "gpus.h100_sxm.tp: found 16; allowed: at most"),
        ({"gpus": {"h100_sxm": {"count": 0}}}, "gpus.h100_sxm.count: found 0; allowed: at least 1"),
        ({"gpus": {"h100_sxm": {"count": "8"}}}, "gpus.h100_sxm.count: found '8' (text)"),
        ({"gpus": {"h100_sxm": {"pays": "spot"}}}, "pays: found spot, which has no price"),
        ({"gpus": {"h100_sxm": {"price": {"spot": 1.0}}}}, "pays: is missing; allowed: spot"),
        ({"gpus": {"h100_sxm": {"pays": "spott"}}}, "did you mean 'spot'"),
        ({"gpus": {"h100": {}, "h100_sxm": {}}}, "each GPU type once"),
        ({"gpus": {"h100_sxm": {}}, "links": ["ib_ndx"]}, "links: link 'ib_ndx' is unknown"),
        ({"gpus": {"h100_sxm": {}}, "constraints": {"max_gpu": 4}}, "did you mean 'max_gpus'"),
        ({"gpus": {}}, "gpus: is empty"),
        ({}, "gpus: is missing"),
    ],
)
def test_bad_inventories_are_one_sentence(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        Inventory.from_dict(raw, source="mine.yaml")
    assert str(caught.value).startswith("mine.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inventory_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("gpus:\n  l40s: {count: 4, tp: [1, 2]}\n")
    assert Inventory.load(file).gpus["l40s"].tp == (1, 2)
    with pytest.raises(ScenarioError, match="no file and no bundled inventory; did you mean 'ex"):
        Inventory.load("exampel")


# ---------------------------------------------------------------- layouts and space

DISAGGREGATED = Layout(
    mode="disaggregated",
    prefill=Shape("h100_sxm", 4, 4),
    decode=Shape("a100_sxm_80gb", 4, 2),
    link="ib_ndr",
    max_num_seqs=128,
    max_num_batched_tokens=4096,
)
COLOCATED = Layout(
    mode="colocated",
    colocated=Shape("h100_sxm", 4, 6),
    max_num_seqs=128,
    max_num_batched_tokens=4096,
)


def test_labels_and_prices() -> None:
    assert DISAGGREGATED.label == "4P2D h100_sxm:TP4 / a100_sxm_80gb:TP4 ib_ndr"
    assert COLOCATED.label == "6C h100_sxm:TP4"
    assert DISAGGREGATED.gpus == 24
    assert DISAGGREGATED.usd_per_hour({"h100_sxm": 2.0, "a100_sxm_80gb": 1.0}) == 40.0
    assert len({DISAGGREGATED, COLOCATED, DISAGGREGATED}) == 2


@pytest.mark.parametrize("layout", [DISAGGREGATED, COLOCATED])
@pytest.mark.parametrize("base", ["chat_70b_h100", "colocated_70b_h100", "azure_conv_70b"])
def test_every_layout_is_a_scenario_of_every_base(layout: Layout, base: str) -> None:
    source = Scenario.load(base)
    prices = {"h100_sxm": 7.0, "a100_sxm_80gb": 1.0}
    made = layout.scenario(source, prices=prices, slo=SLO(ttft_s=0.3))
    deployment = made.deployment()
    assert deployment.gpus == layout.gpus
    assert deployment.usd_per_hour == layout.usd_per_hour(prices)
    assert made.config.workload == source.config.workload
    assert made.slo == SLO(ttft_s=0.3)
    for pool in deployment.pools:
        if pool.role != "prefill":
            assert pool.max_num_seqs == 128
        if pool.role != "decode":
            assert pool.max_num_batched_tokens == 4096


def test_a_layout_keeps_what_the_base_says_of_its_pools_and_link() -> None:
    pools = {
        "prefill": {"gpu": "h100_sxm", "max_wait_s": 0.01, "memory_fraction": 0.8},
        "decode": {"gpu": "h100_sxm", "block_tokens": 32},
    }
    base = tiny(pools=pools, link={"name": "ib_ndr", "spine_gbps": 100.0})
    layout = Layout(
        mode="disaggregated",
        prefill=Shape("h100_sxm", 1, 2),
        decode=Shape("h100_sxm", 1, 1),
        link="ib_ndr",
        max_num_seqs=8,
        max_num_batched_tokens=512,
    )
    made = layout.scenario(base).config
    assert made.pools["prefill"].max_wait_s == 0.01
    assert made.pools["prefill"].memory_fraction == 0.8
    assert made.pools["decode"].block_tokens == 32
    assert made.link is not None
    assert made.link.spine_gbps == 100.0


def test_the_space_keeps_all_limits() -> None:
    base = Scenario.load("chat_70b_h100")
    inventory = Inventory.from_dict(
        {
            "gpus": {
                "h100_sxm": {"count": 16, "node_size": 4, "price": {"on_demand": 2.0}},
                "a100_sxm_80gb": {"count": 8, "tp": [8], "price": {"on_demand": 1.0}},
            },
            "constraints": {"max_gpus": 20, "max_usd_per_hour": 30.0},
        }
    )
    space = Space(max_num_seqs=(64,), max_num_batched_tokens=(8192,))
    limits = Limits.of(inventory, 24)
    assert limits.gpus == 20
    prices = {"h100_sxm": 2.0, "a100_sxm_80gb": 1.0}
    kinds, _ = families(base, inventory, space)
    found = [m for kind in kinds for m in members(kind, limits, prices, space)]
    assert found
    assert len(set(found)) == len(found)
    for layout in found:
        assert layout.gpus <= 20
        assert layout.usd_per_hour(prices) <= 30.0
        for shape in layout.shapes:
            assert shape.tp <= (4 if shape.gpu == "h100_sxm" else 8)
        assert sum(s.gpus for s in layout.shapes if s.gpu == "a100_sxm_80gb") <= 8
    assert {s.tp for m in found for s in m.shapes if s.gpu == "a100_sxm_80gb"} == {8}


def test_a_gpu_nobody_measured_is_a_note_of_the_plan() -> None:
    base = tiny()
    stock = {"name": "new", "gpus": {"b200": {"count": 2, "price": {"on_demand": 4.5}}}}
    kinds, notes = families(base, Inventory.from_dict(stock), SPACE)
    assert kinds
    assert [note for note in notes if note.startswith("b200 is not calibrated")] == list(notes)


def test_a_model_that_fits_no_gpu_leaves_an_empty_space_with_the_reason() -> None:
    base = Scenario.load("chat_70b_h100")
    kinds, notes = families(base, two_types(), Space(tps=(1,)))
    assert kinds == ()
    assert len(notes) == 2
    assert "before any KV cache" in notes[0]


# ---------------------------------------------------------------- bounds


def test_loads_of_all_members_are_those_of_the_closed_form() -> None:
    base, slo = tiny(), TARGETS
    sample = Question(base, slo, {}).requests(1, 3000)
    limits = Limits(5, None, {})
    kinds, _ = families(base, Inventory.of_scenario(base), SPACE)
    for kind in kinds:
        bound = family_bound(kind, base, sample, slo, sample.rate_rps)
        for layout in members(kind, limits, {"h100_sxm": 1.0}, SPACE):
            counts = tuple(s.instances for s in layout.shapes)
            whole = analyze(layout.scenario(base, slo=slo).deployment(), sample, slo=slo)
            load, what = bound.bottleneck(counts)
            assert load == pytest.approx(whole.load)
            assert what == f"{whole.bottleneck.resource} ({whole.bottleneck.limit})"
            wanted = [p.tpot_load for p in whole.pools if p.role != "prefill"]
            assert [x.at(counts) for x in bound.tpot] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        (SLO(ttft_s=0.002), "even in an empty system"),
        (SLO(tpot_s=0.004), "cannot decode within the TPOT target"),
        (SLO(tpot_s=0.004, attainment=0.5), "even in an empty system"),
        (SLO(ttft_s=5.0), None),
    ],
)
def test_what_bounds_reject(slo: SLO, said: str | None) -> None:
    base = tiny(10.0)
    sample = Question(base, slo, {}).requests(1, 2000)
    kinds, _ = families(base, Inventory.of_scenario(base), SPACE)
    for kind in kinds:
        bound = family_bound(kind, base, sample, slo, 10.0)
        reason = rejection(bound, tuple(1 for _ in kind.shapes), slo, base, sample)
        assert reason is None if said is None else said in str(reason)


def test_requests_that_never_fit_refuse_a_layout_unless_they_may_be_rejected() -> None:
    lengths = {"dist": "fixed", "tokens": 30000}
    workload = {
        "rate_rps": 1.0,
        "requests": 10,
        "prompt_tokens": lengths,
        "output_tokens": {"dist": "fixed", "tokens": 10},
    }
    layout = Layout(
        mode="colocated",
        colocated=Shape("h100_sxm", 2, 1),
        max_num_seqs=8,
        max_num_batched_tokens=4096,
    )
    for rule, said in (("error", "can never fit"), ("reject", "overloaded|empty system")):
        base = tiny(
            model="llama-3.1-70b",
            workload={**workload, "on_too_long": rule},
            pools={"prefill": {"gpu": "h100_sxm", "tp": 4}, "decode": {"gpu": "h100_sxm", "tp": 4}},
        )
        sample = Question(base, TARGETS, {}).requests(1, 10)
        bound = family_bound(layout, base, sample, TARGETS, 1.0)
        if rule == "error":
            assert said in str(rejection(bound, (1,), TARGETS, base, sample))
        else:
            assert bound.refusal is None


# ---------------------------------------------------------------- intervals


def test_independent_hits_give_nearly_the_binomial_interval() -> None:
    rng = np.random.default_rng(1)
    sizes = [500] * 40
    hits = [int(rng.binomial(500, 0.97)) for _ in sizes]
    found = share_interval(hits, sizes)
    assert 0.6 < effective_size(hits, sizes) / 20000 < 1.7
    assert found.lo < 0.97 < found.hi
    assert found.hi - found.lo == pytest.approx(2 * 1.96 * (0.97 * 0.03 / 20000) ** 0.5, rel=0.3)


def test_clustered_misses_widen_the_interval() -> None:
    spread = share_interval([490] * 8, [500] * 8)
    together = share_interval([500] * 7 + [420], [500] * 8)
    assert spread.mean == together.mean
    assert together.hi - together.lo > 3 * (spread.hi - spread.lo)


def test_no_miss_is_not_certainty() -> None:
    found = share_interval([1000] * 4, [1000] * 4)
    assert found.hi == 1.0
    assert 0.98 < found.lo < 0.995


def test_no_hit_and_one_unit() -> None:
    assert share_interval([0, 0], [50, 50]).mean == 0.0
    one = share_interval([95], [100])
    assert one.lo < 0.95 < one.hi


def test_share_intervals_cover_clustered_shares() -> None:
    """Beta-binomial units: 200 repetitions of five replications, as a plan makes them."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        p = rng.beta(98 * 2, 2 * 2, size=5)
        covered += (f := share_interval(rng.binomial(2000, p), [2000] * 5)).lo <= 0.98 <= f.hi
    assert 0.90 <= covered / 400 <= 0.99


def test_mean_interval_needs_two_values() -> None:
    assert mean_interval([1.0]) is None
    found = mean_interval([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0


# ---------------------------------------------------------------- trials


def test_a_trial_counts_neither_the_start_nor_the_drain() -> None:
    base = tiny(30.0)
    question = Question(base, TARGETS, {"h100_sxm": 2.8})
    kind = families(base, Inventory.of_scenario(base), SPACE)[0][0]
    whole = run_trial(question, Trial(kind, 1, 400))
    cut = run_trial(question, Trial(kind, 1, 400, skip=100, tail=50))
    assert (whole.counted, cut.counted) == (400, 250)
    assert cut.simulated == 400
    assert sum(cut.batch_hits) == cut.hits
    assert whole.bootstrap is None


def test_the_same_seed_gives_every_layout_and_rate_the_same_requests() -> None:
    question = Question(tiny(30.0), TARGETS, {})
    short, long = question.requests(3, 100), question.requests(3, 500)
    np.testing.assert_array_equal(short.arrival_s, long.arrival_s[:100])
    faster = question.requests(3, 100, 2.0)
    np.testing.assert_allclose(faster.arrival_s * 2.0, short.arrival_s)
    np.testing.assert_array_equal(faster.prompt_tokens, short.prompt_tokens)


def test_a_replay_states_its_bootstrap_block() -> None:
    base = tiny(workload={"trace": {"path": "azure2023_conv", "max_requests": 300}})
    layout = Layout(
        mode="colocated",
        colocated=Shape("h100_sxm", 1, 2),
        max_num_seqs=64,
        max_num_batched_tokens=4096,
    )
    found = run_trial(Question(base, SLO(ttft_s=0.1), {}), Trial(layout, 1, None))
    assert found.counted == 300
    assert found.bootstrap is not None
    assert found.bootstrap["block"] == [block_length(300)]
    lo, hi = found.bootstrap["attainment"]
    assert lo <= found.attainment <= hi
