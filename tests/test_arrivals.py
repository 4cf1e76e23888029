"""Arrival rates that change with time: exact inversion, bursts, and what the scenario makes of them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from simulator.errors import InputError, ScenarioError
from simulator.scenario import Scenario
from simulator.workload import stream
from simulator.workload.rates import Rates, diurnal, follow, on_off

N = 40_000
EXPONENTIAL = 0.001
"""p-value below which a fixed seed would have had to be very unlucky."""


def rescaled(rates: Rates, arrivals: np.ndarray) -> np.ndarray:
    """Gaps on the process's own clock: independent and exponential (time rescaling theorem)."""
    return np.diff(rates.expected(arrivals), prepend=0.0)


RATES = {
    "ramp": Rates(np.array([0.0, 1000.0]), np.array([2.0, 30.0])),
    "falling to zero": Rates(np.array([0.0, 800.0]), np.array([40.0, 0.0])),
    "step": Rates.steps([5.0, 40.0, 0.0, 10.0], [300.0, 100.0, 200.0, 400.0]),
    "table": Rates(np.array([0.0, 100.0, 100.0, 900.0]), np.array([0.0, 20.0, 3.0, 25.0])),
}


@pytest.mark.parametrize("name", RATES)
def test_rescaled_gaps_are_exponential(name: str) -> None:
    rates = RATES[name]
    arrivals = follow(rates, stream(11, "arrivals"))
    assert (np.diff(arrivals) >= 0).all()
    assert arrivals[-1] <= rates.span_s
    assert kstest(rescaled(rates, arrivals), "expon").pvalue > EXPONENTIAL


@pytest.mark.parametrize("name", RATES)
def test_counts_of_windows_have_the_mean_and_variance_of_a_poisson_law(name: str) -> None:
    rates = RATES[name]
    edges = np.linspace(0.0, rates.span_s, 6)
    mean = np.diff(rates.expected(edges))
    counts = np.array(
        [np.histogram(follow(rates, stream(s, "arrivals")), edges)[0] for s in range(300)]
    )
    error = np.sqrt(np.maximum(mean, 1e-12) / 300)
    assert (np.abs(counts.mean(axis=0) - mean) < 4.5 * error + 1e-9).all()
    busy = mean > 0
    dispersion = counts.var(axis=0, ddof=1)[busy] / mean[busy]
    assert (np.abs(dispersion - 1.0) < 4.5 * math.sqrt(2 / 299)).all()


points = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(1e-3, 50.0)), st.floats(0.0, 100.0)),
    min_size=1,
    max_size=6,
).filter(lambda p: sum(d for d, _ in p) > 0.1 and sum(r for _, r in p) > 0.5)


@given(points, st.floats(0.1, 50.0), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_the_inverse_inverts(
    steps: list[tuple[float, float]], first: float, shares: list[float]
) -> None:
    t = np.concatenate([[0.0], np.cumsum([d for d, _ in steps])])
    rates = Rates(t, np.array([first, *(r for _, r in steps)]))
    wanted = np.sort(np.array(shares)) * rates.total
    got = rates.at(wanted)
    assert (np.diff(got) >= -1e-9).all()
    np.testing.assert_allclose(rates.expected(got), wanted, rtol=1e-9, atol=1e-9 * rates.total)


def test_a_constant_rate_is_the_poisson_process_itself() -> None:
    flat = Rates(np.array([0.0, 100.0]), np.array([3.0, 3.0]))
    unit = np.cumsum(stream(1, "arrivals").standard_exponential(4096)) / 3.0
    np.testing.assert_allclose(follow(flat, stream(1, "arrivals")), unit[unit <= 100.0], rtol=1e-12)


def test_twice_the_rate_brings_the_same_arrivals_and_more() -> None:
    rates = RATES["step"]
    slow = rates.expected(follow(rates, stream(1, "a")))
    fast = rates.times(2.0).expected(follow(rates.times(2.0), stream(1, "a")))
    np.testing.assert_allclose(fast[: slow.size], slow, rtol=1e-9)


@pytest.mark.parametrize(
    ("t", "rate", "words"),
    [
        ([0.0], [1.0], "at least two points"),
        ([1.0, 2.0], [1.0, 1.0], "begin at 0"),
        ([0.0, 5.0, 4.0], [1.0, 1.0, 1.0], "not decrease"),
        ([0.0, 5.0], [1.0, -1.0], "a rate is -1"),
        ([0.0, 5.0], [0.0, 0.0], "0 arrivals"),
        ([0.0, math.inf], [1.0, 1.0], "not finite"),
    ],
)
def test_bad_rates_are_refused(t: list[float], rate: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Rates(np.array(t), np.array(rate))


# --- diurnal ------------------------------------------------------------------------------------


def day(t: np.ndarray, mean: float, period: float, peak: float) -> np.ndarray:
    w = 2.0 * math.pi / period
    return mean * (t - (peak - 1.0) * np.sin(w * t) / w)


@pytest.mark.parametrize("peak", [1.0, 1.5, 2.0])
def test_diurnal_rescaled_gaps_are_exponential(peak: float) -> None:
    t = diurnal(N, 10.0, 600.0, peak, stream(3, "arrivals"))
    gaps = np.diff(day(t, 10.0, 600.0, peak), prepend=0.0)
    assert kstest(gaps, "expon").pvalue > EXPONENTIAL
    np.testing.assert_allclose(
        day(t, 10.0, 600.0, peak),
        np.cumsum(stream(3, "arrivals").standard_exponential(N)),
        rtol=1e-9,
        atol=1e-6,
    )


def test_diurnal_peaks_half_a_period_in() -> None:
    t = diurnal(N, 10.0, 400.0, 1.8, stream(4, "arrivals"))
    phase = np.histogram(t % 400.0, bins=8, range=(0.0, 400.0))[0]
    assert phase.argmax() in (3, 4)
    assert phase.argmin() in (0, 7)


# --- bursts -------------------------------------------------------------------------------------


def test_bursts_have_the_mean_rate_and_the_dispersion_of_the_process() -> None:
    on, off, on_s, off_s = 30.0, 2.0, 5.0, 15.0
    mean = (on * on_s + off * off_s) / (on_s + off_s)
    r, s = 1.0 / on_s, 1.0 / off_s
    # variance of the counts of a window, over their mean: Fischer and Meier-Hellstern
    window = 20.0
    x = (r + s) * window
    excess = 2.0 * (on - off) ** 2 * r * s / ((r + s) ** 2 * (on * s + off * r))
    expected = 1.0 + excess * (1.0 - (1.0 - math.exp(-x)) / x)
    found = []
    for seed in range(12):
        t = on_off(N, on, off, on_s, off_s, stream(seed, "a"), stream(seed, "p"))
        counts = np.histogram(t, bins=np.arange(0.0, t[-1], window))[0]
        found.append((t.size / t[-1], counts.var(ddof=1) / counts.mean()))
    rates, dispersion = np.array(found).T
    assert abs(rates.mean() - mean) < 4.5 * rates.std(ddof=1) / math.sqrt(12)
    assert abs(dispersion.mean() - expected) < 4.5 * dispersion.std(ddof=1) / math.sqrt(12)


def test_equal_rates_on_and_off_are_a_poisson_process() -> None:
    t = on_off(5000, 4.0, 4.0, 3.0, 7.0, stream(1, "a"), stream(1, "p"))
    unit = np.cumsum(stream(1, "a").standard_exponential(5000))
    np.testing.assert_allclose(t, unit / 4.0, rtol=1e-9)


def test_more_arrivals_continue_the_sequence() -> None:
    short = on_off(100, 9.0, 0.0, 3.0, 7.0, stream(1, "a"), stream(1, "p"))
    long = on_off(5000, 9.0, 0.0, 3.0, 7.0, stream(1, "a"), stream(1, "p"))
    np.testing.assert_array_equal(long[:100], short)
    np.testing.assert_array_equal(
        diurnal(100, 2.0, 60.0, 1.5, stream(1, "a")),
        diurnal(900, 2.0, 60.0, 1.5, stream(1, "a"))[:100],
    )


# --- the scenario -------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "name": "x",
    "model": "llama-3.1-8b",
    "pools": {"colocated": {"gpu": "h100_sxm"}},
}
LENGTHS = {
    "prompt_tokens": {"dist": "fixed", "tokens": 100},
    "output_tokens": {"dist": "fixed", "tokens": 10},
}


def scenario(workload: dict[str, Any], **more: Any) -> Scenario:
    return Scenario.from_dict({**BASE, "workload": {**LENGTHS, **workload}, **more})


BURSTY = {"process": "bursty", "on_rps": 40, "off_rps": 4, "on_s": 10, "off_s": "30s"}
STEP = {"process": "step", "levels": [{"rate_rps": 5, "for_s": 60}, {"rate_rps": 25, "for_s": 40}]}
RAMP = {"process": "ramp", "from_rps": 0, "to_rps": 20, "over_s": "2min"}
POINTS = {
    "process": "rates",
    "points": [{"t_s": 0, "rate_rps": 4}, {"t_s": 50, "rate_rps": 12}],
}


@pytest.mark.parametrize(
    ("workload", "mean", "stationary"),
    [
        ({"arrivals": BURSTY, "requests": 2000}, 13.0, True),
        ({"arrivals": BURSTY, "requests": 2000, "rate_rps": 26}, 26.0, True),
        ({"arrivals": STEP}, 13.0, False),
        ({"arrivals": STEP, "rate_rps": 39}, 39.0, False),
        ({"arrivals": RAMP}, 10.0, False),
        ({"arrivals": POINTS}, 8.0, False),
        (
            {
                "arrivals": {"process": "diurnal", "period_s": 100, "peak_to_mean": 1.6},
                "rate_rps": 9,
                "requests": 1800,
            },
            9.0,
            False,
        ),
    ],
)
def test_processes_of_a_scenario(workload: dict[str, Any], mean: float, stationary: bool) -> None:
    found = scenario(workload)
    assert found.config.workload.rate_rps == pytest.approx(mean)
    requests = found.requests()
    assert requests.stationary is stationary
    if workload.get("arrivals") is BURSTY:
        assert len(requests) == 2000
    else:
        span = 100.0 if "requests" not in workload else requests.arrival_s[-1]
        span = {"ramp": 120.0, "rates": 50.0}.get(workload["arrivals"]["process"], span)
        expected = mean * span
        assert abs(len(requests) - expected) < 4.5 * math.sqrt(expected)
    again = Scenario.from_dict(yaml.safe_load(found.to_yaml()))
    assert again == found
    np.testing.assert_array_equal(again.requests().arrival_s, requests.arrival_s)


def test_rates_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("t_s,rate_rps\n0,4\n50,12\n")
    here = Scenario.from_dict(
        {**BASE, "workload": {**LENGTHS, "arrivals": {"process": "rates", "path": "rates.csv"}}},
        folder=tmp_path,
    )
    inline = scenario({"arrivals": POINTS})
    np.testing.assert_array_equal(here.requests().arrival_s, inline.requests().arrival_s)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t_s,rate\n0,4\n", "line 1: found the header 't_s,rate'; allowed: t_s,rate_rps"),
        ("t_s,rate_rps\n0,4\n5,x\n", "line 3, column rate_rps: found 'x'"),
        ("t_s,rate_rps\n0,4\n5\n", "line 3: found 1 values; allowed: 2"),
        ("t_s,rate_rps\n0,4\n", "at least two points"),
        ("t_s,rate_rps\n1,4\n3,4\n", "begin at 0"),
    ],
)
def test_a_bad_file_of_rates_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"workload\.arrivals") as caught:
        scenario({"arrivals": {"process": "rates", "path": str(path)}})
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"arrivals": "poison", "rate_rps": 1, "requests": 5}, "arrivals: found 'poison'"),
        ({"arrivals": "bursty", "requests": 5}, "which needs numbers; write a mapping"),
        ({"arrivals": {"on_rps": 3}, "requests": 5}, "has no process; allowed: poisson"),
        ({"arrivals": {"process": "brusty"}, "requests": 5}, "did you mean 'bursty'"),
        ({"arrivals": {**BURSTY, "on": 3}, "requests": 5}, "arrivals.on: unknown key"),
        ({"arrivals": {**BURSTY, "off_rps": 50}, "requests": 5}, "off_rps: found 50"),
        ({"arrivals": BURSTY}, "requests: is missing; arrivals: bursty needs requests"),
        ({"arrivals": STEP, "requests": 5}, "requests: has no effect with arrivals: step"),
        ({"arrivals": {**RAMP, "to_rps": 0}}, "to_rps: cannot be used: the rates stand for 0"),
        (
            {"arrivals": {"process": "diurnal", "peak_to_mean": 1.5}, "requests": 5},
            "rate_rps: is missing",
        ),
        (
            {"arrivals": {"process": "diurnal", "peak_to_mean": 3}, "requests": 5, "rate_rps": 1},
            "peak_to_mean: found 3; allowed: at most 2",
        ),
        ({"arrivals": {"process": "rates"}}, "found neither of points and path"),
        ({"arrivals": {**POINTS, "path": "a.csv"}}, "found both of points and path"),
        ({"arrivals": {**STEP, "levels": []}}, "levels: is empty"),
    ],
)
def test_bad_processes_are_refused(workload: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(workload)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
