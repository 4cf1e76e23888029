"""Scenarios: loading, overrides, resolved defaults, and the objects names turn into."""

import math
from pathlib import Path

import numpy as np
import pytest

import scenarios
from simulator.errors import ScenarioError
from simulator.scenario import SLO, Scenario, never_fits
from simulator.scenario.reference import BEGIN, END, TAGS, sections, tables
from simulator.scenario.yaml_file import dump_yaml, parse_yaml

DOCS = Path(__file__).parent.parent / "docs"


def small(**changes: object) -> dict[str, object]:
    """A small disaggregated scenario, as a file would hold it."""
    return {
        "name": "small",
        "model": "llama-3.1-8b",
        "workload": {
            "rate_rps": 5,
            "requests": 200,
            "prompt_tokens": {"dist": "uniform", "low": 100, "high": 200},
            "output_tokens": {"dist": "fixed", "tokens": 50},
        },
        "pools": {"prefill": {"gpu": "h100_sxm"}, "decode": {"gpu": "l40s"}},
        "link": "ib_ndr",
        **changes,
    }


def colocated(**changes: object) -> dict[str, object]:
    """The same traffic on one colocated pool."""
    raw = small(pools={"both": {"gpu": "h100_sxm", "role": "colocated"}}, **changes)
    del raw["link"]
    return raw


# --- bundled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scenarios.scenario_names())
def test_a_bundled_scenario_builds_and_says_what_it_asks(name: str) -> None:
    scenario = Scenario.load(name)
    assert scenario.name == name
    assert "?" in scenarios.scenario_path(name).read_text(encoding="utf-8").split("\nname:")[0]
    deployment, requests = scenario.deployment(), scenario.requests()
    assert len(requests) >= 640
    assert deployment.mode == scenario.mode
    assert all(p.capacity_blocks > 1000 for p in deployment.pools)


@pytest.mark.parametrize("name", scenarios.scenario_names())
def test_a_resolved_scenario_loads_to_the_same_scenario(name: str, tmp_path: Path) -> None:
    scenario = Scenario.load(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(scenario.to_yaml(), encoding="utf-8")
    again = Scenario.load(path)
    assert again == scenario
    assert hash(again) == hash(scenario)
    assert again.to_yaml() == scenario.to_yaml()


# --- resolved values ----------------------------------------------------------------------------


def test_defaults_that_depend_on_the_mode_are_filled_in() -> None:
    config = Scenario.from_dict(small()).config
    assert config.workload.arrivals == "poisson"
    assert config.pools["prefill"].role == "prefill"
    assert config.pools["prefill"].max_wait_s == 0.0
    assert config.pools["decode"].max_wait_s is None
    assert config.pools["decode"].nics_per_gpu == 1
    assert (config.first_token, config.reserve) == ("decode", "after_prefill")
    assert (config.transfer, config.routing.decode) == ("after_prefill", "least_outstanding_tokens")


def test_a_colocated_scenario_has_no_disaggregated_values() -> None:
    scenario = Scenario.from_dict(colocated())
    assert scenario.mode == "colocated"
    for key in ("link", "first_token", "reserve", "transfer", "nics_per_gpu", "max_wait_s"):
        assert key not in scenario.to_yaml()
    deployment = scenario.deployment()
    assert deployment.link is None
    assert [p.role for p in deployment.pools] == ["colocated"]


def test_several_pools_of_one_role_keep_their_order() -> None:
    pools = {
        "old": {"gpu": "a100_sxm", "role": "decode"},
        "prefill": {"gpu": "h100_sxm"},
        "new": {"gpu": "h200_sxm", "role": "decode", "instances": 2},
    }
    deployment = Scenario.from_dict(small(pools=pools)).deployment()
    assert [p.name for p in deployment.pools] == ["old", "prefill", "new"]
    assert [p.name for p in deployment.role("decode")] == ["old", "new"]
    assert deployment.gpus == 4


def test_durations_may_carry_a_unit() -> None:
    raw = small(
        slo={"ttft_s": "500ms", "tpot_s": "0.02 s"},
        routing={"latency_s": "3us"},
        engine={"c0_s": "1e2us", "host_s": "0.001min"},
    )
    scenario = Scenario.from_dict(raw)
    assert scenario.slo == SLO(ttft_s=0.5, tpot_s=0.02, attainment=0.99)
    assert scenario.config.routing.latency_s == 3e-6
    assert (scenario.config.engine.c0_s, scenario.config.engine.host_s) == (1e-4, 0.06)


def test_no_targets_is_no_slo() -> None:
    assert Scenario.from_dict(small()).slo is None
    assert Scenario.from_dict(small(slo={"tpot_s": 0.1})).slo == SLO(tpot_s=0.1)


def test_an_slo_checks_itself() -> None:
    for bad in ({}, {"ttft_s": 0.0}, {"tpot_s": math.inf}, {"ttft_s": 1.0, "attainment": 1.5}):
        with pytest.raises(ScenarioError, match="slo"):
            SLO(**bad)


# --- deployment ---------------------------------------------------------------------------------


def test_values_reach_the_deployment() -> None:
    raw = small(
        pools={
            "prefill": {
                "gpu": "h100_sxm",
                "tp": 2,
                "instances": 3,
                "max_num_seqs": 7,
                "max_num_batched_tokens": 1000,
                "max_wait_s": "5ms",
                "block_tokens": 32,
                "nics_per_gpu": 2,
            },
            "decode": {"gpu": "l40s", "memory_fraction": 0.8},
        },
        link={
            "name": "ib_ndr",
            "nic_gbps": 80,
            "efficiency": 0.5,
            "base_latency_s": "1ms",
            "message_s": "2us",
            "coalesced": True,
            "spine_gbps": 800,
        },
        routing={"prefill": "round_robin", "decode": "random", "latency_s": 0.1},
        first_token="handoff",
        reserve="before_prefill",
        transfer="layerwise",
        prices={"h100": 2.5},
        engine={"c0_s": 0.001, "c1_s": 0.0, "host_s": 0.004},
    )
    deployment = Scenario.from_dict(raw).deployment()
    prefill, decode = deployment.pools
    assert (prefill.gpu.name, prefill.tp, prefill.instances, prefill.nics) == ("h100_sxm", 2, 3, 4)
    assert (prefill.max_num_seqs, prefill.max_num_batched_tokens) == (7, 1000)
    assert (prefill.max_wait_s, prefill.block_tokens) == (0.005, 32)
    assert prefill.usd_per_gpu_hour == 2.5
    assert (prefill.table.host_s, prefill.table.seq_s, decode.step.c0_s) == (0.004, 0.0, 0.001)
    capacity = decode.step.kv_capacity_tokens(0.8, 8192)
    assert decode.capacity_blocks == capacity // 16
    link = deployment.link
    assert link is not None
    assert (link.nic_bytes_per_s, link.spine_bytes_per_s) == (5e9, 1e11)
    assert (link.base_latency_s, link.message_s, link.coalesced) == (0.001, 2e-6, True)
    assert (deployment.prefill_router, deployment.decode_router) == ("round_robin", "random")
    assert (deployment.first_token, deployment.reserve) == ("handoff", "before_prefill")
    assert (deployment.transfer, deployment.router_latency_s) == ("layerwise", 0.1)


def test_a_link_by_name_has_the_profiles_values_and_no_spine() -> None:
    link = Scenario.from_dict(small()).deployment().link
    assert link is not None
    assert 0 < link.nic_bytes_per_s <= 50e9  # 400 Gbit/s
    assert link.spine_bytes_per_s == math.inf


def test_kv_on_the_wire_counts_each_kv_head_once() -> None:
    # Llama-3.1-8B: 32 layers, 8 KV heads of 128, K and V; replication under TP 16 sends no more
    bf16 = Scenario.from_dict(small()).deployment()
    assert bf16.kv_wire_bytes_per_token == 2 * 32 * 8 * 128 * 2
    fp8 = Scenario.from_dict(small(precision={"weights": "fp8", "kv": "fp8"})).deployment()
    assert fp8.kv_wire_bytes_per_token == 2 * 32 * 8 * 128


def test_tables_reach_the_longest_prompt_of_any_seed() -> None:
    scenario = Scenario.from_dict(small())
    long = scenario.with_overrides(
        ["workload.prompt_tokens={dist: uniform, low: 10000, high: 20000}"]
    ).deployment()
    assert long.pools[0].table.max_tokens == 20_000 + 256
    assert long.pools[1].table.max_tokens == 8192 + 256  # decode recomputes by chunks
    trace = Scenario.load("azure_conv_70b").deployment()
    assert trace.pools[0].table.max_tokens == 14_050 + 256


def test_without_a_longest_prompt_tables_reach_the_kv_capacity() -> None:
    raw = small()
    raw["workload"] |= {"prompt_tokens": {"dist": "lognormal", "mean": 100, "cv": 1}}
    prefill = Scenario.from_dict(raw).deployment().pools[0]
    assert prefill.table.max_tokens == prefill.capacity_blocks * 16 + 256


def test_equal_pools_share_one_table() -> None:
    first, second = (Scenario.from_dict(small()).deployment() for _ in range(2))
    assert first.pools[0].table is second.pools[0].table


def test_a_price_file_is_relative_to_the_scenario(tmp_path: Path) -> None:
    bundled = Scenario.from_dict(small()).deployment().pools[1].usd_per_gpu_hour
    assert bundled > 0
    source = (Path(__file__).parent.parent / "hwprofiles" / "prices_example.yaml").read_text()
    (tmp_path / "prices.yaml").write_text(source)
    path = tmp_path / "s.yaml"
    path.write_text(dump_yaml(small(prices="prices.yaml")))
    scenario = Scenario.load(path)
    assert scenario.deployment().pools[1].usd_per_gpu_hour == bundled
    assert str(tmp_path) in scenario.to_yaml()


def test_a_model_file_is_relative_to_the_scenario(tmp_path: Path) -> None:
    source = Path(__file__).parent.parent / "simulator" / "models" / "llama-3.1-8b.json"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(source.read_text())
    path = tmp_path / "s.yaml"
    path.write_text(dump_yaml(small(model="mine/config.json")))
    assert Scenario.load(path).deployment().model.name == "mine"


# --- requests -----------------------------------------------------------------------------------


def test_requests_follow_the_seed() -> None:
    scenario = Scenario.from_dict(small(seed=3))
    one, again, other = scenario.requests(), scenario.requests(3), scenario.requests(4)
    assert (one.arrival_s == again.arrival_s).all()
    assert (one.prompt_tokens == again.prompt_tokens).all()
    assert (one.arrival_s != other.arrival_s).all()


def test_candidates_share_arrivals_and_lengths() -> None:
    base = Scenario.from_dict(small())
    more = base.with_overrides(["workload.output_tokens={dist: uniform, low: 1, high: 9}"])
    fast = base.with_overrides(["workload.rate_rps=10", "pools.decode.instances=3"])
    assert (more.requests().arrival_s == base.requests().arrival_s).all()
    assert (more.requests().prompt_tokens == base.requests().prompt_tokens).all()
    assert (2 * fast.requests().arrival_s == base.requests().arrival_s).all()


def test_prompt_and_output_lengths_are_independent() -> None:
    raw = small()
    same = {"dist": "uniform", "low": 1, "high": 1000}
    raw["workload"] |= {"requests": 10_000, "prompt_tokens": same, "output_tokens": same}
    requests = Scenario.from_dict(raw).requests()
    r = np.corrcoef(requests.prompt_tokens, requests.output_tokens)[0, 1]
    assert abs(r) < 4.5 / math.sqrt(10_000)


def test_gamma_and_constant_arrivals() -> None:
    base = Scenario.from_dict(small())
    constant = base.with_overrides(["workload.arrivals=constant"]).requests()
    assert constant.arrival_s[:3].tolist() == [0.0, 0.2, 0.4]
    gamma = base.with_overrides(["workload.arrivals=gamma", "workload.cv=3"]).requests()
    assert gamma.source == "gamma, 5 requests/s, cv 3"
    assert gamma.stationary


def test_a_closed_loop_sends_ten_requests_a_slot_unless_told() -> None:
    raw = small()
    raw["workload"] = {
        "closed_loop": {"concurrency": 8},
        "prompt_tokens": {"dist": "uniform_ratio", "max": 100, "ratio": 0.8},
        "output_tokens": {"dist": "fixed", "tokens": 5},
    }
    requests = Scenario.from_dict(raw).requests()
    assert len(requests) == 80
    assert requests.closed_loop is not None
    assert requests.closed_loop.concurrency == 8
    assert not requests.arrival_s.any()


def test_a_trace_is_cut_then_shortened_then_made_faster() -> None:
    scenario = Scenario.load("azure_conv_70b")
    whole = scenario.with_overrides(["workload.trace.rate_scale=1"]).requests()
    cut = scenario.with_overrides(
        [
            "workload.trace={path: azure2023_conv, start_s: 1min, end_s: 20min, max_requests: 100, "
            "rate_scale: 4}"
        ]
    ).requests()
    first = int(np.searchsorted(whole.arrival_s, 60.0))
    assert len(cut) == 100
    assert not cut.stationary
    np.testing.assert_allclose(4 * cut.arrival_s, whole.arrival_s[first : first + 100] - 60.0)


def test_a_trace_file_is_relative_and_read_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n")
    path = tmp_path / "s.yaml"
    path.write_text(dump_yaml(small(workload={"trace": {"path": "t.csv"}})))
    scenario = Scenario.load(path)
    assert len(scenario.requests()) == 1
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n1,5,6\n")
    assert len(scenario.requests()) == 2


def test_on_too_long_reject_leaves_the_requests_to_the_engine() -> None:
    raw = small()
    raw["workload"] |= {"prompt_tokens": {"dist": "fixed", "tokens": 500_000}}
    scenario = Scenario.from_dict(raw, ["workload.on_too_long=reject"])
    requests, deployment = scenario.requests(), scenario.deployment()
    assert never_fits(requests, deployment.pools[0]).all()
    assert never_fits(requests, deployment.pools[1]).all()


def test_what_never_fits_is_prompt_in_prefill_and_prompt_and_output_elsewhere() -> None:
    scenario = Scenario.from_dict(small())
    prefill, decode = scenario.deployment().pools
    holds = decode.capacity_blocks * 16
    assert prefill.capacity_blocks > decode.capacity_blocks
    fits = scenario.with_overrides(
        [f"workload.prompt_tokens={{dist: fixed, tokens: {holds - 50}}}"]
    ).requests()
    assert not never_fits(fits, decode).any()
    with pytest.raises(ScenarioError, match=f"{holds + 1} tokens"):
        scenario.with_overrides(
            [f"workload.prompt_tokens={{dist: fixed, tokens: {holds - 49}}}"]
        ).requests()


# --- overrides ----------------------------------------------------------------------------------


def test_overrides_are_applied_in_order_on_what_was_written() -> None:
    scenario = Scenario.load("quick_8b", ["pools.decode.instances=2", "pools.decode.instances=3"])
    assert scenario.config.pools["decode"].instances == 3
    again = scenario.with_overrides(["seed=9"])
    assert (again.seed, again.config.pools["decode"].instances) == (9, 3)
    assert scenario.seed == 1


def test_an_override_may_open_a_section_or_extend_a_name() -> None:
    scenario = Scenario.from_dict(small(), ["slo.ttft_s=300ms", "link.spine_gbps=100"])
    assert scenario.slo == SLO(ttft_s=0.3)
    assert scenario.config.link is not None
    assert (scenario.config.link.name, scenario.config.link.spine_gbps) == ("ib_ndr", 100.0)


def test_null_goes_back_to_the_default() -> None:
    overrides = ["slo=null", "pools.decode.instances=null", "seed=7", "seed=null"]
    scenario = Scenario.load("chat_70b_h100", overrides)
    assert scenario.slo is None
    assert scenario.config.pools["decode"].instances == 1
    assert scenario.seed == 1


def test_an_override_may_replace_a_pool_or_the_workload() -> None:
    scenario = Scenario.load(
        "quick_8b",
        [
            "workload={trace: {path: azure2023_conv, max_requests: 10}}",
            "pools.decode={gpu: a100_sxm, tp: 2}",
            "pools.extra={gpu: l40s, role: decode}",
        ],
    )
    assert len(scenario.requests()) == 10
    assert list(scenario.config.pools) == ["prefill", "decode", "extra"]


def test_switching_to_colocated_does_not_trip_over_filled_in_defaults() -> None:
    scenario = Scenario.load("quick_8b").with_overrides(
        ["pools={colocated: {gpu: h100_sxm}}", "link=null"]
    )
    assert scenario.mode == "colocated"


def test_override_paths_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n")
    monkeypatch.chdir(tmp_path)
    scenario = Scenario.load("quick_8b", ["workload={trace: {path: t.csv}}"])
    assert len(scenario.requests()) == 1
    assert str(tmp_path / "t.csv") in scenario.to_yaml()


def test_from_dict_leaves_its_argument_alone() -> None:
    raw = small()
    Scenario.from_dict(raw, ["pools.decode.instances=4", "link.spine_gbps=100"])
    assert raw == small()


# --- YAML ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("12", 12),
        ("010", 10),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("'12'", "12"),
        (".inf", math.inf),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    got = parse_yaml(text, "here")
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("name", ["no", "1e6", "12", "null", "a: b", "", "true", "ß"])
def test_texts_survive_a_round_trip(name: str) -> None:
    assert parse_yaml(dump_yaml({"name": name}), "here") == {"name": name}


# --- documentation ------------------------------------------------------------------------------


def test_the_documented_tables_are_the_schemas() -> None:
    text = (DOCS / "scenario.md").read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0].strip() == tables()


def test_every_field_is_documented() -> None:
    text = (DOCS / "scenario.md").read_text(encoding="utf-8")
    for path, section in sections():
        for name, field in section.model_fields.items():
            assert field.description or name in TAGS, f"{path}.{name} has no description"
            assert f"| `{name}` |" in text, f"{path}.{name} is not in docs/scenario.md"


def test_the_example_in_the_documentation_works() -> None:
    text = (DOCS / "scenario.md").read_text(encoding="utf-8")
    example = parse_yaml(text.split("```yaml\n")[1].split("```")[0], "docs")
    assert Scenario.from_dict(example).slo == SLO(ttft_s=0.5, tpot_s=0.05)
