"""Every way to get a scenario wrong ends in one sentence that says where, what and what else."""

import copy
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ScenarioError
from simulator.scenario import Scenario
from simulator.scenario.yaml_file import dump_yaml

OPEN: dict[str, Any] = {
    "name": "small",
    "model": "llama-3.1-8b",
    "workload": {
        "rate_rps": 5,
        "requests": 20,
        "prompt_tokens": {"dist": "uniform", "low": 100, "high": 200},
        "output_tokens": {"dist": "fixed", "tokens": 50},
    },
    "pools": {"prefill": {"gpu": "h100_sxm"}, "decode": {"gpu": "h100_sxm"}},
    "link": "ib_ndr",
}
LENGTHS = {key: OPEN["workload"][key] for key in ("prompt_tokens", "output_tokens")}
GPU = {"gpu": "h100_sxm"}


def use(path: Path) -> None:
    """Load a scenario file and make all of it."""
    scenario = Scenario.load(path)
    scenario.deployment()
    scenario.requests()


def sentence(raw: dict[str, Any], folder: Path) -> str:
    """The error a scenario file gives, by the time its deployment and requests are made."""
    path = folder / "s.yaml"
    path.write_text(dump_yaml(raw), encoding="utf-8")
    with pytest.raises(ScenarioError) as caught:
        use(path)
    found = str(caught.value)
    assert found.startswith(f"{path}: ")
    assert "\n" not in found
    assert found.endswith(".")
    return found.removeprefix(f"{path}: ")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The open scenario with one key set (``...`` removes it)."""
    raw = copy.deepcopy(OPEN)
    section = raw
    *parents, last = path.split(".")
    for key in parents:
        section = section[key]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return raw


NAN, INF = float("nan"), float("inf")

ONE_KEY = [
    # unknown keys, the nearest one suggested
    ("pols", {}, "pols: unknown key; did you mean 'pools'? Allowed: energy, engine, expert_skew, "),
    ("pools.decode.instence", 2, "pools.decode.instence: unknown key; did you mean 'instances'?"),
    ("workload.rate_rp", 2, "workload.rate_rp: unknown key; did you mean 'rate_rps'?"),
    ("workload.prompt_tokens.hihg", 2, "prompt_tokens.hihg: unknown key; did you mean 'high'?"),
    ("workload.output_tokens.mean", 2, "mean: unknown key; allowed: dist, tokens."),
    (
        "link",
        {"name": "ib_ndr", "nic_gbp": 1},
        "link.nic_gbp: unknown key; did you mean 'nic_gbps'",
    ),
    ("slo", {"ttft": 1}, "slo.ttft: unknown key; did you mean 'ttft_s'?"),
    # unknown names
    ("model", "llama-3.1-80b", "model: model 'llama-3.1-80b' is unknown; did you mean 'llama-3.1-"),
    (
        "pools.decode.gpu",
        "h100_sxn",
        "pools.decode.gpu: GPU 'h100_sxn' is unknown; did you mean 'h",
    ),
    ("link", "ib_nrd", "link.name: link 'ib_nrd' is unknown; did you mean 'ib_ndr'?"),
    ("routing", {"prefill": "robin"}, "routing.prefill: found 'robin'; did you mean 'round_robin'"),
    ("routing", {"decode": "jsq"}, "found 'jsq'; allowed: least_outstanding_tokens, random, round"),
    ("first_token", "decoder", "first_token: found 'decoder'; did you mean 'decode'? Allowed: dec"),
    ("transfer", "layer", "transfer: found 'layer'; did you mean 'layerwise'?"),
    ("precision", {"kv": "fp4"}, "precision.kv: found 'fp4'; did you mean 'fp8'? Allowed: bf16, f"),
    ("workload.arrivals", "poison", "workload.arrivals: found 'poison'; did you mean 'poisson'?"),
    ("workload.prompt_tokens.dist", "unifrom", "found dist 'unifrom'; did you mean 'uniform'?"),
    ("prices", {"h1000": 1}, "prices.h1000: GPU 'h1000' is unknown; did you mean 'h100'?"),
    # missing keys
    ("name", ..., "name: is missing"),
    ("model", ..., "model: is missing"),
    ("pools", ..., "pools: is missing"),
    ("pools.decode.gpu", ..., "pools.decode.gpu: is missing"),
    ("workload", ..., "workload: is missing"),
    (
        "workload.requests",
        ...,
        "workload.requests: is missing; arrivals: poisson needs rate_rps, r",
    ),
    ("workload.prompt_tokens", ..., "workload.prompt_tokens: is missing"),
    ("workload.prompt_tokens.dist", ..., "workload.prompt_tokens: has no dist; allowed: a mapping"),
    ("workload.prompt_tokens.low", ..., "workload.prompt_tokens.low: is missing"),
    (
        "link",
        ...,
        "link: is missing; a disaggregated scenario needs a link, such as `link: ib_ndr`",
    ),
    # wrong types
    ("name", 7, "name: found 7; allowed: text"),
    ("pools.decode.instances", "two", "pools.decode.instances: found 'two' (text); allowed: a who"),
    ("pools.decode.instances", "2", "found '2' (text); allowed: a whole number"),
    ("pools.decode.instances", 2.5, "found 2.5; allowed: a whole number"),
    ("pools.decode.instances", True, "found True; allowed: a whole number"),
    ("pools.decode.instances", None, "found null; allowed: a whole number"),
    ("pools.decode.instances", [2], "found a list; allowed: a whole number"),
    ("pools.decode", 4, "pools.decode: found 4; allowed: a mapping"),
    ("pools", ["a"], "pools: found a list; allowed: a mapping"),
    ("workload.rate_rps", "12", "workload.rate_rps: found '12' (text); allowed: a number"),
    ("workload.rate_rps", True, "workload.rate_rps: found True; allowed: a number"),
    ("workload.requests", 20.5, "workload.requests: found 20.5; allowed: a whole number"),
    (
        "slo",
        {"ttft_s": "fast"},
        "slo.ttft_s: found 'fast'; allowed: a number of seconds, or a text",
    ),
    ("slo", {"ttft_s": "5 weeks"}, "slo.ttft_s: found '5 weeks'"),
    ("slo", {"ttft_s": "-5ms"}, "slo.ttft_s: found '-5ms'"),
    ("slo", 0.5, "slo: found 0.5; allowed: a mapping"),
    ("link", 5, "link: found 5; allowed: a text or a mapping"),
    ("link", {"name": "ib_ndr", "coalesced": "yes"}, "link.coalesced: found 'yes' (text); allowed"),
    ("prices", 5, "prices: found 5; allowed: a text or a mapping"),
    ("prices", {"h100": "cheap"}, "prices.h100: found 'cheap' (text); allowed: a number"),
    # impossible values
    ("name", "", "name: is empty"),
    ("model", "x" * 5000, "model: is too long; allowed: at most 1000 characters"),
    ("workload.rate_rps", -1, "workload.rate_rps: found -1; allowed: more than 0"),
    ("workload.rate_rps", 0, "workload.rate_rps: found 0; allowed: more than 0"),
    ("workload.rate_rps", NAN, "workload.rate_rps: found nan; allowed: a finite number"),
    ("workload.rate_rps", INF, "workload.rate_rps: found inf; allowed: a finite number"),
    ("workload.rate_rps", 1e-9, "workload: arrival_s must lie between 0 and 1e+08 s"),
    ("workload.requests", 0, "workload.requests: found 0; allowed: at least 1"),
    ("workload.prompt_tokens.low", 0, "workload.prompt_tokens.low: found 0; allowed: at least 1"),
    ("workload.prompt_tokens.low", 999, "prompt_tokens.low: found 999; allowed: at most high, 200"),
    ("pools.decode.instances", 0, "pools.decode.instances: found 0; allowed: at least 1"),
    ("pools.decode.memory_fraction", 1.5, "memory_fraction: found 1.5; allowed: at most 1"),
    ("pools.decode.memory_fraction", NAN, "memory_fraction: found nan; allowed: a finite number"),
    ("pools.prefill.max_wait_s", -1, "pools.prefill.max_wait_s: found -1; allowed: at least 0"),
    ("pools.prefill.max_wait_s", INF, "found inf; allowed: a finite number"),
    ("slo", {"tpot_s": 0}, "slo.tpot_s: found 0; allowed: more than 0"),
    ("slo", {"attainment": 0.9}, "slo: holds no target; allowed: ttft_s, tpot_s or both"),
    ("seed", -1, "seed: found -1; allowed: at least 0"),
    ("prices", {"h100": -2}, "prices.h100: found -2; allowed: at least 0"),
    ("prices", "prices.yaml", "does not exist"),
    ("model", "nowhere/config.json", "does not exist"),
    (
        "precision",
        {"compute": "fp8"},
        "precision.compute: 'fp8' does not go with weights in bf16; allowed: bf16.",
    ),
    (
        "precision",
        {"activations": "static"},
        "precision.activations: static has no effect without fp8 arithmetic; allowed: leave it out.",
    ),
    (
        "precision",
        {"experts": "nvfp4"},
        "precision.experts: 'nvfp4' has no effect, llama-3.1-8b has no routed experts; allowed: le",
    ),
    ("precision", {"weights": "int3"}, "precision.weights: found 'int3'; did you mean 'int8'? Al"),
    ("expert_skew", 0.5, "expert_skew: has no effect, llama-3.1-8b has no routed experts; allowed"),
    ("expert_skew", 4, "expert_skew: found 4; allowed: at most 3"),
    ("pools.decode.ep", 2, "pools.decode.ep: 2 does not divide the 1 GPUs of a stage (tp 1 times"),
    (
        "pools.decode.attention_dp",
        2,
        "pools.decode.attention_dp: 2 needs routed experts, and llama-3.1-8b has none; allowed: 1.",
    ),
    ("pools.decode.pp", 33, "pools.decode.pp: 33 does not split the 32 layers of llama-3.1-8b; a"),
    # parallelism and memory
    (
        "pools.decode.tp",
        3,
        "pools.decode.tp: 3 does not shard llama-3.1-8b (32 attention heads, 8 K",
    ),
    ("pools.decode.tp", 0, "pools.decode.tp: found 0; allowed: at least 1"),
    ("pools.decode.tp", 16, "pools.decode.tp: "),
    ("model", "llama-3.1-405b", "found 1; llama-3.1-405b then needs "),
    # options without effect, and options that contradict each other
    ("workload.cv", 2, "workload.cv: has no effect with arrivals: poisson; allowed: leave it out"),
    ("workload.arrivals", "gamma", "workload.cv: is missing; arrivals: gamma needs rate_rps"),
    (
        "workload.trace",
        {"path": "azure2023_conv"},
        "workload: found rate_rps and trace; allowed: ex",
    ),
    (
        "workload.closed_loop",
        {"concurrency": 4},
        "workload: found rate_rps and closed_loop; allowe",
    ),
    (
        "workload",
        {},
        "workload: found none of them; allowed: exactly one of rate_rps, trace, closed",
    ),
    ("workload", LENGTHS, "workload: found none of them"),
    ("pools.decode.max_wait_s", 0.1, "pools.decode.max_wait_s: has no effect in a decode pool"),
    ("pools.decode.max_num_batched_tokens", 99, "found 99; allowed: at least max_num_seqs, 256"),
    (
        "transfer",
        "layerwise",
        "reserve: found after_prefill; allowed with transfer: layerwise: befo",
    ),
    # roles
    ("pools", {}, "pools: is empty"),
    ("pools", {"prefill": GPU}, "pools: found prefill (prefill); a decode pool must be there too"),
    ("pools", {"decode": GPU}, "pools: found decode (decode); a prefill pool must be there too"),
    (
        "pools",
        {"prefill": GPU, "decode": GPU, "colocated": GPU},
        "colocated pools do not mix with prefill or decode pools",
    ),
    ("pools.fast", GPU, "pools.fast.role: is missing; allowed: prefill, decode, colocated"),
    ("pools.decode.role", "decoder", "pools.decode.role: found 'decoder'; did you mean 'decode'?"),
    ("pools.a b", {**GPU, "role": "decode"}, "pools.a b: is no name"),
    # a prompt no instance can hold
    (
        "workload.prompt_tokens",
        {"dist": "fixed", "tokens": 2_000_000},
        "workload.on_too_long: 20 of 20 requests can never be served: the longest has 2000000 tokens",
    ),
]


@pytest.mark.parametrize(("path", "value", "words"), ONE_KEY)
def test_one_wrong_key(path: str, value: Any, words: str, tmp_path: Path) -> None:
    assert words in sentence(changed(path, value), tmp_path)


WORKLOADS = [
    ({"trace": {"path": "azure2023_con"}}, "no bundled trace; did you mean 'azure2023_conv'?"),
    ({"trace": {"path": "nope.csv"}}, "workload.trace.path: "),
    ({"trace": {}}, "workload.trace.path: is missing"),
    ({"trace": {"path": "azure2023_conv", "format": "tsv"}}, "format: found 'tsv'; "),
    ({"trace": {"path": "azure2023_conv", "format": "csv"}}, "found a Parquet file; allowed with"),
    ({"trace": {"path": "azure2023_conv", "rate_scale": 0}}, "rate_scale: found 0; allowed: more"),
    ({"trace": {"path": "azure2023_conv", "start_s": 9000}}, "no request arrives from 9000 s on"),
    (
        {"trace": {"path": "azure2023_conv", "start_s": 9, "end_s": 9}},
        "end_s: found 9; allowed: mo",
    ),
    ({"trace": {"path": "azure2023_conv"}, "requests": 5}, "requests: has no effect with a trace"),
    ({"trace": {"path": "azure2023_conv"}, **LENGTHS}, "prompt_tokens: has no effect with a trace"),
    ({"closed_loop": {"concurrency": 0}, **LENGTHS}, "concurrency: found 0; allowed: at least 1"),
    ({"closed_loop": {"concurrency": 4}}, "prompt_tokens: is missing; a closed loop needs prompt"),
    (
        {"closed_loop": {"concurrency": 4, "requests": 3}, **LENGTHS},
        "closed_loop.requests: found 3; allowed: at least the concurrency, 4",
    ),
    ({"closed_loop": {"concurrency": 4}, "requests": 9, **LENGTHS}, "requests: has no effect with"),
    (
        {"closed_loop": {"concurrency": 4}, "arrivals": "gamma", **LENGTHS},
        "found arrivals and clos",
    ),
    (
        {"arrivals": "constant", "requests": 9, **LENGTHS},
        "rate_rps: is missing; arrivals: constant",
    ),
]


@pytest.mark.parametrize(("workload", "words"), WORKLOADS)
def test_a_wrong_workload(workload: dict[str, Any], words: str, tmp_path: Path) -> None:
    found = sentence(changed("workload", workload), tmp_path)
    assert found.startswith("workload")
    assert words in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("link", "ib_ndr"),
        ("first_token", "decode"),
        ("reserve", "after_prefill"),
        ("transfer", "after_prefill"),
        ("routing", {"decode": "random"}),
        ("pools", {"colocated": {**GPU, "nics_per_gpu": 1}}),
        ("pools", {"colocated": {**GPU, "max_wait_s": 0.0}}),
    ],
)
def test_an_option_without_effect_when_colocated(path: str, value: Any, tmp_path: Path) -> None:
    raw = changed("link", ...)
    raw["pools"] = {"colocated": GPU}
    raw[path] = value
    found = sentence(raw, tmp_path)
    assert path in found
    assert "has no effect in a colocated" in found


def test_a_bad_line_of_a_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,5,6\n1,0,6\n")
    found = sentence(changed("workload", {"trace": {"path": "t.csv"}}), tmp_path)
    assert "t.csv: line 3, column prompt_tokens: found '0'; allowed: a whole number" in found


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would(tmp_path: Path) -> None:
    raw = changed("model", "llama-3.1-70b")
    raw["pools"] = {"prefill": {**GPU, "tp": 4}, "decode": GPU}
    found = sentence(raw, tmp_path)
    assert found.startswith("pools.decode.tp: found 1; llama-3.1-70b then needs 14")
    assert (
        "GB on each h100_sxm before any KV cache (weights 141.1, activations and runtime" in found
    )
    assert "GB are available (0.9 of 85.5); the smallest tp that fits is 2." in found


def test_a_model_that_fits_no_node_says_so(tmp_path: Path) -> None:
    raw = changed("model", "llama-3.1-405b")
    raw["pools"] = {"prefill": {**GPU, "tp": 8}, "decode": {**GPU, "tp": 8}}
    assert "no tp of one node fits." in sentence(raw, tmp_path)


def test_too_long_says_how_many_and_how_to_go_on(tmp_path: Path) -> None:
    raw = changed("workload.prompt_tokens", {"dist": "uniform", "low": 10**5, "high": 10**6})
    found = sentence(raw, tmp_path)
    count, total = (int(word) for word in found.split(": ")[1].split(" requests")[0].split(" of "))
    assert 0 < count < total == 20
    assert "(prompt), and the KV cache of an instance of pool 'prefill' holds " in found
    assert "`on_too_long: reject`" in found


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "found a list at the top level; allowed: a mapping"),
        (b"hello\n", "found text at the top level"),
        (b"42\n", "found a number at the top level"),
        (b"name: [1, 2\nmodel: x\n", "line 2, column 6: not valid YAML: "),
        (b"name: a\n\tmodel: x\n", "line 2, column 1: not valid YAML: "),
        (
            b"name: a\nmodel: x\nname: b\n",
            "line 3, column 1: not valid YAML: key 'name' is given tw",
        ),
        (
            b"pools:\n  decode: {tp: 1, tp: 2}\n",
            "line 2, column 19: not valid YAML: key 'tp' is giv",
        ),
        (b"name: a\n1: b\n", "line 2, column 1: not valid YAML: key 1 is not a text"),
        (b"? [a, b]\n: c\n", "is not a text"),
        (b"name: !!python/object:os.system x\n", "line 1, column 7: not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", "not valid YAML: but found another document"),
        (b"name: \xff\xfe\n", "is not UTF-8 text"),
        (b"name: a\x00b\n", "not valid YAML: "),
        (b"a: " + b"[" * 1000, "not valid YAML: nested too deeply"),
        (b"seed: " + b"9" * 5000 + b"\n", "not valid YAML: "),
        (b"name: *nobody\n", "not valid YAML: found undefined alias"),
    ],
)
def test_a_file_that_is_no_scenario(text: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(text)
    with pytest.raises(ScenarioError) as caught:
        Scenario.load(path)
    assert str(caught.value).startswith(f"{path}:")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_directory_and_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nope.yaml: no such file"):
        Scenario.load(tmp_path / "nope.yaml")
    with pytest.raises(ScenarioError, match="is a directory; allowed: a YAML file"):
        Scenario.load(tmp_path)
    with pytest.raises(ScenarioError, match=r"no bundled scenario; did you mean 'quick_8b'\?"):
        Scenario.load("quick_8")


# --- overrides ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("pools.decode.instances", "malformed; allowed: path.to.key=value"),
        ("pools.decode.instances=", "malformed"),
        ("=6", "malformed"),
        ("pools..instances=6", "malformed"),
        ("", "malformed"),
        ("pools.decode.instence=6", "unknown key pools.decode.instence; did you mean 'instances'?"),
        ("pools.decod.instances=6", "unknown key pools.decod; did you mean 'decode'? Allowed: dec"),
        ("pols.decode.instances=6", "unknown key pols; did you mean 'pools'?"),
        ("seed.x=1", "seed is 1 here and has no keys below it"),
        ("workload.prompt_tokens.tokens=6", "unknown key workload.prompt_tokens.tokens"),
        ("name=[", "line 1, column 2: not valid YAML"),
        ("workload={rate_rps: 1, rate_rps: 2}", "key 'rate_rps' is given twice"),
        ("pools.decode.instances=0", "pools.decode.instances: found 0; allowed: at least 1."),
        ("pools.decode.instances=six", "found 'six' (text); allowed: a whole number"),
        ("pools.decode=null", "a decode pool must be there too"),
        ("workload.arrivals=gamma", "workload.cv: is missing"),
        ("link=5", "link: found 5"),
    ],
)
def test_a_bad_override_is_named(override: str, words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.load("quick_8b", [override])
    found = str(caught.value)
    assert f"--set {override}" in found
    assert words in found
    assert "\n" not in found


def test_only_the_override_at_fault_is_blamed() -> None:
    with pytest.raises(ScenarioError) as caught:
        Scenario.load("quick_8b", ["seed=3", "pools.decode.instances=0"])
    assert "--set pools.decode.instances=0" in str(caught.value)
    assert "seed" not in str(caught.value)


def test_a_mistyped_key_is_reported_before_the_missing_one_it_leaves(tmp_path: Path) -> None:
    raw = changed("model", ...)
    raw["modle"] = "llama-3.1-8b"
    assert sentence(raw, tmp_path).startswith("modle: unknown key; did you mean 'model'?")


def test_recursive_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: &a [*a]\n")
    with pytest.raises(ScenarioError, match="not valid YAML"):
        Scenario.load(path)
