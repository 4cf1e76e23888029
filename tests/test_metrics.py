"""Metrics against rows worked by hand, identities that hold on any path, and known queues."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.analysis import analyze
from simulator.engine import simulate, simulate_deployment
from simulator.metrics import (
    PARTS,
    arrival_window_s,
    attainment,
    attains,
    backlog_trend,
    block_bootstrap,
    cost,
    e2e,
    goodput,
    makespan_s,
    mean_number,
    mser5,
    pool_timeline,
    pool_use,
    replication_interval,
    request_timeline,
    stability,
    statistics,
    summarize,
    throughput,
    tpot,
    ttft,
    waterfall,
)
from simulator.metrics.stability import long_run_variance
from simulator.records import REQUEST_COLUMNS, TOTALS, ItlSketch, Timeline
from simulator.request import State
from simulator.run import Run, request_table
from simulator.scenario import SLO, Scenario
from simulator.theory import little
from tests.engine_kit import deployment, link, pool, requests

DOCS = Path(__file__).parents[1] / "docs"

STEP = SimpleNamespace(
    flops=lambda tokens, pairs, rows: np.asarray(100.0 * tokens + 2.0 * pairs + 5.0 * rows),
    read_bytes=lambda kv: np.asarray(1000.0 + 10.0 * kv),
    kv_bytes_per_token_per_gpu=10.0,
    peak_flops_per_s=1e6,
    peak_bytes_per_s=1e5,
)
"""Stands for a StepModel: 100 FLOP a token, 1000 bytes of weights, 10 bytes of KV a token."""


def disaggregated(**kw):
    pools = (
        pool("prefill", step=STEP, **kw.pop("prefill", {})),
        pool("decode", step=STEP, **kw.pop("decode", {})),
    )
    return deployment(*pools, link=link(nic_bytes_per_s=1e5), **kw)


def colocated(**kw):
    return deployment(pool("colocated", step=STEP, **kw))


def by_hand(rows, d=None, concurrency=None, totals=()):
    """A run from dictionaries of the request table; what is not given never happened."""
    d = d or disaggregated()
    table = np.full((len(rows), len(REQUEST_COLUMNS)), -1.0)
    for i, row in enumerate(rows):
        full = {
            "id": i,
            "arrival_s": 0.0,
            "prompt_tokens": 100,
            "output_tokens": 11,
            "state": State.DONE,
            "queued_s": row.get("arrival_s", 0.0),
            "preemptions": 0,
        } | row
        for name, value in full.items():
            table[i, REQUEST_COLUMNS.index(name)] = value
    instances = pd.DataFrame(
        [
            {"instance": i, "pool": p.name, "role": p.role, "gpus": p.tp, "capacity_blocks": 100}
            for i, p in enumerate(p for p in d.pools for _ in range(p.instances))
        ]
    )
    for key in TOTALS:
        instances[key] = 0.0
    for i, values in enumerate(totals):
        for key, value in values.items():
            instances.loc[i, key] = float(value)
    arrivals = [row.get("arrival_s", 0.0) for row in rows]
    return Run(
        deployment=d,
        workload=requests(
            [0.0] * len(rows) if concurrency else arrivals,
            [row.get("prompt_tokens", 100) for row in rows],
            [row.get("output_tokens", 11) for row in rows],
            concurrency,
        ),
        seed=7,
        requests=request_table(table),
        instances=instances,
        itl=ItlSketch(),
        timeline=Timeline(len(instances), 1.0, ("busy", "batch", "blocks")),
        strides=None,
        meta={"events": 12.0, "strides": 5.0, "cpu_s": 0.25},
    )


SERVED = {
    "arrival_s": 1.0,
    "queued_s": 1.5,
    "prefill_start_s": 2.0,
    "prefill_end_s": 3.0,
    "transfer_start_s": 3.25,
    "landed_s": 4.0,
    "decode_start_s": 4.125,
    "first_token_s": 4.25,
    "last_token_s": 5.25,
}
"""A disaggregated request whose every instant is a binary fraction."""


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


@pytest.mark.parametrize("d", engine_deployments())
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
    "stable": None,
    "warnings": None,
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
    assert warned(run, "rejected") == ["1 of 7 requests (14 %) was rejected."]
    assert warned(run, "preemption")[0].startswith("1 of 7 requests (14 %) lost its KV cache")
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


# --- stability ----------------------------------------------------------------------------------


def mm1_path(rho, n, rng):
    arrival, service = np.cumsum(rng.exponential(1 / rho, n)), rng.exponential(1.0, n)
    x = np.concatenate([[0.0], np.cumsum(service[:-1] - np.diff(arrival))])
    return arrival, arrival + x - np.minimum.accumulate(x) + service


def grows(rho, n, paths, seed):
    rng = np.random.default_rng(seed)
    return np.mean([backlog_trend(*mm1_path(rho, n, rng), 2.3).grows for _ in range(paths)])


def test_a_stable_queue_is_hardly_ever_called_unstable():
    assert grows(0.8, 20_000, 200, seed=1) <= 0.005
    assert grows(0.95, 5_000, 200, seed=2) <= 0.01


def test_an_overloaded_queue_is_found():
    assert grows(1.1, 20_000, 60, seed=3) >= 0.95


def test_too_little_evidence_gives_no_trend():
    rng = np.random.default_rng(4)
    assert backlog_trend(*mm1_path(0.8, 200, rng), 2.3) is None  # too few arrivals
    assert backlog_trend(*mm1_path(0.8, 5000, rng), 2000.0) is None  # still filling
    assert backlog_trend(np.zeros(0), np.zeros(0), 1.0) is None


def test_long_run_variance_sees_autocorrelation():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=20_000)
    smooth = np.convolve(noise, np.ones(5), "valid")
    assert long_run_variance(noise, 10) == pytest.approx(1.0, rel=0.1)
    assert long_run_variance(smooth, 60) == pytest.approx(25.0, rel=0.2)
    assert long_run_variance(smooth, 0) == pytest.approx(5.0, rel=0.1)


def queue_run(arrival, wait_s, service_s=0.1, stationary=True):
    start = arrival + wait_s
    rows = [
        {
            "arrival_s": a,
            "prefill_start_s": s,
            "prefill_end_s": s + service_s,
            "first_token_s": s + service_s,
            "last_token_s": s + service_s,
            "output_tokens": 1,
        }
        for a, s in zip(arrival.tolist(), start.tolist(), strict=True)
    ]
    run = by_hand(rows, disaggregated(first_token="prefill"))
    return replace(run, workload=replace(run.workload, stationary=stationary))


def test_a_backlog_that_grows_at_a_fine_load_is_unstable():
    arrival = np.arange(2000) * 0.5
    run = queue_run(arrival, wait_s=0.2 * arrival)
    bounds = analyze(run.deployment, run.workload)
    assert bounds.load < 0.5
    found = stability(run, bounds)
    assert not found.stable
    assert found.backlog.slope_per_s == pytest.approx(2 - 2 / 1.2, rel=0.05)
    assert "backlog grows" in found.reason
    assert summarize(run).warnings[0] == found.reason


def test_a_trace_is_judged_by_whether_its_backlog_clears():
    arrival = np.arange(2000) * 0.5
    passing = np.where((arrival > 300) & (arrival < 400), 80.0, 0.0)
    run = queue_run(arrival, passing, stationary=False)
    found = stability(run, analyze(run.deployment, run.workload))
    assert found.stable
    assert found.drain_s == 0.0
    run = queue_run(arrival, 0.2 * arrival, stationary=False)
    found = stability(run, analyze(run.deployment, run.workload))
    assert not found.stable
    assert found.drain_s == pytest.approx(0.2 * arrival[-1])
    assert "does not clear" in found.reason


def test_overloaded_windows_of_a_stable_trace_are_a_warning():
    calm, busy = np.arange(0, 600, 2.0), np.arange(300, 328, 0.008)
    workload = requests(np.sort(np.concatenate([calm, busy])), 300, 40)
    run = simulate_deployment(
        disaggregated(decode={"instances": 2}), replace(workload, stationary=False)
    )
    summary = summarize(run)
    assert summary.stable
    assert any("5 % of the 29.9 s windows are overloaded" in w for w in summary.warnings)


def test_a_closed_loop_is_stable_and_has_no_load():
    run = simulate_deployment(disaggregated(), requests([0.0] * 40, 200, 20, concurrency=8))
    summary = summarize(run, SLO(ttft_s=10.0))
    assert summary.stable
    assert {use.load for use in summary.pools.values()} == {None}
    assert summary.goodput_rps == pytest.approx(40 / makespan_s(run))


def test_a_run_too_short_to_tell_says_so():
    summary = summarize(simulate_deployment(disaggregated(), requests([0.0, 1.0, 2.0], 50, 5)))
    assert summary.stable
    assert not summary.stability.conclusive
    assert any("too short to see" in w for w in summary.warnings)


# --- timelines ----------------------------------------------------------------------------------

spans = st.lists(st.tuples(st.floats(0, 90), st.floats(0, 40)), min_size=1, max_size=30)


@given(spans, st.integers(1, 12))
@settings(max_examples=60)
def test_mean_number_is_the_overlap_of_every_interval_with_every_bin(rows, bins):
    start, length = np.array(rows).T
    end = start + length
    edges = np.linspace(10.0, 100.0, bins + 1)
    expected = [
        sum(max(0.0, min(e, b) - max(s, a)) for s, e in zip(start, end, strict=True)) / (b - a)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    assert mean_number(start, end, edges) == pytest.approx(expected, abs=1e-9)


def test_mean_number_ignores_what_never_began_and_keeps_what_never_ended():
    found = mean_number(
        np.array([0.0, np.nan, 1.0]), np.array([np.inf, 2.0, np.nan]), np.array([0.0, 1.0, 2.0])
    )
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("d", [disaggregated(), colocated()])
def test_timelines_keep_every_integral(d):
    rng = np.random.default_rng(6)
    workload = requests(
        np.cumsum(rng.exponential(0.05, 300)), rng.integers(50, 500, 300), rng.integers(2, 50, 300)
    )
    run = simulate_deployment(d, workload)
    line = request_timeline(run, bins=37)
    width = makespan_s(run) / 37
    sides = little(run.requests["arrival_s"], run.requests["last_token_s"])
    assert sides.area == pytest.approx(sides.sojourns)
    assert line["in_system"].sum() * width == pytest.approx(sides.area)
    parts = ["queued_prefill", "prefilling", "kv_wait", "transferring", "queued_decode", "running"]
    phases = line[parts].sum(axis=1).to_numpy()
    assert phases == pytest.approx(line["in_system"].to_numpy(), abs=1e-9)
    sent = line["link_bytes_per_s"].sum() * width
    moved = run.requests["prompt_tokens"].sum() * d.kv_wire_bytes_per_token
    assert sent == pytest.approx(moved if d.link else 0.0)
    pools = pool_timeline(run)
    for name, rows in pools.groupby("pool"):
        assert rows["busy"].between(0.0, 1.0 + 1e-9).all()
        busy_s = run.instances.loc[run.instances["pool"] == name, "busy_s"].sum()
        bins = len(rows)
        widths = np.full(bins, run.timeline.width_s)
        widths[-1] = run.end_s - (bins - 1) * run.timeline.width_s
        instances = (run.instances["pool"] == name).sum()
        assert (rows["busy"].to_numpy() * widths).sum() * instances == pytest.approx(busy_s)


# --- intervals ----------------------------------------------------------------------------------


def test_replication_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(7)
    found = [replication_interval(rng.normal(5.0, 2.0, 6), level=0.9) for _ in range(2000)]
    assert np.mean([i.lo <= 5.0 <= i.hi for i in found]) == pytest.approx(0.9, abs=0.02)
    with pytest.raises(ValueError, match="at least 2"):
        replication_interval([1.0])


def test_block_bootstrap_widens_with_dependence():
    rng = np.random.default_rng(8)
    noise = rng.normal(size=2000)
    smooth = np.convolve(rng.normal(size=2019), np.ones(20) / 20**0.5, "valid")
    free = block_bootstrap(noise, np.mean, rng=rng, resamples=300)
    tied = block_bootstrap(smooth, np.mean, rng=rng, block=100, resamples=300)
    blind = block_bootstrap(smooth, np.mean, rng=rng, block=1, resamples=300)
    assert free.lo < noise.mean() < free.hi
    assert tied.hi - tied.lo > 2.0 * (blind.hi - blind.lo)
    assert "blocks of 45 requests" in free.rule
    with pytest.raises(ValueError, match="at least 2"):
        block_bootstrap(np.ones(1), np.mean, rng=rng)
