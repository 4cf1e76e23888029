"""Bands: draws move what is unsure and nothing else, by the right amount, and are reproducible."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from hwprofiles import load_gpu
from simulator.cli.app import app
from simulator.scenario import Scenario
from simulator.uncertainty import EngineSpread, Unsure, drawn, simulate_bands
from simulator.uncertainty.draws import MAPE_TO_SIGMA, drawn_gpu

RAW: dict[str, Any] = {
    "name": "x",
    "model": "llama-3.1-8b",
    "engine": "vllm",
    "workload": {
        "closed_loop": {"concurrency": 4, "requests": 12},
        "prompt_tokens": {"dist": "uniform_ratio", "max": 512, "ratio": 0.8},
        "output_tokens": {"dist": "uniform_ratio", "max": 16, "ratio": 0.8},
    },
    "pools": {"colocated": {"gpu": "h100", "max_num_seqs": 8, "max_num_batched_tokens": 1024}},
}
SURE = EngineSpread(overhead=0.0, front=0.0, sustained=0.0, step=0.0)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.from_dict({**RAW, "slo": {"tpot_s": 0.02}})


def test_a_draw_is_the_same_every_time_and_differs_from_the_next(scenario: Scenario) -> None:
    deployment = scenario.deployment()
    first, again, other = (drawn(deployment, i) for i in (0, 0, 1))
    assert first.pools[0].table.decode_a == again.pools[0].table.decode_a
    assert first.pools[0].table.decode_a != other.pools[0].table.decode_a
    assert first.router_latency_s != other.router_latency_s


def test_capacity_limits_and_links_stay(scenario: Scenario) -> None:
    before = scenario.deployment().pools[0]
    after = drawn(scenario.deployment(), 3).pools[0]
    for name in ("capacity_blocks", "max_num_seqs", "max_num_batched_tokens", "instances"):
        assert getattr(after, name) == getattr(before, name)
    assert after.table.max_tokens == before.table.max_tokens


def test_one_operator_has_one_factor_whose_spread_is_its_held_out_error() -> None:
    gpu = load_gpu("h100")
    family = gpu.kernels[0]
    params = dict(family.gemm)["bf16"]
    assert params.error is not None
    logs = []
    for i in range(400):
        found = dict(drawn_gpu(gpu, i, Unsure(7)).kernels[0].gemm)["bf16"]
        slower = found.t0_s.value / params.t0_s.value
        logs.append(math.log(slower))
        if params.compute_eff.stderr is None:
            assert params.compute_eff.value / found.compute_eff.value == pytest.approx(slower)
    sigma = MAPE_TO_SIGMA * params.error.value
    spread = math.hypot(sigma, (params.t0_s.stderr or 0.0) / params.t0_s.value)
    assert np.std(logs) == pytest.approx(spread, rel=0.15)
    assert abs(np.mean(logs)) < 0.2 * spread


def test_a_whole_step_factor_stretches_every_step(scenario: Scenario) -> None:
    gpu = load_gpu("h100")
    still = replace(SURE)
    one = drawn_gpu(gpu, 0, Unsure(1, still), 1.0).kernels[0].decode_attention[0][1]
    two = drawn_gpu(gpu, 0, Unsure(1, still), 2.0).kernels[0].decode_attention[0][1]
    assert two.t0_s.value == pytest.approx(2 * one.t0_s.value)
    assert two.memory_eff.value == pytest.approx(one.memory_eff.value / 2)


def test_bands_hold_their_median_and_are_reproducible(scenario: Scenario) -> None:
    bands = simulate_bands(scenario, 12)
    assert bands == simulate_bands(scenario, 12)
    assert bands != simulate_bands(scenario, 12, seed=2)
    for band in bands.metrics.values():
        assert band.low <= band.median <= band.high
    tpot = bands.metrics["tpot_s.mean"]
    assert tpot.low < tpot.value < tpot.high
    assert bands.holds == 1.0
    assert set(bands.to_dict()) == {"draws", "seed", "level", "holds", "bands"}


def test_without_targets_nothing_can_hold() -> None:
    bands = simulate_bands(Scenario.from_dict(RAW), 2)
    assert bands.holds is None
    assert "slo_attainment" not in bands.metrics


def test_processes_do_not_change_the_draws(scenario: Scenario) -> None:
    assert simulate_bands(scenario, 4, jobs=2) == simulate_bands(scenario, 4, jobs=1)


def test_one_draw_is_no_band(scenario: Scenario) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        simulate_bands(scenario, 1)


def test_the_command_shows_bands(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump({**RAW, "slo": {"tpot_s": 0.02}}), encoding="utf-8")
    done = CliRunner().invoke(app, ["simulate", str(file), "--uncertainty", "3", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["uncertainty"]
    assert (found["draws"], found["holds"]) == (3, 1.0)
    shown = CliRunner().invoke(app, ["simulate", str(file), "--uncertainty", "3"])
    assert "The targets hold in 100 % of the draws" in " ".join(shown.stdout.split())
    bad = CliRunner().invoke(app, ["simulate", str(file), "--uncertainty", "1"])
    assert bad.exit_code == 2
