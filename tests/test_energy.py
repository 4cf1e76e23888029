"""Energy against closed forms: always idle, always bound by memory or compute, and conservation."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprofiles import gpu_names, load_gpu
from simulator import Scenario, simulate, summarize
from simulator.errors import ScenarioError
from simulator.metrics import draw_w, energy
from simulator.metrics.usage import PoolUse
from tests.metrics_kit import SERVED, by_hand, colocated, disaggregated

H100 = load_gpu("h100_sxm")
GEMM = dict(H100.family().gemm)["bf16"]
SPAN_S = 4.25  # SERVED arrives at 1.0 and ends at 5.25
IDLE_W, MEMORY_W, COMPUTE_W = 115.0, 350.0, 700.0


def use(busy: float, mfu: float, mbu: float) -> PoolUse:
    return PoolUse(1, 1, busy=busy, load=None, mfu=mfu, mbu=mbu, kv_peak=None)


def one_pool(busy: float, mfu: float, mbu: float, **deployment):
    d = dataclasses.replace(colocated(), **deployment)
    return energy(by_hand([SERVED], d), {"colocated": use(busy, mfu, mbu)})


def test_the_numbers_the_oracles_stand_on() -> None:
    assert H100.idle_w is not None
    assert H100.memory_bound_w is not None
    assert H100.compute_bound_w is not None
    found = (H100.idle_w.value, H100.memory_bound_w.value, H100.compute_bound_w.value)
    assert found == (IDLE_W, MEMORY_W, COMPUTE_W)


def test_a_gpu_that_never_works_draws_its_idle_power() -> None:
    found = one_pool(0.0, 0.0, 0.0)
    assert found.total.joules == pytest.approx(IDLE_W * SPAN_S)
    assert found.total.mean_w_per_gpu == pytest.approx(IDLE_W)
    # 11 output tokens
    assert found.total.joules_per_output_token == pytest.approx(IDLE_W * SPAN_S / 11)
    assert found.total.wh_per_m_output_tokens == pytest.approx(IDLE_W * SPAN_S / 11 * 1e6 / 3600)


def test_always_bound_by_compute_or_by_memory() -> None:
    compute = one_pool(1.0, GEMM.compute_eff.value, 0.0)
    assert compute.total.mean_w_per_gpu == pytest.approx(COMPUTE_W)
    memory = one_pool(1.0, 0.0, GEMM.memory_eff.value)
    assert memory.total.mean_w_per_gpu == pytest.approx(MEMORY_W)


def test_busy_half_the_time_is_the_mean_of_idle_and_busy() -> None:
    # MFU and MBU count the whole makespan, so half of them at busy 0.5 is full use while busy.
    found = one_pool(0.5, 0.0, GEMM.memory_eff.value / 2)
    assert found.total.mean_w_per_gpu == pytest.approx((IDLE_W + MEMORY_W) / 2)


def test_busy_with_nothing_to_move_or_compute_is_idle() -> None:
    assert draw_w(H100, "bf16", 0.0, 0.0) == IDLE_W


@given(
    st.sampled_from(gpu_names()), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.2), st.booleans()
)
def test_draw_lies_between_idle_and_the_limit_and_rises_with_work(
    name: str, mfu: float, mbu: float, more: float, memory: bool
) -> None:
    gpu = load_gpu(name)
    assert gpu.idle_w is not None
    assert gpu.compute_bound_w is not None
    before = draw_w(gpu, "bf16", mfu, mbu)
    after = draw_w(gpu, "bf16", mfu + more * (not memory), mbu + more * memory)
    assert before is not None
    assert after is not None
    assert gpu.idle_w.value <= before <= after <= gpu.compute_bound_w.value


def test_fp8_has_its_own_best_share() -> None:
    fp8 = dict(H100.family().gemm)["fp8"].compute_eff.value
    assert draw_w(H100, "fp8", fp8, 0.0) == pytest.approx(COMPUTE_W)
    assert draw_w(H100, "int8", fp8, 0.0) == pytest.approx(COMPUTE_W)


def test_pools_add_up_to_the_total() -> None:
    d = disaggregated(prefill={"tp": 2, "instances": 3}, decode={"tp": 4})
    found = energy(
        by_hand([SERVED], d), {"prefill": use(0.3, 0.2, 0.1), "decode": use(0.9, 0.1, 0.6)}
    )
    pools = found.pools.values()
    for name in ("joules", "joules_per_output_token", "wh_per_m_output_tokens"):
        parts = [getattr(pool, name) for pool in pools]
        assert math.fsum(parts) == pytest.approx(getattr(found.total, name))
    watts = [found.pools[p.name].mean_w_per_gpu for p in d.pools]
    assert watts[0] is not None
    assert watts[1] is not None
    assert found.total.mean_w_per_gpu == pytest.approx((6 * watts[0] + 4 * watts[1]) / 10)


def test_carbon_is_energy_times_overhead_times_grid() -> None:
    plain = one_pool(0.5, 0.1, 0.2)
    assert plain.gco2_per_m_output_tokens is None
    green = one_pool(0.5, 0.1, 0.2, grid_gco2_per_kwh=400.0, pue=1.25)
    assert green.total == plain.total
    assert plain.total.wh_per_m_output_tokens is not None
    expected = plain.total.wh_per_m_output_tokens / 1000 * 1.25 * 400.0
    assert green.gco2_per_m_output_tokens == pytest.approx(expected)


def test_a_profile_without_power_leaves_the_total_unknown() -> None:
    mute = dataclasses.replace(H100, idle_w=None, memory_bound_w=None, compute_bound_w=None)
    d = disaggregated(decode={"gpu": mute})
    found = energy(by_hand([SERVED], d), {n: use(0.5, 0.1, 0.1) for n in ("prefill", "decode")})
    assert found.pools["prefill"].joules is not None
    assert found.pools["decode"].joules is None
    assert found.total.joules is None
    assert found.total.mean_w_per_gpu is None


def test_no_completed_request_has_energy_and_no_energy_per_token() -> None:
    lost = {"arrival_s": 1.0, "state": 7, "last_token_s": -1.0, "output_tokens": 11}
    found = energy(by_hand([lost], colocated()), {"colocated": use(0.0, 0.0, 0.0)})
    assert found.total.joules == 0.0
    assert found.total.joules_per_output_token is None


def test_a_simulated_decode_pool_draws_less_than_a_prefill_pool_at_work() -> None:
    scenario = Scenario.load("quick_8b", ["workload.requests=200", "energy.grid_gco2_per_kwh=300"])
    summary = summarize(simulate(scenario, seed=1))
    found = summary.energy
    assert found.gco2_per_m_output_tokens is not None
    for use_, pool in zip(summary.pools.values(), found.pools.values(), strict=True):
        assert use_.busy is not None
        assert pool.mean_w_per_gpu is not None
        assert IDLE_W < pool.mean_w_per_gpu < COMPUTE_W
    out = summary.to_dict()["energy"]
    assert set(out["pools"]) == {"prefill", "decode"}
    assert out["joules"] == pytest.approx(sum(p["joules"] for p in out["pools"].values()))
    json.dumps(out, allow_nan=False)


def test_the_docs_show_the_keys_of_the_contract() -> None:
    page = (Path(__file__).parents[1] / "docs" / "json.md").read_text(encoding="utf-8")
    for key in ("joules", "joules_per_output_token", "wh_per_m_output_tokens", "mean_w_per_gpu"):
        assert f"`energy.{key}`" in page or f"`.{key}`" in page
    assert "gco2_per_m_output_tokens" in page


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("energy.pue=1.2", "energy.grid_gco2_per_kwh: is missing"),
        ("energy.grid_gco2_per_kwh=-1", "energy.grid_gco2_per_kwh: found -1"),
        ("energy={grid_gco2_per_kwh: 300, pue: 0.9}", "energy.pue: found 0.9"),
        ("energy={grid: 300}", "energy.grid: unknown key; allowed: grid_gco2_per_kwh, pue"),
    ],
)
def test_bad_supplies_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(ScenarioError) as refusal:
        Scenario.load("quick_8b", [override])
    assert sentence in str(refusal.value)
