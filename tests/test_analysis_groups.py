"""Closed form with attention groups, lock-step ranks and pipelines; plans of mixtures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles import load_gpu
from simulator.analysis import analyze
from simulator.analysis.capacity import decode_capacity, prefill_capacity
from simulator.analysis.demand import Demand
from simulator.analysis.steps import StepTimes
from simulator.analysis.windows import (
    cumulative_blocks,
    cumulative_reads,
    prompt_pairs,
    read_back,
    units_for,
)
from simulator.model import Parallel, load_model
from simulator.perf.precision import Precision
from simulator.perf.step import StepModel
from simulator.perf.table import AttentionGroupPlan
from simulator.planner.inventory import Inventory
from simulator.planner.space import Space, families
from simulator.scenario import Scenario
from tests.engine_kit import deployment, pool, requests

PLANS = [
    AttentionGroupPlan((), 0.0, 0.0, 0.0, 0.0),
    AttentionGroupPlan((), 0.0, 0.0, 0.0, 0.0, window=37, units=2),
    AttentionGroupPlan((), 0.0, 0.0, 0.0, 0.0, local_chunk=50, units=3),
]


@given(plan=st.sampled_from(PLANS), tokens=st.integers(0, 300), block=st.integers(1, 20))
def test_sums_over_contexts_are_those_of_single_steps(
    plan: AttentionGroupPlan, tokens: int, block: int
) -> None:
    each = range(1, tokens + 1)
    reads = cumulative_reads(plan, np.array([tokens]))
    assert int(reads[0]) == sum(plan.reads(length) for length in each)
    kept = [length if plan.span is None else min(length, plan.span) for length in each]
    blocks = cumulative_blocks(np.array([tokens]), block, plan.span)
    assert int(blocks[0]) == sum(-(-n // block) for n in kept)
    if tokens:
        assert float(prompt_pairs(plan, np.array([tokens]))[0]) == plan.pairs(0, tokens)
        held = units_for((plan,), np.array([tokens]), block)
        assert int(held[0]) == plan.units * -(-kept[-1] // block)
        chunks = [(block, tokens), (0, block)]
        most = max(plan.reads(i) for p, c in chunks for i in range(p + 1, p + c + 1))
        assert plan.longest(chunks) == most


@pytest.mark.parametrize(("plan", "error"), [(PLANS[0], 1e-9), (PLANS[1], 0.02), (PLANS[2], 0.2)])
def test_chunks_read_back_what_their_group_looks_at(plan: AttentionGroupPlan, error: float) -> None:
    chunks, size = 12, 100
    exact = sum(plan.read_back(i * size, size) for i in range(chunks))
    if plan.local_chunk is not None:  # chunks of 100 begin at multiples of 50: nothing before them
        exact += chunks * plan.local_chunk // 2  # elsewhere half a chunk on average
    assert float(read_back(plan, chunks * size, chunks)) == pytest.approx(exact, rel=error)


def demand(n: int = 40) -> Demand:
    prompt, steps = np.full(n, 400), np.full(n, 50)
    return Demand(prompt, steps, prompt + 1, np.ones(n, dtype=bool))


def test_equal_ranks_sustain_their_number_of_times_as_much() -> None:
    model = load_model("deepseek-v3")
    step = StepModel(model, load_gpu("h200"), Parallel(ep=8, attention_dp=8), Precision.of(model))
    table = step.table(32, 2048)
    plan = pool("decode", table=table, max_num_seqs=32, parallel=step.parallel)
    found = decode_capacity(plan, StepTimes(table), demand(), 0.0, None)
    context = demand().mean_context
    step_s = float(step.decode_s(8 * 32, 8 * 32 * context))
    assert found.batch == 8 * 32
    assert found.rate_rps == pytest.approx(8 * 32 / (50 * step_s), rel=1e-6)


def test_no_client_estimate_of_ranks_in_lock_step() -> None:
    model = load_model("deepseek-v3")
    step = StepModel(model, load_gpu("h200"), Parallel(ep=8, attention_dp=8), Precision.of(model))
    plan = pool("colocated", table=step.table(8, 2048), max_num_seqs=8, parallel=step.parallel)
    found = analyze(deployment(plan), requests(np.zeros(200), 400, 100, 16))
    assert found.client is None
    assert found.rate_max_rps > 0.0


def test_a_prefill_pipeline_takes_a_batch_for_every_free_stage() -> None:
    model, gpu = load_model("llama-3.1-70b"), load_gpu("h100")
    step = StepModel(model, gpu, Parallel(tp=4, pp=2))
    table = step.table(8, 4096, rounds=False)
    plan = pool("prefill", table=table, max_num_seqs=8, parallel=step.parallel)
    found = prefill_capacity(plan, StepTimes(table), demand(), 0.0)
    batch_s = table.mixed_s(0, 0, [(0, 400)] * 5, 5)  # five prompts in a budget of 2,048
    assert found.rate_rps == pytest.approx(2 * 5 / batch_s, rel=1e-9)


def test_windowed_decode_is_the_time_of_what_each_group_reads() -> None:
    step = StepModel(load_model("gpt-oss-20b"), load_gpu("h100"))
    table = step.table(16, 2048)
    plan = pool("decode", table=table, max_num_seqs=16, capacity_blocks=10**6)
    found = decode_capacity(plan, StepTimes(table), demand(), 0.0, None)
    full, window = (16 * n for n in demand().mean_reads(table.groups))
    assert window == 16 * 128
    assert found.rate_rps == pytest.approx(
        16 / (50 * float(step.decode_s(16, (full, window)))), rel=1e-9
    )


def test_plans_of_a_mixture_try_spread_experts_and_what_the_pools_do() -> None:
    scenario = Scenario.load("deepseek_r1_h200")
    inventory = Inventory.from_dict(
        {"name": "two_nodes", "gpus": {"h200_sxm": {"count": 16}}}, source="test"
    )
    space = Space(max_num_seqs=(64,), max_num_batched_tokens=(8192,), modes=("colocated",))
    found, notes = families(scenario, inventory, space)
    labels = {layout.shapes[0].label for layout in found}
    assert {"h200_sxm:TP8.EP8", "h200_sxm:TP8", "h200_sxm:DP8.EP8"} <= labels
    assert all(layout.shapes[0].instance_gpus == 8 for layout in found)
    assert any("TP4" in note for note in notes)  # and why smaller ones are out
    layout = next(x for x in found if x.shapes[0].attention_dp == 8)
    assert layout.gpus == 8
    assert layout.shapes[0].times(2).gpus == 16
    again = layout.scenario(scenario).config.pools["colocated"]
    assert again.parallel == Parallel(ep=8, attention_dp=8)


def test_deepseek_fits_a_node_of_h200_and_not_of_h100() -> None:
    model = load_model("deepseek-v3")
    for gpu, fits in (("h200", True), ("h100", False)):
        step = StepModel(model, load_gpu(gpu), Parallel(tp=8), Precision.of(model))
        assert (step.kv_capacity_tokens(0.9, 8192) > 0) == fits
    step = StepModel(model, load_gpu("h200"), Parallel(tp=8), Precision.of(model))
    assert step.kv_bytes_per_token_per_gpu == 61 * 576 * 2
    # 37 B active parameters of 1 byte over eight GPUs: no faster than the data sheet
    least = 37e9 / (8 * 4.8e12)
    assert least < float(step.decode_s(1, 1000)) < 50e-3
    wider = replace(step, parallel=Parallel(tp=8, ep=8))
    assert float(wider.decode_s(1, 1000)) > float(step.decode_s(1, 1000))  # the busiest group
