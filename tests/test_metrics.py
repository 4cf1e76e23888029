"""Metrics against rows worked by hand, and the JSON contract against its page."""

import json
from pathlib import Path

import numpy as np
import pytest

from simulator.analysis import analyze
from simulator.engine import simulate, simulate_deployment
from simulator.metrics import (
    PARTS,
    arrival_window_s,
    attainment,
    attains,
    cost,
    e2e,
    goodput,
    makespan_s,
    mser5,
    pool_use,
    statistics,
    summarize,
    throughput,
    tpot,
    ttft,
    waterfall,
)
from simulator.request import State
from simulator.scenario import SLO, Scenario
from tests.engine_kit import requests
from tests.metrics_kit import SERVED, by_hand, colocated, disaggregated

DOCS = Path(__file__).parents[1] / "docs"

# --- latencies and their parts ------------------------------------------------------------------


def test_latencies_by_hand():
    run = by_hand([SERVED, SERVED | {"output_tokens": 1}])
    assert ttft(run).tolist() == [3.25, 3.25]
    assert e2e(run).tolist() == [4.25, 4.25]
    assert tpot(run)[0] == pytest.approx(0.1)
    assert np.isnan(tpot(run)[1])


@pytest.mark.parametrize(
    ("first_token", "change", "expected"),
    [
        ("decode", {}, [0.5, 0.5, 1.0, 0.25, 0.75, 0.125, 0.125]),
        ("handoff", {"first_token_s": 4.125}, [0.5, 0.5, 1.0, 0.25, 0.75, 0.125, 0.0]),
        ("prefill", {"first_token_s": 3.0}, [0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0]),
        # layer by layer: only what follows the prefill is exposed
        ("decode", {"transfer_start_s": 2.25}, [0.5, 0.5, 1.0, 0.0, 1.0, 0.125, 0.125]),
    ],
)
def test_the_waterfall_by_hand(first_token, change, expected):
    run = by_hand([SERVED | change], disaggregated(first_token=first_token))
    parts = waterfall(run)
    assert tuple(parts.columns) == PARTS
    assert parts.iloc[0].tolist() == expected


def test_the_waterfall_of_a_colocated_request():
    row = {
        "arrival_s": 1.0,
        "queued_s": 1.5,
        "prefill_start_s": 2.0,
        "prefill_end_s": 2.75,  # preempted then, recomputed until the first token
        "first_token_s": 4.0,
        "decode_start_s": 4.0,
        "last_token_s": 9.0,
    }
    parts = waterfall(by_hand([row], colocated()))
    assert parts.iloc[0].tolist() == [0.5, 0.5, 2.0, 0.0, 0.0, 0.0, 0.0]


def test_requests_without_a_first_token_have_no_parts():
    run = by_hand([SERVED, {"state": State.REJECTED, "arrival_s": 2.0}])
    assert waterfall(run).iloc[1].isna().all()
    assert np.isnan(ttft(run)[1])


def engine_deployments():
    for first_token in ("prefill", "handoff", "decode"):
        for transfer, reserve in (
            ("after_prefill", "after_prefill"),
            ("after_prefill", "before_prefill"),
            ("layerwise", "before_prefill"),
        ):
            yield disaggregated(
                first_token=first_token,
                transfer=transfer,
                reserve=reserve,
                router_latency_s=0.01,
                decode={"capacity_blocks": 150, "max_num_seqs": 6},
            )
    yield colocated(capacity_blocks=150, max_num_seqs=6)
    yield colocated(max_num_batched_tokens=128)


@pytest.mark.parametrize("d", list(engine_deployments()))
def test_the_parts_sum_to_ttft_for_every_request(d):
    rng = np.random.default_rng(5)
    arrival = np.sort(rng.uniform(0, 20, 150))
    workload = requests(arrival, rng.integers(1, 500, 150), rng.integers(1, 40, 150))
    run = simulate_deployment(d, workload)
    parts = waterfall(run)
    assert (run.requests["state"] == State.DONE).all()
    assert parts.to_numpy().min() >= 0.0
    assert parts.sum(axis=1).to_numpy() == pytest.approx(ttft(run), rel=1e-12, abs=1e-12)
    summary = summarize(run)
    assert sum(summary.waterfall_s.values()) == pytest.approx(summary.ttft_s["mean"])


def test_statistics_interpolate_and_ignore_nan():
    found = statistics(np.array([4.0, np.nan, 1.0, 3.0, 2.0, 5.0]))
    assert found == {
        "mean": 3.0,
        "p50": 3.0,
        "p90": pytest.approx(4.6),
        "p95": pytest.approx(4.8),
        "p99": pytest.approx(4.96),
    }
    assert set(statistics(np.array([np.nan])).values()) == {None}


# --- objectives, throughput, cost, use ----------------------------------------------------------


def test_attainment_is_joint_and_counts_everybody():
    def row(ttft_s, tpot_s, **kw):
        first = 1.0 + ttft_s
        return {"arrival_s": 1.0, "first_token_s": first, "last_token_s": first + 10 * tpot_s} | kw

    run = by_hand(
        [
            row(0.5, 0.1),
            row(1.5, 0.1),  # late
            row(0.5, 0.3),  # slow
            row(0.5, 0.0, output_tokens=1),  # one token: no TPOT to miss
            {"arrival_s": 3.0, "state": State.REJECTED},
            {"arrival_s": 5.0, "state": State.FAILED},
            {"arrival_s": 5.0, "state": State.DECODING, "first_token_s": 5.1},
            row(0.5, 0.2),  # exactly on target
        ]
    )
    slo = SLO(ttft_s=1.0, tpot_s=0.2 + 1e-12)
    assert attains(run, slo).tolist() == [True, False, False, True, False, False, False, True]
    assert attainment(run, slo) == 3 / 8
    assert goodput(run, slo) == pytest.approx(3 / 4.0)  # arrivals from 1 s to 5 s
    assert attainment(run, SLO(ttft_s=1.0)) == 4 / 8


def test_goodput_is_per_arrival_window_or_makespan():
    rows = [SERVED, SERVED | {"arrival_s": 3.0, "queued_s": 3.0}]
    run = by_hand(rows)
    assert (arrival_window_s(run), makespan_s(run)) == (2.0, 4.25)
    assert arrival_window_s(by_hand(rows, concurrency=1)) == 4.25
    assert arrival_window_s(by_hand([SERVED])) == 4.25


def test_throughput_and_cost_by_hand():
    d = disaggregated(prefill={"instances": 2, "tp": 2}, decode={"instances": 1})
    rows = [SERVED | {"prompt_tokens": 300}, SERVED | {"prompt_tokens": 100, "output_tokens": 29}]
    run = by_hand([*rows, {"arrival_s": 2.0, "state": State.REJECTED}], d)
    made = throughput(run)  # 2 requests, 40 tokens, 4.25 s, 5 GPUs
    assert made.requests_per_s == pytest.approx(2 / 4.25)
    assert made.output_tokens_per_s == pytest.approx(40 / 4.25)
    assert made.output_tokens_per_s_per_gpu == pytest.approx(8 / 4.25)
    paid = cost(run)  # 2 USD a GPU-hour
    rent = 10.0 * 4.25 / 3600
    assert paid.usd_per_hour == 10.0
    assert paid.usd_per_m_output_tokens == pytest.approx(rent / 40e-6)
    assert paid.usd_per_m_total_tokens == pytest.approx(rent / 440e-6)
    assert paid.usd_per_m_input_tokens_prefill == pytest.approx(0.8 * rent / 400e-6)
    assert paid.usd_per_m_output_tokens_decode == pytest.approx(0.2 * rent / 40e-6)
    alone = cost(by_hand(rows, colocated()))
    assert alone.usd_per_m_input_tokens_prefill is None
    assert alone.usd_per_m_output_tokens_decode is None


def test_busy_mfu_mbu_and_kv_peak_by_hand():
    d = disaggregated(decode={"instances": 2})
    totals = [
        {},
        {"busy_s": 3.0, "steps": 4, "tokens": 50, "pairs": 10, "rows": 6, "kv_token_steps": 70,
         "kv_peak_blocks": 20},
        {"busy_s": 1.0, "steps": 2, "tokens": 10, "pairs": 5, "rows": 4, "kv_token_steps": 30,
         "kv_peak_blocks": 60},
    ]  # fmt: skip
    run = by_hand([SERVED, SERVED | {"arrival_s": 2.0, "queued_s": 2.0}], d, totals=totals)
    bounds = analyze(d, run.workload)
    use = pool_use(run, bounds)["decode"]
    time = 2 * 4.25  # two instances, first arrival to last token
    assert (use.instances, use.gpus) == (2, 2)
    assert use.busy == pytest.approx(4.0 / time)
    assert use.mfu == pytest.approx((100 * 60 + 2 * 15 + 5 * 10) / (time * 1e6))
    assert use.mbu == pytest.approx((1000 * 6 + 10 * 100) / (time * 1e5))
    assert use.kv_peak == 0.6
    assert use.load == bounds.pool("decode").load > 0
    idle = pool_use(run, bounds)["prefill"]
    assert idle.busy == idle.mfu == idle.mbu == 0.0


# --- the summary and its contract ---------------------------------------------------------------

STATISTICS = {"mean", "p50", "p90", "p95", "p99"}
CONTRACT = {
    "schema": None,
    "scenario": None,
    "mode": None,
    "first_token": None,
    "requests": {"arrived", "completed", "rejected", "cancelled", "failed"},
    "ttft_s": STATISTICS,
    "tpot_s": STATISTICS,
    "itl_s": STATISTICS,
    "e2e_s": STATISTICS,
    "waterfall_s": set(PARTS),
    "goodput_rps": None,
    "slo_attainment": None,
    "throughput": {"requests_per_s", "output_tokens_per_s", "output_tokens_per_s_per_gpu"},
    "pools": {"prefill", "decode"},
    "cost": {"usd_per_hour", "usd_per_m_output_tokens", "usd_per_m_total_tokens"},
    "energy": {
        "joules",
        "joules_per_output_token",
        "wh_per_m_output_tokens",
        "mean_w_per_gpu",
        "grid_gco2_per_kwh",
        "pue",
        "gco2_per_m_output_tokens",
        "pools",
    },
    "classes": None,
    "stable": None,
    "warnings": None,
    "not_measured": None,
    "settings": {"engine", "description", "values"},
    "meta": {"seed", "events", "events_per_request", "strides", "cpu_s", "version"},
}
POOL = {"instances", "gpus", "busy", "load", "mfu", "mbu", "kv_peak"}


def check_contract(found):
    assert list(found) == list(CONTRACT)
    for key, inner in CONTRACT.items():
        if key != "pools" and inner is not None:
            assert set(found[key]) == inner, key
    for use in found["pools"].values():
        assert set(use) == POOL
    json.dumps(found, allow_nan=False)


def test_the_json_contract_and_its_page_agree():
    text = (DOCS / "json.md").read_text()
    example = json.loads(text.split("```json")[1].split("```")[0])
    check_contract(example)
    assert set(example["pools"]) == {"prefill", "decode"}
    table = {line.split("|")[1] for line in text.splitlines() if line.startswith("| `")}
    for key in CONTRACT:
        assert any(f"`{key}" in cell for cell in table), f"{key} has no row in docs/json.md"
    scenario = Scenario.load("quick_8b", ["workload.requests=60"])
    found = summarize(simulate(scenario), scenario.slo).to_dict()
    check_contract(found)
    assert list(found["pools"]) == ["prefill", "decode"]
    assert found["slo_attainment"] is not None
    assert {k: type(v) for k, v in example.items()} == {k: type(v) for k, v in found.items()}


def test_every_metric_is_defined_in_the_semantics_page():
    text = (DOCS / "semantics.md").read_text()
    inner = set().union(*(v for k, v in CONTRACT.items() if v and k != "pools")) | POOL
    for key in {*CONTRACT, *inner} - {"schema", "scenario", "mode", "mean", "p50", "p90"}:
        assert key in text, f"{key} is not defined in docs/semantics.md"


@pytest.mark.parametrize(
    "rows",
    [
        [{"state": State.REJECTED}],
        [{"state": State.REJECTED}, {"state": State.FAILED, "arrival_s": 1.0}],
        [SERVED | {"output_tokens": 1}],
    ],
)
def test_what_is_missing_is_null_and_never_nan(rows):
    run = by_hand(rows)
    found = summarize(run).to_dict()
    check_contract(found)
    assert found["goodput_rps"] is None
    assert found["slo_attainment"] is None
    assert set(found["tpot_s"].values()) == {None}
    assert found["requests"]["arrived"] == len(rows)
    assert json.loads(json.dumps(found)) == found


def test_meta_and_counts():
    rows = [SERVED, SERVED, {"state": State.REJECTED}, {"state": State.CANCELLED}]
    found = summarize(by_hand(rows)).to_dict()
    assert found["requests"] == {
        "arrived": 4,
        "completed": 2,
        "rejected": 1,
        "cancelled": 1,
        "failed": 0,
    }
    meta = found["meta"]
    assert (meta["seed"], meta["events"], meta["events_per_request"]) == (7, 12, 3.0)
    assert (meta["strides"], meta["cpu_s"]) == (5, 0.25)


def test_a_summary_of_a_colocated_run_says_who_emits_the_first_token():
    run = simulate_deployment(colocated(), requests([0.0, 1.0], 50, 5))
    found = summarize(run).to_dict()
    assert (found["mode"], found["first_token"]) == ("colocated", "prefill")
    assert found["throughput"]["requests_per_s"] == pytest.approx(2 / run.end_s)


def test_warm_up_is_removed_on_request_only():
    arrival = np.arange(400) * 0.25
    late = np.where(np.arange(400) < 40, 5.0, 0.5 + 0.1 * (np.arange(400) % 3))
    rows = [
        {"arrival_s": a, "first_token_s": a + w, "last_token_s": a + w + 1}
        for a, w in zip(arrival, late, strict=True)
    ]
    run = by_hand(rows)
    plain, cut = summarize(run), summarize(run, warmup_s=10.0)
    assert plain.requests["arrived"] == 400
    assert plain.warmup_s == 0.0
    assert plain.ttft_s["mean"] == pytest.approx(late.mean())
    assert cut.requests["arrived"] == 360
    assert cut.ttft_s["mean"] == pytest.approx(late[40:].mean())
    assert cut.throughput == plain.throughput
    assert "The first 10 s (40 requests) are left out (as asked)." in cut.warnings
    found = summarize(run, steady=True)
    assert found.warmup_s == 10.0
    assert found.ttft_s == cut.ttft_s
    with pytest.raises(ValueError, match="not both"):
        summarize(run, warmup_s=1.0, steady=True)


def test_mser5_finds_a_transient_and_leaves_white_noise_alone():
    rng = np.random.default_rng(0)
    noise = rng.normal(1.0, 0.1, 2000)
    assert mser5(noise) < 200
    noise[:300] += np.linspace(3.0, 0.5, 300)
    assert 290 <= mser5(noise) < 500
    assert mser5([1.0, 2.0]) == 0


# --- warnings -----------------------------------------------------------------------------------


def warned(run, word, slo=None):
    return [w for w in summarize(run, slo).warnings if word in w]


def test_losses_and_preemptions_are_warned_of():
    rows = [SERVED] * 5 + [SERVED | {"preemptions": 2}, {"state": State.REJECTED}]
    run = by_hand(rows)
    assert warned(run, "rejected") == ["1 of 7 requests (14.3 %) was rejected."]
    assert warned(run, "preemption")[0].startswith("1 of 7 requests (14.3 %) lost its KV cache")
    unfinished = [SERVED, SERVED | {"state": State.DECODING, "last_token_s": -1.0}]
    assert warned(by_hand(unfinished), "did not finish") == [
        "1 of 2 requests (50 %) did not finish."
    ]


def test_short_slots_of_a_closed_loop_are_warned_of():
    rows = [SERVED] * 4
    slots = disaggregated(decode={"max_num_seqs": 4, "instances": 2})
    assert warned(by_hand(rows, slots, concurrency=8), "at most 8 at a time")
    assert not warned(by_hand(rows, slots, concurrency=7), "at a time")


def test_chunked_prefill_is_flagged_as_extrapolated():
    rows = [SERVED | {"prompt_tokens": 1500}]
    assert warned(by_hand(rows, colocated()), "extrapolated")
    assert not warned(by_hand(rows), "extrapolated")
    assert not warned(by_hand([SERVED], colocated()), "extrapolated")


def test_overload_is_said_first():
    workload = requests(np.arange(300) * 0.001, 400, 40)
    summary = summarize(simulate_deployment(disaggregated(), workload))
    assert not summary.stable
    assert "overloaded" in summary.warnings[0]
    assert summary.stability.load == summary.bounds.load > 1.0
    assert any("run is short" in w for w in summary.warnings)


def test_a_calm_run_has_no_warnings():
    rng = np.random.default_rng(1)
    workload = requests(np.cumsum(rng.exponential(0.3, 600)), 400, 40)
    summary = summarize(simulate_deployment(disaggregated(), workload), SLO(ttft_s=1.0))
    assert summary.warnings == ()
    assert summary.stable
    assert summary.stability.conclusive
