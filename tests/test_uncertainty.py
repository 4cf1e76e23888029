"""Bands: what is drawn, what a draw does to a deployment, and what comes out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from hwprofiles import gpu_names, load_gpu
from hwprofiles.scaling import operator_keys, scaled
from simulator.cli import app
from simulator.engine import simulate_deployment
from simulator.errors import InputError
from simulator.metrics import summarize
from simulator.scenario import Scenario
from simulator.uncertainty import (
    SPREAD,
    Draw,
    EngineSpread,
    Factor,
    bands,
    draw_factors,
    factors_of,
    redrawn,
    uncertainty,
)
from simulator.uncertainty.bands import METRICS, band_of
from simulator.uncertainty.drivers import explained
from simulator.uncertainty.factors import OVERHEAD, STEP, sigma_of

NOTHING = EngineSpread()


def quick(*changes: str, requests: int = 120) -> Scenario:
    return Scenario.load("quick_8b", [f"workload.requests={requests}", *changes])


def one_step(**changes: Any) -> Scenario:
    """One request alone: its TPOT is one decode step."""
    raw: dict[str, Any] = {
        "name": "alone",
        "model": "llama-3.1-8b",
        "workload": {
            "closed_loop": {"concurrency": 1, "requests": 1},
            "prompt_tokens": {"dist": "fixed", "tokens": 256},
            "output_tokens": {"dist": "fixed", "tokens": 33},
        },
        "pools": {"colocated": {"gpu": "h100_sxm"}},
    }
    return Scenario.from_dict({**raw, **changes})


# --- scaling a profile --------------------------------------------------------------------------


@pytest.mark.parametrize("name", gpu_names())
def test_scaling_by_one_changes_no_bit(name: str) -> None:
    gpu = load_gpu(name)
    keys = {key: 1.0 for family in gpu.kernels for key, _ in operator_keys(gpu, family)}
    assert scaled(gpu, keys) == gpu
    assert scaled(gpu, {}, {}) == gpu


@pytest.mark.parametrize(
    "scenario",
    [
        quick(),
        quick("model=qwen3-30b-a3b"),
        Scenario.load("quick_8b", ["pools.decode.gpu=l40s", "pools.decode.tp=2"]),
        one_step(
            model="deepseek-v3",
            precision={"weights": "fp8"},
            pools={"colocated": {"gpu": "h200_sxm", "tp": 8}},
        ),
    ],
    ids=["dense", "experts", "bus", "latent"],
)
def test_all_operators_times_two_is_every_step_times_two(scenario: Scenario) -> None:
    """The oracle of the rule 'times × f, rates ÷ f': nothing of a step is left out."""
    for pool in scenario.deployment().pools:
        keys = {key: 2.0 for key, _ in operator_keys(pool.gpu, pool.step.operators_per_gpu.family)}
        bare = replace(pool.step, c0_s=0.0, c1_s=0.0, host_s=0.0)
        slow = replace(bare, gpu=scaled(pool.gpu, keys))
        for batch, context in ((1, 100), (64, 2000)):
            kv = batch * context
            assert slow.decode_s(batch, kv) == pytest.approx(
                2 * bare.decode_s(batch, kv), rel=1e-12
            )
        sizes = (0, 0, 700, 700 * 350.0, 700, 1, 1)
        assert slow.mixed_s(*sizes) == pytest.approx(2 * bare.mixed_s(*sizes), rel=1e-12)


def test_one_operator_moves_alone() -> None:
    step = quick().deployment().pools[0].step
    key = next(
        k
        for k, _ in operator_keys(step.gpu, step.operators_per_gpu.family)
        if (k.operator, k.kind) == ("decode_attention", "bf16")
    )
    slow = replace(step, gpu=scaled(step.gpu, {key: 3.0}))
    before = {o.name: o.time_s for o in step.decode_operators(8, 1000)}
    after = {o.name: o.time_s for o in slow.decode_operators(8, 1000)}
    assert after.pop("decode_attention") == pytest.approx(3.0 * before.pop("decode_attention"))
    assert after == before


def test_a_parameter_is_drawn_by_its_standard_error_and_stays_positive() -> None:
    gpu = load_gpu("h100_sxm")
    path = "kernels.vllm.decode_attention.fp8.memory_eff"
    param = dict(gpu.parameters())[path]
    assert param.stderr is not None
    logs = [d.parameters["h100_sxm"][path] for d in draw_factors([], [gpu], 40, seed=1)]
    assert np.std(logs) == pytest.approx(param.stderr / param.value, rel=0.05)
    drawn = dict(scaled(gpu, {}, {path: logs[0]}).parameters())[path]
    assert drawn.value == pytest.approx(param.value * np.exp(logs[0]))
    assert dict(scaled(gpu, {}, {path: -1e2}).parameters())[path].value > 0.0


# --- what is drawn ------------------------------------------------------------------------------


def test_the_spread_of_an_operator_has_its_error_as_mean_absolute_value() -> None:
    values = np.abs(sigma_of(0.08) * norm.ppf((np.arange(100_000) + 0.5) / 100_000))
    assert float(values.mean()) == pytest.approx(0.08, rel=1e-4)


def test_factors_are_those_a_step_feels() -> None:
    found = {f.name for f in factors_of(quick().deployment(), SPREAD)}
    assert "h100_sxm gemm bf16" in found
    assert "h100_sxm decode_attention bf16" in found
    assert "link" in found
    # one GPU: no all-reduce; bf16: no fp8 kernel; no front-end latency
    assert not any("all_reduce" in name or "fp8" in name or "front" in name for name in found)
    wide = quick("pools.prefill.tp=2", "routing.latency_s=10ms")
    names = {f.name for f in factors_of(wide.deployment(), SPREAD)}
    assert {"h100_sxm all_reduce", "front end"} <= names


def test_a_borrowed_gpu_is_less_sure() -> None:
    def sigma(gpu: str) -> float:
        d = quick(f"pools.decode.gpu={gpu}").deployment()
        return {f.name: f.sigma for f in factors_of(d, NOTHING)}[f"{gpu} gemm bf16"]

    assert sigma("h100_pcie") > 2.0 * sigma("h100_sxm")


def test_a_latin_hypercube_has_one_value_in_each_slice_and_streams_of_its_own() -> None:
    one, two = Factor("one", 1.0, ""), Factor("two", 0.5, "")
    both = draw_factors([one, two], [], 50, seed=3)
    slices = np.floor(50 * norm.cdf([d.logs["one"] for d in both])).astype(int)
    assert sorted(slices) == list(range(50))
    alone = draw_factors([two], [], 50, seed=3)
    assert [d.logs["two"] for d in alone] == [d.logs["two"] for d in both]
    other = draw_factors([two], [], 50, seed=4)
    assert [d.logs["two"] for d in other] != [d.logs["two"] for d in alone]


# --- what a draw does ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario", [quick(), Scenario.load("quick_8b", ["engine.name=vllm"])], ids=["plain", "engine"]
)
def test_an_empty_draw_is_the_deployment_bit_for_bit(scenario: Scenario) -> None:
    deployment = scenario.deployment()
    same = redrawn(deployment, Draw())
    assert same == deployment
    for a, b in zip(same.pools, deployment.pools, strict=True):
        assert a.table == b.table


def test_a_draw_of_the_whole_step_scales_the_makespan_of_a_lone_request() -> None:
    scenario = one_step()
    deployment, requests = scenario.deployment(), scenario.requests()
    base = simulate_deployment(deployment, requests)
    slow = simulate_deployment(redrawn(deployment, Draw({STEP: math.log(1.3)})), requests)
    assert slow.end_s == pytest.approx(1.3 * base.end_s, rel=1e-9)


# --- bands --------------------------------------------------------------------------------------


def test_zero_spread_is_a_band_of_no_width_at_the_simulation(monkeypatch: Any) -> None:
    monkeypatch.setattr(bands, "factors_of", lambda *_: ())
    scenario = quick("model=llama-3.1-8b")
    monkeypatch.setattr(bands, "draw_factors", lambda _f, _g, n, _s: (Draw(),) * n)
    found = uncertainty(scenario, draws=3)
    run = simulate_deployment(scenario.deployment(), scenario.requests(1), seed=1)
    summary = summarize(run, scenario.slo)
    assert found.band("tpot_s.mean").lo == found.band("tpot_s.mean").hi == summary.tpot_s["mean"]
    assert found.band("ttft_s.p99").median == summary.ttft_s["p99"]
    assert found.driver("tpot_s.mean") is None


def test_tpot_of_a_lone_request_is_the_log_normal_of_its_only_factor(monkeypatch: Any) -> None:
    """Closed form: TPOT is proportional to the drawn factor, so its band is the factor's."""
    sigma = 0.2
    monkeypatch.setattr(bands, "factors_of", lambda *_: (Factor(STEP, sigma, "given"),))
    scenario = one_step()
    draws = 200
    found = uncertainty(scenario, draws=draws, seed=7)
    base = summarize(simulate_deployment(scenario.deployment(), scenario.requests(7)))
    tpot = base.tpot_s["mean"]
    assert tpot is not None
    band = found.band("tpot_s.mean")
    # a Latin hypercube puts the 5 % quantile within one slice of its place
    for got, level in ((band.lo, 0.05), (band.median, 0.5), (band.hi, 0.95)):
        low, high = (
            tpot * math.exp(sigma * norm.ppf(level + d)) for d in (-1.5 / draws, 1.5 / draws)
        )
        assert got is not None
        assert low <= got <= high
    assert found.driver("tpot_s.mean") == (STEP, pytest.approx(1.0))


def test_a_wider_spread_is_a_wider_band(monkeypatch: Any) -> None:
    widths = []
    for sigma in (0.02, 0.1, 0.3):
        monkeypatch.setattr(bands, "factors_of", lambda *_, s=sigma: (Factor(OVERHEAD, s, ""),))
        band = uncertainty(quick(requests=60), draws=12).band("tpot_s.mean")
        assert band.lo is not None
        assert band.hi is not None
        widths.append(band.hi / band.lo)
    assert widths == sorted(widths)
    assert widths[0] > 1.0


def test_the_answer_depends_on_the_seed_and_not_on_the_number_of_workers() -> None:
    scenario = quick(requests=40)
    one, two = (uncertainty(scenario, draws=4, jobs=jobs).to_dict() for jobs in (1, 2))
    assert one == two
    assert uncertainty(scenario, draws=4, seed=2).to_dict() != one


def test_the_driver_of_a_sum_is_its_largest_variance() -> None:
    rng = np.random.default_rng(0)
    x = {name: rng.standard_normal(60) for name in "abc"}
    shares = explained(np.exp(0.3 * x["a"] + 0.1 * x["b"]), x)
    assert shares["a"] == pytest.approx(0.9, abs=0.05)
    assert shares["b"] == pytest.approx(0.1, abs=0.05)
    assert shares["c"] < 0.01
    few = explained(np.exp(x["a"][:4]), {k: v[:4] for k, v in x.items()})
    assert max(few, key=lambda n: few[n]) == "a"
    assert explained(np.ones(60), x) == {}


def test_undefined_metrics_have_no_band() -> None:
    assert band_of(np.full(5, np.nan)).median is None
    found = uncertainty(quick("slo=null", requests=20), draws=2)
    assert found.holds is None
    assert found.to_dict()["slo_attainment"] == {"lo": None, "median": None, "hi": None}


@pytest.mark.parametrize("draws", [0, 1, -5, 10_001])
def test_a_number_of_draws_that_makes_no_band_is_refused(draws: int) -> None:
    with pytest.raises(InputError, match=f"draws: found {draws}; allowed: from 2"):
        uncertainty(quick(), draws=draws)


def test_jobs_are_checked() -> None:
    with pytest.raises(InputError, match="jobs: found 0"):
        uncertainty(quick(), draws=2, jobs=0)


# --- the command --------------------------------------------------------------------------------

ASK = ["simulate", "quick_8b", "--set", "workload.requests=40", "--uncertainty"]


def test_json_has_bands_only_where_asked() -> None:
    plain = CliRunner().invoke(app, [*ASK[:-1], "--json"])
    asked = CliRunner().invoke(app, [*ASK, "4", "--json"])
    assert asked.exit_code == 0, asked.output
    assert "uncertainty" not in json.loads(plain.stdout)
    found = json.loads(asked.stdout)["uncertainty"]
    assert found["draws"] == 4
    assert found["level"] == 0.9
    assert found["tpot_s"]["mean"]["lo"] <= found["tpot_s"]["mean"]["median"]
    assert {s["name"] for s in found["sources"]} >= {"h100_sxm gemm bf16", "engine overhead"}
    shares = sum(s["shares"]["tpot_s.mean"] for s in found["sources"])
    assert shares == pytest.approx(1.0)
    assert set(found["sources"][0]["shares"]) <= set(METRICS)


def test_text_and_folder_show_the_bands(tmp_path: Any) -> None:
    result = CliRunner().invoke(app, [*ASK, "4", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "How sure the model is of itself" in result.stdout
    assert "Fewer than 20 draws" in result.stdout
    assert "With uncertainty: targets hold in" in result.stdout
    assert (tmp_path / "out" / "uncertainty.png").stat().st_size > 1000
    assert "mostly from" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "uncertainty" in json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("draws", ["0", "1"])
def test_the_command_refuses_too_few_draws(draws: str, tmp_path: Any) -> None:
    result = CliRunner().invoke(app, [*ASK, draws, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"--uncertainty: found {draws}; allowed: from 2 to 10,000 draws." in result.stderr
    assert not (tmp_path / "out").exists()


def test_bands_of_the_reference_engine_are_refused() -> None:
    result = CliRunner().invoke(app, [*ASK, "4", "--reference"])
    assert result.exit_code == 2
    assert "--reference" in result.stderr
