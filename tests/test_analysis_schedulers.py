"""Closed form under each order of service: hand-worked capacities, and clients against the engine."""

from dataclasses import replace

import numpy as np
import pytest

from simulator.analysis import analyze
from simulator.analysis.capacity import decode_capacity
from simulator.analysis.colocated import colocated_capacity, colocated_steps
from simulator.analysis.demand import Demand
from simulator.analysis.steps import StepTimes
from simulator.engine import simulate_deployment
from simulator.metrics import tpot, ttft
from tests.analysis_kit import disaggregated, work
from tests.engine_kit import deployment, pool, requests


def test_trtllm_keeps_room_for_prompt_and_output():
    """Six requests of ceil(450/16) = 29 blocks; as tokens appear 25 to 29, half of them by the middle."""
    demand = Demand.of(deployment(pool("colocated")), work([400] * 4, 50))
    steps = 49

    def blocks(**kw):
        plan = pool("colocated", capacity_blocks=174, **kw)
        return colocated_capacity(plan, StepTimes(plan.table), demand, None)

    kept = blocks(scheduler="trtllm")
    assert kept.limit == "KV capacity"
    # one in 49 of the running is under prefill besides, and holds the same
    assert kept.batch * (1 + 1 / steps) * 29 == pytest.approx(174)
    grown = blocks(scheduler="trtllm", reserve_output=False)
    assert grown.batch == blocks().batch > kept.batch
    split = disaggregated(decode={"scheduler": "trtllm", "capacity_blocks": 174})
    plan = split.pools[1]
    sent = Demand.of(split, work([400] * 4, 50))
    assert decode_capacity(plan, StepTimes(plan.table), sent, 0.0, None).batch == 6.0


def test_whole_prompts_fill_a_step_no_better_than_they_pack():
    demand = Demand.of(deployment(pool("colocated")), work([600] * 4, 3))
    plan = pool("colocated", max_num_batched_tokens=1000, scheduler="trtllm")
    found = colocated_capacity(plan, StepTimes(plan.table), demand, None)
    assert found.limit == "token budget"
    assert found.batch / 2 == pytest.approx(1)  # one prompt a step, two decode steps each
    chunks = replace(plan, chunked=True)
    assert colocated_capacity(chunks, StepTimes(plan.table), demand, None).batch > found.batch
    once = Demand.of(deployment(plan), work([600] * 4, 1))
    lone_s = plan.table.mixed_s(0, [0], [(0, 600)], 1)
    rate = colocated_capacity(plan, StepTimes(plan.table), once, None).rate_rps
    assert rate == pytest.approx(1 / lone_s)


def test_colocated_steps_are_of_two_kinds():
    plan = pool("colocated", max_num_batched_tokens=1000)
    times = StepTimes(plan.table)
    demand = Demand.of(deployment(plan), work([450] * 4, 21))
    found = colocated_steps(plan, times, demand, np.array([10.0, 30.0]))
    # 10 of 20 steps end one request: few admissions, so whole prompts come alone or in pairs
    assert found.share[0] == pytest.approx(1 - np.exp(-0.5))
    assert found.share[1] == pytest.approx(1 - np.exp(-1.5))
    one = times.table.mixed_s(10, 10 * 460, [(0, 450)], 11)
    two = times.table.mixed_s(10, 10 * 460, [(0, 450)] * 2, 12)
    assert one < found.mixed_s[0] < two
    assert found.plain_s[0] == pytest.approx(times.table.decode_s(10, 10 * 460.5), rel=1e-3)
    full = colocated_steps(plan, times, demand, np.array([42.0]))
    assert full.share[0] == pytest.approx(2.1 * 450 / (1000 - 42))  # chunks fill the budget


def test_prefill_first_alternates_prompts_and_decodes():
    """A request costs its share of a prefill and of its decode steps, which do not overlap."""
    plan = pool("colocated", max_num_seqs=10, scheduler="sglang")
    times = StepTimes(plan.table)
    demand = Demand.of(deployment(plan), work([450] * 4, 21))
    found = colocated_capacity(plan, times, demand, None)
    assert (found.limit, found.batch) == ("batch limit", 10.0)
    share = 1 - np.exp(-10 / 20)
    one, two = (plan.table.mixed_s(0, [0], [(0, 450)] * k, k) for k in (1, 2))
    prompts = 0.5 / share
    stop_s = one + (prompts - 1) * (two - one)
    decode_s = plan.table.decode_s(10, 10 * demand.mean_context)
    assert found.step_s == pytest.approx(decode_s + share * stop_s, rel=2e-3)
    assert found.rate_rps == pytest.approx(0.5 / found.step_s)
    mixed = replace(plan, mixed=True)
    assert colocated_capacity(mixed, times, demand, None).rate_rps > found.rate_rps


@pytest.mark.parametrize(
    ("kw", "evicts"),
    [
        ({"max_num_seqs": 16}, False),
        ({"max_num_seqs": 16, "scheduler": "sglang"}, False),
        ({"capacity_blocks": 500, "scheduler": "trtllm"}, False),
        ({"capacity_blocks": 500}, True),
    ],
)
def test_little_gives_the_wait_for_a_slot_unless_sequences_are_evicted(kw, evicts):
    rng = np.random.default_rng(3)
    n = 300
    lengths = rng.integers(320, 401, n), rng.integers(80, 101, n)
    workload = requests(np.zeros(n), *lengths, 32)
    d = deployment(pool("colocated", **kw), router_latency_s=0.02)
    estimate = analyze(d, workload).client
    if evicts:
        assert estimate.ttft_s is estimate.ttft_steady_s is None
        assert estimate.rate_rps > 0
        return
    run = simulate_deployment(d, workload)
    assert estimate.ttft_s == pytest.approx(ttft(run).mean(), rel=0.06)
    assert estimate.tpot_s == pytest.approx(tpot(run).mean(), rel=0.03)
    assert estimate.ttft_burst_s is None
    assert analyze(disaggregated(), workload).client is None


@pytest.mark.parametrize(("overlap", "output"), [(True, 60), (False, 4000)])
@pytest.mark.parametrize("scheduler", ["vllm_v1", "sglang", "trtllm"])
def test_client_estimate_follows_the_order_of_service(scheduler, overlap, output):
    """Short outputs move in waves, long ones mix; prompts longer than what the budget leaves."""
    rng = np.random.default_rng(4)
    n, c = 120, 12
    lengths = rng.integers(400, 501, n), rng.integers(round(0.8 * output), output + 1, n)
    workload = requests(np.zeros(n), *lengths, c)
    one = pool("colocated", scheduler=scheduler, overlap=overlap, max_num_batched_tokens=1200)
    d = deployment(one, router_latency_s=0.05)
    estimate, run = analyze(d, workload).client, simulate_deployment(d, workload)
    rel = 1e-4 if output == 60 else 0.05
    assert estimate.ttft_s == pytest.approx(ttft(run).mean(), rel=rel)
    assert estimate.tpot_s == pytest.approx(tpot(run).mean(), rel=min(rel, 0.02))
