"""Request classes, presets, sessions, and lengths drawn from a trace."""

import math
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import scenarios
from simulator.errors import ScenarioError
from simulator.scenario import SLO, ClassSLO, Scenario
from simulator.workload import Requests, read_trace
from simulator.workload.presets import PRESETS
from simulator.workload.sessions import turns_of

BASE: dict[str, Any] = {
    "name": "x",
    "model": "llama-3.1-8b",
    "pools": {"colocated": {"gpu": "h200_sxm", "max_num_batched_tokens": 8192}},
}
SHORT = {
    "prompt_tokens": {"dist": "uniform", "low": 10, "high": 99},
    "output_tokens": {"dist": "fixed", "tokens": 5},
}
LONG = {
    "prompt_tokens": {"dist": "uniform", "low": 1000, "high": 1999},
    "output_tokens": {"dist": "fixed", "tokens": 50},
    "slo": {"ttft_s": "3s"},
}
SESSION = {
    "prompt_tokens": {"dist": "fixed", "tokens": 200},
    "output_tokens": {"dist": "fixed", "tokens": 30},
    "session": {
        "turns": {"dist": "uniform", "low": 1, "high": 7},
        "new_tokens": {"dist": "fixed", "tokens": 20},
        "gap_s": 4.0,
        "max_context_tokens": 4000,
    },
}


def scenario(workload: dict[str, Any], **more: Any) -> Scenario:
    return Scenario.from_dict({**BASE, "workload": workload, **more})


def rows(requests: Requests, name: str) -> np.ndarray:
    return np.asarray(requests.class_index == requests.classes.index(name))


# --- mixtures -----------------------------------------------------------------------------------


def test_weights_share_one_arrival_process() -> None:
    found = scenario(
        {
            "rate_rps": 10,
            "requests": 20_000,
            "classes": {"short": {**SHORT, "weight": 3}, "long": LONG},
        }
    ).requests()
    alone = scenario({"rate_rps": 10, "requests": 20_000, **SHORT}).requests()
    np.testing.assert_array_equal(found.arrival_s, alone.arrival_s)
    share = found.class_shares()["short"]
    assert abs(share - 0.75) < 4.5 * math.sqrt(0.75 * 0.25 / 20_000)
    assert found.prompt_tokens[rows(found, "short")].max() < 100
    assert found.prompt_tokens[rows(found, "long")].min() >= 1000
    assert found.stationary


def test_rates_superpose_processes_of_their_own() -> None:
    classes = {
        "short": {**SHORT, "rate_rps": 8},
        "long": {**LONG, "rate_rps": 2, "arrivals": "gamma", "cv": 2.0},
    }
    found = scenario({"requests": 20_000, "classes": classes}).requests()
    assert found.rate_rps == pytest.approx(10, rel=0.05)
    assert (np.diff(found.arrival_s) >= 0).all()
    gaps = np.diff(found.arrival_s[rows(found, "long")])
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.15)


def test_a_class_added_leaves_the_others_as_they_were() -> None:
    classes = {"short": {**SHORT, "rate_rps": 8}}
    alone = scenario({"requests": 2000, "classes": classes}).requests()
    both = scenario(
        {"requests": 2500, "classes": {"long": {**LONG, "rate_rps": 2}, **classes}}
    ).requests()
    mine = rows(both, "short")
    n = int(mine.sum())
    assert 1500 < n < 2100
    n = min(n, 2000)
    np.testing.assert_array_equal(both.arrival_s[mine][:n], alone.arrival_s[:n])
    np.testing.assert_array_equal(both.prompt_tokens[mine][:n], alone.prompt_tokens[:n])


def test_more_requests_continue_the_sequence() -> None:
    classes = {"short": {**SHORT, "weight": 2}, "talk": SESSION}
    short = scenario({"rate_rps": 9, "requests": 500, "classes": classes}).requests()
    long = scenario({"rate_rps": 9, "requests": 3000, "classes": classes}).requests()
    np.testing.assert_array_equal(long.arrival_s[:500], short.arrival_s)
    np.testing.assert_array_equal(long.prompt_tokens[:500], short.prompt_tokens)
    np.testing.assert_array_equal(long.class_index[:500], short.class_index)


def test_classes_in_a_closed_loop() -> None:
    found = scenario(
        {
            "closed_loop": {"concurrency": 8, "requests": 4000},
            "classes": {"short": SHORT, "long": LONG},
        }
    ).requests()
    assert not found.arrival_s.any()
    assert found.closed_loop is not None
    assert abs(found.class_shares()["short"] - 0.5) < 4.5 * math.sqrt(0.25 / 4000)


def test_classes_whose_processes_end_need_no_count() -> None:
    step = {"process": "step", "levels": [{"rate_rps": 20, "for_s": 50}]}
    found = scenario({"classes": {"a": {**SHORT, "arrivals": step}}})
    assert found.config.workload.classes is not None
    assert found.config.workload.classes["a"].rate_rps == 20
    requests = found.requests()
    assert not requests.stationary
    assert abs(len(requests) - 1000) < 4.5 * math.sqrt(1000)


def test_cutting_keeps_the_classes() -> None:
    found = scenario(
        {"rate_rps": 10, "requests": 100, "classes": {"short": SHORT, "long": LONG}}
    ).requests()
    cut = found.head(10)
    assert cut.classes == ("short", "long")
    np.testing.assert_array_equal(cut.class_index, found.class_index[:10])
    late = found.between(3.0, 1e9)
    np.testing.assert_array_equal(late.class_index, found.class_index[found.arrival_s >= 3.0])


# --- sessions -----------------------------------------------------------------------------------


def test_a_prompt_holds_the_conversation_so_far() -> None:
    # worked by hand: prompts 100, 100+10+5, 115+20+7; the fourth would need 142+30+9 + 5 > 180
    got = turns_of(
        turns=np.array([4, 1]),
        first_tokens=np.array([100, 60]),
        new_tokens=np.array([0, 5, 7, 9, 0]),
        output_tokens=np.array([10, 20, 30, 5, 1]),
        gap_s=np.array([0.0, 1.5, 2.0, 9.0, 0.0]),
        max_context_tokens=180,
    )
    assert got.session.tolist() == [0, 0, 0, 1]
    assert got.prompt_tokens.tolist() == [100, 115, 142, 60]
    assert got.output_tokens.tolist() == [10, 20, 30, 1]
    assert got.after_s.tolist() == [0.0, 1.5, 3.5, 0.0]


@given(st.integers(0, 2**31), st.integers(2, 500))
@settings(max_examples=60, deadline=None)
def test_sessions_never_exceed_their_context(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    turns = rng.integers(1, 9, 20)
    n = int(turns.sum())
    got = turns_of(
        turns,
        rng.integers(1, 300, 20),
        rng.integers(1, 80, n),
        rng.integers(1, 80, n),
        rng.exponential(3.0, n),
        most,
    )
    assert (got.prompt_tokens + got.output_tokens <= most).all()
    assert (got.prompt_tokens >= 1).all()
    assert set(got.session) == set(range(20))  # the first turn always fits
    inside = np.diff(got.session) == 0
    grows = got.prompt_tokens[1:] >= got.prompt_tokens[:-1] + got.output_tokens[:-1]
    assert grows[inside].all()
    assert (np.diff(got.after_s)[inside] >= 0).all()


@pytest.mark.parametrize("how", ["weight", "rate_rps"])
def test_the_rate_of_a_class_with_sessions_counts_requests(how: str) -> None:
    n = 20_000
    if how == "weight":
        workload = {"rate_rps": 20, "classes": {"a": SHORT, "b": SESSION}}
    else:
        workload = {"classes": {"a": {**SHORT, "rate_rps": 10}, "b": {**SESSION, "rate_rps": 10}}}
    found = scenario({**workload, "requests": n}).requests()
    # 20 requests/s of which half are turns; the first sessions' length is a few of 1000 seconds
    assert found.rate_rps == pytest.approx(20, rel=0.05)
    assert found.class_shares()["b"] == pytest.approx(0.5, abs=0.03)
    assert "sessions" in found.notes[0]


# --- lengths of a trace -------------------------------------------------------------------------


def test_lengths_come_in_pairs_from_the_trace() -> None:
    trace = read_trace(scenarios.trace_path("azure2023_conv"))
    found = scenario(
        {"rate_rps": 50, "requests": 30_000, "lengths": {"trace": "azure2023_conv"}}
    ).requests()
    known = set(zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True))
    drawn = set(zip(found.prompt_tokens.tolist(), found.output_tokens.tolist(), strict=True))
    assert drawn <= known
    for mine, theirs in (
        (found.prompt_tokens, trace.prompt_tokens),
        (found.output_tokens, trace.output_tokens),
    ):
        assert abs(mine.mean() - theirs.mean()) < 4.5 * theirs.std() / math.sqrt(30_000)
    rho = np.corrcoef(trace.prompt_tokens, trace.output_tokens)[0, 1]
    assert np.corrcoef(found.prompt_tokens, found.output_tokens)[0, 1] == pytest.approx(
        rho, abs=0.05
    )
    assert found.stationary
    poisson = scenario({"rate_rps": 50, "requests": 30_000, **SHORT}).requests()
    np.testing.assert_array_equal(found.arrival_s, poisson.arrival_s)


# --- presets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_draws_and_says_where_it_comes_from(name: str) -> None:
    for written in ({"mine": name}, {name: "preset"}, {"mine": {"preset": name, "weight": 2}}):
        found = scenario(
            {"rate_rps": 5, "requests": 300, "classes": written, "on_too_long": "reject"}
        )
        requests = found.requests()
        assert len(requests) == 300
        assert (requests.prompt_tokens >= 1).all()
        assert found.slo is not None
        assert found.slo.classes[next(iter(written))].ttft_s
        assert Scenario.from_dict(yaml.safe_load(found.to_yaml())) == found
    preset = PRESETS[name]
    assert preset.about
    assert "illustrative" in preset.source or "trace" in preset.source


def test_presets_bend_to_overrides() -> None:
    own = {"preset": "chat", **SHORT, "slo": {"tpot_s": 0.1}}
    found = scenario({"rate_rps": 5, "requests": 50, "classes": {"chat": own}})
    assert found.requests().prompt_tokens.max() < 100
    assert found.slo == SLO(classes={"chat": ClassSLO(tpot_s=0.1)})
    trace = {"preset": "agentic", "lengths": {"trace": "azure2023_code"}}
    found = scenario({"rate_rps": 5, "requests": 50, "classes": {"a": trace}})
    assert found.config.workload.classes is not None
    assert found.config.workload.classes["a"].session is None


def test_targets_of_classes_and_of_the_scenario() -> None:
    workload = {"rate_rps": 5, "requests": 50, "classes": {"a": SHORT, "b": LONG}}
    both = scenario(workload, slo={"ttft_s": 1, "tpot_s": 0.05, "attainment": 0.9}).slo
    assert both is not None
    assert both.of("a") is both
    assert (both.of("b").ttft_s, both.of("b").tpot_s) == (3.0, None)
    share_only = scenario(workload, slo={"attainment": 0.8}).slo
    assert share_only is not None
    assert (share_only.attainment, share_only.of("a").ttft_s) == (0.8, None)


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"classes": {"a": {**SHORT, "wieght": 2}}}, "classes.a.wieght: unknown key; did you mean"),
        ({"classes": {"a": "chatt"}}, "classes.a.preset: found 'chatt'; did you mean 'chat'"),
        ({"classes": {"a": {}}}, "classes.a.prompt_tokens: is missing"),
        ({"classes": {}}, "classes: is empty"),
        ({"classes": {"a b": SHORT}}, "is no name"),
        ({"classes": {"a": {**SHORT, "weight": 1, "rate_rps": 2}}}, "weight: found with rate_rps"),
        ({"classes": {"a": {**SHORT, "cv": 2.0}}}, "cv: has no effect with a weight"),
        ({"classes": {"a": SHORT}, **SHORT}, "prompt_tokens: has no effect with classes"),
        ({"classes": {"a": {**SHORT, "slo": {}}}}, "classes.a.slo: holds no target"),
        (
            {"classes": {"a": {**SHORT, "rate_rps": 2}}},
            "found rate_rps and rates of its classes",
        ),
        (
            {"lengths": {"trace": "azure2024"}},
            "lengths.trace: found 'azure2024', which is no file and no bundled trace",
        ),
        ({"lengths": {"trace": "azure2023_conv"}, **SHORT}, "has no effect with lengths"),
    ],
)
def test_bad_classes_are_refused(workload: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario({"rate_rps": 5, "requests": 50, **workload})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rates_for_some_classes_only_are_refused() -> None:
    with pytest.raises(ScenarioError, match="class 'b' without"):
        scenario({"requests": 9, "classes": {"a": {**SHORT, "rate_rps": 2}, "b": SHORT}})


def test_sessions_in_a_closed_loop_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"classes\.a\.session: has no effect"):
        scenario({"closed_loop": {"concurrency": 2}, "classes": {"a": SESSION}})


def test_an_slo_without_targets_needs_classes_with_some() -> None:
    with pytest.raises(ScenarioError, match="slo: holds no target"):
        scenario({"rate_rps": 5, "requests": 50, **SHORT}, slo={"attainment": 0.9})
