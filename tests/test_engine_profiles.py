"""Engine profiles: what the bundled files hold, what a scenario takes from them, bad files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwprofiles.param import Source
from simulator.engine_profiles import engine_names, load_engine
from simulator.engine_profiles.profile import NUMBERS
from simulator.errors import ProfileError, ScenarioError
from simulator.scenario import Scenario

RAW: dict[str, Any] = {
    "name": "x",
    "model": "llama-3.1-8b",
    "workload": {
        "closed_loop": {"concurrency": 2},
        "prompt_tokens": {"dist": "uniform_ratio", "max": 64, "ratio": 0.8},
        "output_tokens": {"dist": "uniform_ratio", "max": 8, "ratio": 0.8},
    },
    "pools": {"colocated": {"gpu": "h100"}},
}


@pytest.mark.parametrize("name", engine_names())
def test_every_value_has_a_source(name: str) -> None:
    engine = load_engine(name)
    assert {key for key, _ in engine.values} == {field.name for field in NUMBERS}
    assert all(param.source.text for _, param in engine.values)
    assert {"scheduler", "kernels", "memory_base", "first_token", "reserve", "overlap"} <= dict(
        engine.choices
    ).keys()


def test_a_bare_engine_name_fills_in_what_is_left_out() -> None:
    engine = load_engine("trtllm")
    scenario = Scenario.from_dict({**RAW, "engine": "trtllm"})
    config = scenario.config
    pool = config.pools["colocated"]
    assert pool.max_num_seqs == engine.whole("max_num_seqs")
    assert pool.memory_base == "free"
    assert scenario.deployment().pools[0].step.c0_s == engine["c0_s"]
    wide = {**RAW, "engine": "trtllm", "pools": {"colocated": {"gpu": "h100", "tp": 4}}}
    step = Scenario.from_dict(wide).deployment().pools[0].step
    each = 2 * step.model.layers * engine["c0_gpu_s"]
    assert step.c0_s == pytest.approx(engine["c0_s"] + each)  # two doublings of the GPUs
    assert config.routing.latency_s == engine["front_s"]


def test_what_is_given_stays() -> None:
    raw = {
        **RAW,
        "engine": {"name": "vllm", "c0_s": 0.0},
        "pools": {"colocated": {"gpu": "h100", "max_num_batched_tokens": 512}},
        "routing": {"latency_s": 0.0},
    }
    config = Scenario.from_dict(raw).config
    assert (config.engine.c0_s, config.routing.latency_s) == (0.0, 0.0)
    assert config.pools["colocated"].max_num_batched_tokens == 512
    assert config.pools["colocated"].max_num_seqs == 512  # never more than the budget


def test_a_resolved_scenario_loads_to_itself(tmp_path: Path) -> None:
    scenario = Scenario.from_dict({**RAW, "engine": "sglang"})
    file = tmp_path / "resolved.yaml"
    file.write_text(scenario.to_yaml(), encoding="utf-8")
    assert Scenario.load(file) == scenario


def test_an_engine_decides_the_disaggregation_protocol() -> None:
    raw = {
        **RAW,
        "pools": {"prefill": {"gpu": "h100"}, "decode": {"gpu": "h100"}},
        "link": "ib_ndr",
        "engine": "sglang",
    }
    config = Scenario.from_dict(raw).config
    assert (config.first_token, config.reserve) == ("handoff", "before_prefill")
    other = Scenario.from_dict({**raw, "reserve": "after_prefill"}).config
    assert other.reserve == "after_prefill"


def test_free_memory_leaves_its_complement_unused() -> None:
    def blocks(base: str) -> int:
        pool = {"gpu": "h100", "memory_fraction": 0.5, "memory_base": base}
        plan = Scenario.from_dict({**RAW, "pools": {"colocated": pool}}).deployment().pools[0]
        return plan.capacity_blocks

    pool = Scenario.from_dict(RAW).deployment().pools[0]
    step = pool.step
    spent = step.weight_bytes_per_gpu + step.activation_bytes(8192)
    free = step.gpu.memory_bytes.value - spent
    per_block = 16 * step.kv_bytes_per_token_per_gpu
    assert blocks("free") == pytest.approx(0.5 * free / per_block, abs=1)
    assert blocks("total") == pytest.approx((free - 0.5 * (free + spent)) / per_block, abs=1)


def test_changed_numbers_carry_their_new_source() -> None:
    source = Source("fitted", "three runs")
    engine = load_engine("vllm").changed(source, c0_s=1e-3)
    assert engine["c0_s"] == 1e-3
    assert engine.param("c0_s").source is source
    assert engine.param("c1_s").source is not source


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'vllm'"):
        Scenario.from_dict({**RAW, "engine": "vlm"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("scheduler: {value: vllm_v1", "scheduler: {value: vllm_v2", "did you mean 'vllm_v1'"),
        ('unit: "s", source: fit', 'unit: "ms", source: fit', "found 'ms'; allowed: s"),
        ("  block_tokens:", "  block_token:", "did you mean 'block_tokens'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, old: str, new: str, says: str) -> None:
    import simulator

    text = (Path(simulator.__file__).parent / "engine_profiles" / "vllm.yaml").read_text()
    assert old in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError, match=r"mine\.yaml") as error:
        load_engine(file)
    assert says in str(error.value)


def test_an_engine_brings_its_graphs_and_whether_steps_overlap() -> None:
    assert load_engine("vllm").of_version("0.11.2").overlap is False
    assert load_engine("vllm").of_version("0.14.0").overlap is True
    assert (load_engine("sglang").graphs(2)[-1], load_engine("sglang").graphs(8)[-1]) == (256, 512)
    plan = Scenario.from_dict({**RAW, "engine": "trtllm"}).deployment().pools[0]
    assert plan.overlap
    assert plan.step.graphs is not None
    assert plan.step.graphs.padding
    engine = {"name": "vllm", "graph_sizes": [], "overlap": False, "host_s": "2 ms"}
    eager = Scenario.from_dict({**RAW, "engine": engine}).deployment().pools[0]
    assert not eager.overlap
    launch_s = eager.step.model.layers * load_engine("vllm")["eager_layer_s"]
    assert eager.table.eager_s == pytest.approx(launch_s)
    assert eager.step.c0_s == pytest.approx(load_engine("vllm")["c0_s"] + 2e-3)  # not hidden


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ({"graph_sizes": [4, 2]}, r"found \[4, 2\]; allowed: sizes from 1"),
        ({"graph_mixed": True}, "no effect in an engine without graph_sizes"),
        ({"eager_layer_s": 1e-4}, "no effect in an engine without graph_sizes"),
    ],
)
def test_graphs_that_make_no_sense_are_refused(engine: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        Scenario.from_dict({**RAW, "engine": engine})


def test_a_version_changes_what_is_known_to_differ() -> None:
    engine = load_engine("trtllm")
    old = engine.of_version("1.0.0rc3")
    assert old["c0_s"] != engine["c0_s"]
    assert old["block_tokens"] == engine["block_tokens"]
    assert engine.of_version("") is engine
    assert engine.of_version("9.9") is engine


def test_costs_grow_with_layers_of_experts_and_doublings_of_gpus() -> None:
    engine = load_engine("trtllm")
    alone = engine["c0_s"] + 10 * engine["c0_experts_s"]
    assert engine.step_s(10) == pytest.approx(alone)
    wide = engine.step_s(10, layers=20, gpus=4)
    assert wide == pytest.approx(alone + 40 * engine["c0_gpu_s"])
    assert engine.latency_s(1) == engine["front_s"]
    assert engine.latency_s(8) == pytest.approx(engine["front_s"] + 3 * engine["front_gpu_s"])
    less = engine.changed(engine.param("c0_s").source, c0_experts_s=-1e-3)
    assert less.step_s(10_000) == 0.0  # never below nothing


def test_a_balance_needs_ranks_that_evict_nobody() -> None:
    pool: dict[str, Any] = {"gpu": "h200", "scheduler": "trtllm", "attention_balance": {}}
    with pytest.raises(ScenarioError, match="no effect in a pool with attention_dp 1"):
        Scenario.from_dict({**RAW, "pools": {"colocated": pool}})
