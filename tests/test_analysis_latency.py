"""Best cases and closed-loop estimates against the engine."""

import numpy as np
import pytest

from simulator.analysis import analyze
from simulator.analysis.client import crowding, overshoot_s
from simulator.engine import simulate_deployment
from simulator.metrics import completed, tpot, ttft
from tests.analysis_kit import disaggregated, work
from tests.engine_kit import deployment, link, pool, requests


@pytest.mark.parametrize("first_token", ["prefill", "handoff", "decode"])
@pytest.mark.parametrize(
    ("transfer", "reserve"),
    [
        ("after_prefill", "after_prefill"),
        ("after_prefill", "before_prefill"),
        ("layerwise", "before_prefill"),
    ],
)
@pytest.mark.parametrize("nic", [2e4, 1e7])
def test_best_ttft_is_that_of_a_lone_request(first_token, transfer, reserve, nic):
    d = disaggregated(
        first_token=first_token,
        transfer=transfer,
        reserve=reserve,
        link=link(nic_bytes_per_s=nic, message_s=1e-5, coalesced=False),
        prefill={"max_wait_s": 0.01},
        router_latency_s=0.002,
    )
    workload = work([700], 2)
    run = simulate_deployment(d, workload)
    assert analyze(d, workload).best.ttft_mean_prompt_s == pytest.approx(ttft(run)[0], rel=1e-9)


@pytest.mark.parametrize("prompt", [100, 300, 1000])
def test_best_latency_of_a_colocated_instance_with_chunks(prompt):
    d = deployment(pool("colocated", max_num_batched_tokens=300), router_latency_s=0.002)
    workload = work([prompt], 2)
    run = simulate_deployment(d, workload)
    best = analyze(d, workload).best
    assert best.ttft_mean_prompt_s == best.ttft_p50_prompt_s
    assert best.ttft_mean_prompt_s == pytest.approx(ttft(run)[0], rel=1e-9)
    assert best.tpot_s == pytest.approx(tpot(run)[0], rel=1e-9)


@pytest.mark.parametrize("router_latency_s", [0.0, 0.02])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_closed_loop_estimate_agrees_with_the_simulation(concurrency, router_latency_s):
    rng = np.random.default_rng(3)
    n = 400
    workload = requests(
        np.zeros(n), rng.integers(400, 501, n), rng.integers(400, 501, n), concurrency
    )
    d = deployment(pool("colocated", instances=1), router_latency_s=router_latency_s)
    estimate = analyze(d, workload).client
    run = simulate_deployment(d, workload)
    assert completed(run).all()
    assert estimate.ttft_s == pytest.approx(ttft(run).mean(), rel=0.05)
    assert estimate.tpot_s == pytest.approx(tpot(run).mean(), rel=0.02)
    assert estimate.rate_rps == pytest.approx(n / run.end_s, rel=0.05)


def test_a_lone_client_does_not_meet_its_own_prefill():
    workload = requests(np.zeros(60), 1800, 20, 1)
    d = deployment(pool("colocated"), router_latency_s=0.03)
    estimate, run = analyze(d, workload).client, simulate_deployment(d, workload)
    assert estimate.ttft_s == pytest.approx(ttft(run).mean(), rel=1e-4)
    assert estimate.tpot_s == pytest.approx(tpot(run).mean(), rel=1e-6)
    assert estimate.rate_rps == pytest.approx(60 / run.end_s, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_overshoot_is_that_of_a_renewal_process(share):
    rng = np.random.default_rng(9)
    steps = np.where(rng.random((4000, 60)) < share, 0.03, 0.008)
    ends = np.cumsum(steps, axis=1)
    after = ends[np.arange(4000), (ends >= 0.05).argmax(axis=1)] - 0.05
    assert overshoot_s(0.05, 0.03, 0.008, share) == pytest.approx(after.mean(), abs=3e-4)
    assert overshoot_s(0.0, 0.03, 0.008, share) == 0.0


def test_requests_that_began_together_come_back_together() -> None:
    """Density of the others around one that returns, against phases drawn at random."""
    rng = np.random.default_rng(5)
    factors = []
    for k in range(1, 10):
        phases = (rng.normal(0.0, 0.06 * k**0.5, 4000) + rng.uniform(0.0, 0.2, 4000)) % 1.0
        counts, _ = np.histogram(phases, 50, (0.0, 1.0))
        factors.append(float(np.mean((counts / 80.0) ** 2)))
    assert crowding(0.06, 9.0, 0.2) == pytest.approx(float(np.mean(factors)), rel=0.05)
    assert crowding(10.0, 9.0, 0.2) == pytest.approx(1.0)
