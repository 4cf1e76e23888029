"""Closed-form bounds against hand-made numbers, brute force, and the engine itself."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.analysis import analyze
from simulator.analysis.capacity import decode_capacity, pack_prompts, prefill_capacity
from simulator.analysis.colocated import colocated_capacity
from simulator.analysis.demand import Demand, cumulative_blocks
from simulator.analysis.steps import StepTimes
from simulator.engine import simulate_deployment
from simulator.scenario import SLO, Scenario
from tests.analysis_kit import disaggregated, varied, work
from tests.engine_kit import deployment, link, pool, requests, table

lengths = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 60)), min_size=1, max_size=25)


# --- demand -------------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(1, 64))
def test_cumulative_blocks_is_the_sum_it_claims(tokens, block):
    one_by_one = sum(-(-length // block) for length in range(1, tokens + 1))
    assert cumulative_blocks(np.array([tokens]), block)[0] == one_by_one


@pytest.mark.parametrize("first_token", ["prefill", "handoff", "decode"])
@settings(max_examples=30)
@given(rows=lengths)
def test_demand_is_what_a_walk_over_all_steps_finds(first_token, rows):
    prompts, outputs = map(list, zip(*rows, strict=True))
    d = disaggregated(first_token=first_token)
    demand = Demand.of(d, work(prompts, outputs))
    contexts = []
    for p, o in rows:
        emitted = 0 if first_token == "decode" else 1
        contexts += [p + e for e in range(emitted, o)]
    assert demand.steps.sum() == len(contexts)
    if contexts:
        assert demand.mean_context == pytest.approx(np.mean(contexts))
        blocks = [-(-c // 16) for c in contexts]
        assert demand.mean_running_blocks(16) == pytest.approx(np.mean(blocks))
    else:
        assert math.isnan(demand.mean_context)
    moved = [p for p, o in rows if first_token != "prefill" or o > 1]
    assert demand.mean_sent_tokens() == pytest.approx(sum(moved) / len(rows))


@settings(max_examples=50)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), st.integers(1, 5))
def test_prompts_are_packed_as_a_prefill_instance_would(prompts, max_seqs):
    starts = []
    batch, tokens = 0, 0
    for i, p in enumerate(prompts):
        if not batch or batch == max_seqs or tokens + p > 512:
            starts.append(i)
            batch, tokens = 0, 0
        batch += 1
        tokens += p
    assert pack_prompts(np.array(prompts), 512, max_seqs).tolist() == starts


# --- capacities ---------------------------------------------------------------------------------


def test_prefill_capacity_by_hand():
    plan = pool("prefill", max_num_batched_tokens=1024)
    demand = Demand.of(disaggregated(), work([512] * 8, 10))
    found = prefill_capacity(plan, StepTimes(plan.table), demand, 0.0)
    batch_s = plan.table.mixed_s(0, 0, [(0, 512), (0, 512)], 2)
    assert found.rate_rps == pytest.approx(2 / batch_s)
    assert (found.limit, found.batch) == ("compute", 2.0)


def test_prefill_capacity_is_bounded_by_the_kv_cache_a_slow_link_keeps_full():
    plan = pool("prefill", max_num_batched_tokens=1024, capacity_blocks=64)
    demand = Demand.of(disaggregated(), work([512] * 8, 10))
    found = prefill_capacity(plan, StepTimes(plan.table), demand, transfer_s=2.0)
    batch_s = plan.table.mixed_s(0, 0, [(0, 512), (0, 512)], 2)
    assert found.limit == "KV capacity"
    assert found.rate_rps == pytest.approx(64 / (32 * (batch_s + 2.0)))


def test_decode_capacity_by_hand():
    plan = pool("decode", max_num_seqs=16)
    demand = Demand.of(disaggregated(), work([400] * 4, 51))
    found = decode_capacity(plan, StepTimes(plan.table), demand, 0.0, None)
    step_s = plan.table.decode_s(16, 16 * 425)  # contexts 400 to 450
    assert found.limit == "batch limit"
    assert found.step_s == pytest.approx(step_s)
    assert found.rate_rps == pytest.approx(16 / (51 * step_s))


def test_decode_capacity_counts_blocks_of_running_sequences_and_of_promises():
    plan = pool("decode", max_num_seqs=64, capacity_blocks=280)
    demand = Demand.of(disaggregated(), work([400] * 4, 16))  # contexts 400 (25 blocks) to 415 (26)
    alone = decode_capacity(plan, StepTimes(plan.table), demand, 0.0, None)
    blocks = (25 + 15 * 26) / 16
    assert alone.limit == "KV capacity"
    assert alone.batch == pytest.approx(280 / blocks)
    held = decode_capacity(plan, StepTimes(plan.table), demand, 0.1, None)
    assert held.batch * blocks + 0.1 * held.rate_rps * 25 == pytest.approx(280, rel=1e-3)


@settings(max_examples=30)
@given(st.floats(0.011, 0.08))
def test_tpot_batch_is_the_largest_that_is_fast_enough(target_s):
    plan = pool("decode", max_num_seqs=48)
    demand = Demand.of(disaggregated(), work([600] * 3, 40))
    found = decode_capacity(plan, StepTimes(plan.table), demand, 0.0, target_s)
    context = demand.mean_context
    good = [b for b in range(1, 49) if plan.table.decode_s(b, b * context) <= target_s]
    assert found.tpot_batch == len(good)
    if good:
        step_s = plan.table.decode_s(len(good), len(good) * context)
        assert found.tpot_rate_rps == pytest.approx(len(good) / (40 * step_s))
    else:
        assert found.tpot_rate_rps == 0.0


def test_colocated_capacity_names_what_binds():
    demand = Demand.of(deployment(pool("colocated")), work([400] * 4, 51))

    def limit(**kw):
        plan = pool("colocated", **kw)
        return colocated_capacity(plan, StepTimes(plan.table), demand, None)

    assert limit(max_num_seqs=16).limit == "batch limit"
    assert limit(max_num_seqs=64, capacity_blocks=500).limit == "KV capacity"
    tight = limit(max_num_seqs=64, max_num_batched_tokens=90)
    assert tight.limit == "token budget"
    assert tight.batch * (1 + 400 / 50) == pytest.approx(90)


def test_prompts_under_prefill_hold_blocks_too():
    plan = pool("colocated", capacity_blocks=300, max_num_batched_tokens=120)
    demand = Demand.of(deployment(plan), work([400] * 4, 200))
    found = colocated_capacity(plan, StepTimes(plan.table), demand, None)
    b = found.batch
    chunks = 400 / (120 - b)
    blocks = b * demand.mean_running_blocks(16) + b / 199 * 25 * (chunks + 1) / 2
    assert found.limit == "KV capacity"
    assert blocks == pytest.approx(300, rel=1e-3)


def test_requests_without_decode_steps_make_no_decode_load():
    d = disaggregated(first_token="handoff")
    bounds = analyze(d, work([100] * 10, 1))
    assert bounds.pool("decode").load == 0.0
    assert bounds.best.tpot_s is None
    json.dumps(bounds.to_dict(), allow_nan=False)
    alone = analyze(deployment(pool("colocated")), work([100] * 10, 1))
    step_s = pool("colocated").table.mixed_s(0, 0, [(0, 100)] * 20 + [(0, 48)], 21)
    assert alone.rate_max_rps == pytest.approx(20.48 / step_s, rel=0.01)


def saturated_rps(d, workload):
    """Completions per second while a backlog is served, away from both ends."""
    run = simulate_deployment(d, workload)
    last = np.sort(run.requests["last_token_s"].to_numpy())
    a, b = np.searchsorted(last, [0.3 * last[-1], 0.85 * last[-1]])
    return (b - a) / (last[b] - last[a])


@pytest.mark.parametrize(
    ("d", "limit"),
    [
        (disaggregated(decodes=8), "compute"),
        (
            disaggregated(
                prefills=9, decodes=2, decode={"max_num_seqs": 32, "capacity_blocks": 10**6}
            ),
            "batch limit",
        ),
        (deployment(pool("colocated", max_num_seqs=48)), "batch limit"),
        (deployment(pool("colocated", max_num_batched_tokens=256)), "token budget"),
        (disaggregated(decodes=8, fast_link=False, first_token="prefill"), "egress"),
    ],
)
def test_rates_are_what_a_saturated_engine_does(d, limit):
    workload = varied(2000, 1000.0)
    if limit == "egress":
        workload = workload.head(300)
    bounds = analyze(d, workload)
    assert bounds.bottleneck.limit == limit
    assert not bounds.stable
    if limit == "egress":  # shared links serve everybody at once: count bytes, not completions
        run = simulate_deployment(d, workload)
        bytes_sent = run.requests["prompt_tokens"].sum() * d.kv_wire_bytes_per_token
        busy_s = run.requests["landed_s"].max() - run.requests["transfer_start_s"].min()
        assert bytes_sent / busy_s == pytest.approx(1e5, rel=0.02)
        assert bounds.rate_max_rps == pytest.approx(300 / (bytes_sent / 1e5), rel=1e-9)
    else:
        assert bounds.rate_max_rps == pytest.approx(saturated_rps(d, workload), rel=0.03)


# --- loads, shares, links -----------------------------------------------------------------------


def test_load_is_rate_over_capacity_and_says_how_many_instances_it_takes():
    d = disaggregated(prefills=2, decodes=4)
    top = analyze(d, varied(500, 1.0)).pool("decode").rate_max_rps
    workload = varied(500, 1.0)
    fast = replace(workload, arrival_s=workload.arrival_s * workload.rate_rps / (1.34 * top))
    bounds = analyze(d, fast)
    decode = bounds.pool("decode")
    assert decode.load == pytest.approx(1.34)
    assert decode.instances_stable == 6
    assert decode.instances_target == math.ceil(4 * 1.34 / 0.8)
    assert not bounds.stable
    assert "decode is overloaded: load 1.34" in bounds.verdict
    assert "6 instances would bring it to 0.89" in bounds.verdict
    assert analyze(disaggregated(2, 6), fast).pool("decode").load == pytest.approx(1.34 * 4 / 6)


def test_what_is_needed_is_enough_and_one_less_is_not():
    workload = varied(2000, 60.0)
    slo = SLO(tpot_s=0.02)
    bounds = analyze(disaggregated(), workload, slo=slo)
    needed = bounds.instances_needed
    enough = analyze(disaggregated(needed["prefill"], needed["decode"]), workload, slo=slo)
    assert max(enough.load, enough.tpot_bottleneck.load) <= 0.8
    less = analyze(disaggregated(needed["prefill"], needed["decode"] - 1), workload, slo=slo)
    assert max(less.load, less.tpot_bottleneck.load) > 0.8


def test_a_tpot_target_out_of_reach_is_said():
    bounds = analyze(disaggregated(), varied(500, 1.0), slo=SLO(tpot_s=0.001))
    assert bounds.stable
    assert bounds.tpot_rate_max_rps == 0.0
    assert bounds.pool("decode").tpot_load == math.inf
    assert bounds.pool("decode").instances_target is None
    assert "cannot hold the TPOT target of 1 ms" in bounds.verdict
    assert bounds.to_dict()["pools"]["decode"]["tpot_load"] is None


def test_a_load_near_one_is_too_close_to_call():
    d = disaggregated(decodes=4)
    workload = varied(500, 1.0)
    top = analyze(d, workload).rate_max_rps
    for load in (0.97, 1.0, 1.03):
        scaled = replace(workload, arrival_s=workload.arrival_s * workload.rate_rps / (load * top))
        bounds = analyze(d, scaled)
        assert bounds.margin > 0.03  # few requests
        assert bounds.too_close_to_call
        assert bounds.verdict.startswith("Too close to call")


def test_a_tpot_target_pays_for_the_transfer_between_tokens_one_and_two():
    workload = varied(300, 1.0)
    slow = link(nic_bytes_per_s=1e4)  # 0.4 s a prompt, over about 59 gaps
    target = SLO(tpot_s=0.03)

    def batch(first_token):
        d = disaggregated(link=slow, first_token=first_token)
        return analyze(d, workload, slo=target).pool("decode").tpot_batch

    demand = Demand.of(disaggregated(first_token="prefill"), workload)
    gap_s = round(demand.mean_prompt) * 10 / 1e4 + 1e-3
    less = SLO(tpot_s=0.03 - gap_s / demand.mean_steps)
    alike = analyze(disaggregated(link=slow, first_token="handoff"), workload, slo=less)
    assert batch("prefill") == alike.pool("decode").tpot_batch < batch("handoff")


def test_blocks_promised_before_prefill_are_held_longer():
    slow = {"table": table(per_token=1e-3)}

    def decode(reserve):
        d = disaggregated(reserve=reserve, prefill=slow, decode={"capacity_blocks": 500})
        return analyze(d, varied(300, 1.0)).pool("decode")

    before, after = decode("before_prefill"), decode("after_prefill")
    assert before.limit == after.limit == "KV capacity"
    assert before.rate_max_rps < after.rate_max_rps


def test_instances_needed_count_their_nics():
    d = disaggregated(fast_link=False, prefills=2)
    bounds = analyze(d, varied(500, 60.0))
    egress = next(b.load for b in bounds.links if b.side == "egress")
    prefill = bounds.pool("prefill")
    assert egress > 1.0 > prefill.load
    assert prefill.instances_stable == math.ceil(2 * egress)


def test_preemption_may_take_the_last_of_a_kv_limited_pool():
    def at(load, **decode):
        d = disaggregated(decodes=2, decode=decode)
        workload = varied(3000, 1.0)
        top = analyze(d, workload).pool("decode").rate_max_rps
        scaled = replace(workload, arrival_s=workload.arrival_s * workload.rate_rps / (load * top))
        return analyze(disaggregated(9, 2, decode=decode), scaled)

    assert at(0.9, capacity_blocks=500).too_close_to_call
    assert not at(0.8, capacity_blocks=500).too_close_to_call
    assert not at(0.9).too_close_to_call


@pytest.mark.parametrize("coalesced", [True, False])
def test_link_loads_by_hand(coalesced):
    fabric = link(nic_bytes_per_s=1e5, message_s=1e-4, coalesced=coalesced, spine_bytes_per_s=2.5e5)
    d = disaggregated(
        prefills=2,
        decodes=3,
        link=fabric,
        prefill={"tp": 2, "nics": 2},
        decode={"tp": 4, "nics": 4},
    )
    bounds = analyze(d, work([160] * 11, 5, rate_rps=10.0))
    messages = 4 if coalesced else 4 * 4 * 2 * 10  # rank pairs × layers × K,V × blocks
    nic_s = 160 * 10.0 / 1e5 + messages * 1e-4
    loads = {(b.side, b.pool): b.load for b in bounds.links}
    assert loads["egress", "prefill"] == pytest.approx(10 * nic_s / 4)
    assert loads["ingress", "decode"] == pytest.approx(10 * nic_s / 12)
    assert loads["spine", None] == pytest.approx(10 * nic_s * 1e5 / 2.5e5)


def test_shares_follow_instances_or_capacity():
    slow, fast = table(), table(a0=0.005, a1=0.0001, per_kv=5e-7, per_token=1e-5)
    pools = (
        pool("prefill", instances=4),
        replace(pool("decode", table=slow), name="slow"),
        replace(pool("decode", table=fast, instances=3), name="fast"),
    )
    even = analyze(deployment(*pools, decode_router="round_robin"), varied(300, 1.0))
    assert [p.share for p in even.pools[1:]] == [0.25, 0.75]
    balanced = analyze(
        deployment(*pools, decode_router="least_outstanding_tokens"), varied(300, 1.0)
    )
    assert sum(p.share for p in balanced.pools[1:]) == pytest.approx(1.0)
    assert balanced.pool("slow").load == pytest.approx(balanced.pool("fast").load)


def test_requests_that_never_fit_are_left_out():
    d = disaggregated(decode={"capacity_blocks": 20})
    short, mixed = work([100] * 6, 10), work([100, 900] * 3, 10)
    assert analyze(d, mixed).rate_rps == pytest.approx(0.5 * analyze(d, short).rate_rps)
    assert analyze(d, mixed).best == analyze(d, short).best
    assert analyze(d, work([900] * 6, 10)).pool("decode").limit == "KV capacity"


def test_a_rate_that_is_not_given_leaves_loads_open():
    closed = requests([0.0] * 50, 300, 40, concurrency=8)
    for workload in (closed, work([300] * 5, 40).head(1)):
        bounds = analyze(disaggregated(), workload)
        assert bounds.load is None
        assert bounds.stable
        assert bounds.rate_max_rps > 0
        assert bounds.instances_needed == {"prefill": None, "decode": None}
        assert "No arrival rate" in bounds.verdict
        json.dumps(bounds.to_dict(), allow_nan=False)


def test_peak_load_by_windows():
    calm, busy = np.arange(0, 600, 2.0), np.arange(300, 328, 0.008)
    arrival = np.sort(np.concatenate([calm, busy]))
    workload = replace(requests(arrival, 300, 40), stationary=False)
    bounds = analyze(disaggregated(decodes=2), workload)
    peak = bounds.peak
    assert peak.window_s == pytest.approx(598 / 20)
    assert peak.windows == 20
    assert peak.start_s == pytest.approx(10 * 598 / 20)
    assert peak.load > 1.0 > bounds.load
    assert peak.overloaded_share == pytest.approx(1 / 20)
    assert analyze(disaggregated(), replace(workload, stationary=True)).peak is None
    given = analyze(disaggregated(decodes=2), workload, window_s=100.0).peak
    assert (given.window_s, given.windows) == (100.0, 6)


def test_steady_traffic_has_the_same_load_in_every_window():
    workload = replace(work([300] * 4000, 40, rate_rps=20.0), stationary=False)
    bounds = analyze(disaggregated(), workload)
    assert bounds.peak.load == pytest.approx(bounds.load, rel=0.03)


# --- the interface ------------------------------------------------------------------------------


def test_a_scenario_brings_its_own_requests_and_targets():
    scenario = Scenario.load("quick_8b")
    bounds = analyze(scenario)
    same = analyze(scenario.deployment(), scenario.requests(), slo=scenario.slo)
    assert bounds == same
    assert bounds.stable
    assert bounds.tpot_rate_max_rps is not None
    text = json.dumps(bounds.to_dict(), allow_nan=False)
    assert set(json.loads(text)["pools"]) == {"prefill", "decode"}
    with pytest.raises(KeyError):
        bounds.pool("nowhere")


def test_senseless_calls_are_refused():
    with pytest.raises(TypeError, match="needs the requests"):
        analyze(disaggregated())
    with pytest.raises(ValueError, match=r"target_load .* found 1\.5"):
        analyze(disaggregated(), work([10], 2), target_load=1.5)
