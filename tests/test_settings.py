"""Where engine settings come from: the engine's profile, defaults, the scenario."""

import pytest

from simulator.engine_profiles import load_engine
from simulator.report.settings import settings_block, shared_settings_block
from simulator.scenario import Scenario
from simulator.scenario.settings import Settings


def settings(*overrides: str) -> Settings:
    return Scenario.load("quick_8b", list(overrides)).deployment().settings


def by_key(found: Settings) -> dict[str, tuple[object, str, object]]:
    return {s.key: (s.value, s.origin, s.otherwise) for s in found.values}


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_what_an_engine_brings_is_its_own(name):
    found, profile = settings(f"engine={name}"), load_engine(name)
    assert (found.engine, found.description) == (name, profile.description)
    assert not found.of("set")
    known = by_key(found)
    for key in ("max_num_batched_tokens", "max_num_seqs", "memory_fraction", "block_tokens"):
        assert known[f"pools.decode.{key}"] == (profile[key], "engine", profile[key])
    assert known["first_token"] == (profile.first_token, "engine", profile.first_token)
    assert known["routing.latency_s"][1] == known["engine.c1_s"][1] == "engine"
    assert known["pools.decode.scheduler"][0] == profile.scheduler


def test_what_the_scenario_sets_says_what_it_would_be():
    found = settings(
        "engine={name: trtllm, c0_s: 1ms}", "first_token=prefill", "pools.prefill.block_tokens=16",
        "pools.decode.max_num_batched_tokens=512",
    )  # fmt: skip
    assert {s.key: (s.value, s.otherwise) for s in found.of("set")} == {
        "engine.c0_s": (0.001, load_engine("trtllm")["c0_s"]),
        "first_token": ("prefill", "handoff"),
        "pools.prefill.block_tokens": (16, 32),
        "pools.decode.max_num_batched_tokens": (512, 8192),
    }
    assert by_key(found)["pools.decode.max_num_seqs"][:2] == (512, "engine")  # fits the budget
    rows = dict(settings_block(found).rows)
    assert "decode max_num_batched_tokens 512 (otherwise 8,192)" in rows["set otherwise"]
    assert "c0_s 1.00 ms (otherwise " in rows["set otherwise"]
    assert "first_token" not in rows["trtllm's profile"]


def test_sides_say_once_what_they_share():
    ours = settings("engine=vllm", "pools.prefill.block_tokens=32")
    block = shared_settings_block({"one": ours, "two": settings("engine=vllm")})
    rows = dict(block.rows)
    assert "max_num_batched_tokens 8,192" in rows["vllm's profile"]
    assert rows["vllm's profile, two"] == "block_tokens 16"
    assert rows["set otherwise, one"] == "prefill block_tokens 32 (otherwise 16)"


def test_without_an_engine_all_are_defaults():
    found = settings("pools.decode.max_num_seqs=64")
    assert found.engine is None
    assert {s.origin for s in found.values} == {"default", "set"}
    assert [(s.key, s.otherwise) for s in found.of("set")] == [("pools.decode.max_num_seqs", 256)]
    assert by_key(found)["engine.c0_s"][0] == 0.8e-3
    assert [label for label, _ in settings_block(found).rows] == ["defaults", "set otherwise"]


def test_a_resolved_scenario_has_the_same_settings(tmp_path):
    scenario = Scenario.load("quick_8b", ["engine=sglang", "pools.decode.max_num_seqs=64"])
    file = tmp_path / "again.yaml"
    file.write_text(scenario.to_yaml())
    assert Scenario.load(file).deployment().settings == scenario.deployment().settings
