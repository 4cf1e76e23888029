"""Stability, timelines and intervals against known queues and brute force."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.analysis import analyze
from simulator.engine import simulate_deployment
from simulator.metrics import (
    backlog_trend,
    block_bootstrap,
    makespan_s,
    mean_number,
    pool_timeline,
    replication_interval,
    request_timeline,
    stability,
    summarize,
)
from simulator.metrics.stability import long_run_variance
from simulator.scenario import SLO
from simulator.theory import little
from tests.engine_kit import requests
from tests.metrics_kit import by_hand, colocated, disaggregated

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
        for a, b in pairwise(edges)
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
