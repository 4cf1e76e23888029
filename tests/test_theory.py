"""Queueing results against independent arithmetic: direct sums, brute force, long sample paths."""

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.theory import (
    erlang_b,
    erlang_c,
    kiefer_wolfowitz,
    lindley,
    little,
    md1,
    mg1,
    mm1,
    mmc,
    number_in_system,
)

times = st.floats(0.0, 10.0, allow_nan=False)
paths = st.lists(st.tuples(times, times), min_size=1, max_size=40)


@pytest.mark.parametrize(
    "module",
    [
        "simulator.theory.queues",
        "simulator.theory.recursions",
        "simulator.theory.little",
        "simulator.metrics.warmup",
        "simulator.metrics.intervals",
    ],
)
def test_the_examples_in_docstrings_hold(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_mm1_agrees_with_the_geometric_distribution_of_its_number():
    rho = 0.7
    p = (1 - rho) * rho ** np.arange(2000)
    q = mm1(7.0, 0.1)
    assert q.utilisation == pytest.approx(rho)
    assert q.number == pytest.approx(np.arange(2000) @ p)
    assert q.waiting == pytest.approx(np.maximum(np.arange(2000) - 1, 0) @ p)


@pytest.mark.parametrize(("offered", "servers"), [(0.5, 1), (2.0, 3), (9.0, 10), (90.0, 100)])
def test_erlang_formulas_agree_with_their_sums(offered, servers):
    term = [math.exp(k * math.log(offered) - math.lgamma(k + 1)) for k in range(servers + 1)]
    assert erlang_b(offered, servers) == pytest.approx(term[-1] / sum(term))
    tail = term[-1] * servers / (servers - offered)
    assert erlang_c(offered, servers) == pytest.approx(tail / (sum(term[:-1]) + tail))


def test_erlang_c_does_not_overflow_with_many_servers():
    assert 0.0 < erlang_c(950.0, 1000) < 0.1


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_reductions_between_queues(rate):
    assert mmc(rate, 1.0, 1) == mm1(rate, 1.0)
    assert mg1(rate, 1.0, scv=1.0) == mm1(rate, 1.0)
    assert mg1(rate, 1.0, scv=0.0) == md1(rate, 1.0)
    assert mmc(2 * rate, 1.0, 2).wait_s < mm1(rate, 1.0).wait_s


@pytest.mark.parametrize("queue", [mm1(2.0, 1.0), md1(1.0, 1.0), mmc(4.0, 1.0, 4)])
def test_a_queue_offered_more_than_it_can_do_has_no_steady_state(queue):
    assert queue.utilisation >= 1.0
    assert queue.wait_s == queue.number == math.inf


def test_an_empty_stream_waits_for_nothing():
    assert mm1(0.0, 1.0).number == 0.0
    assert mmc(0.0, 1.0, 3).waiting == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: mm1(-1.0, 1.0),
        lambda: mm1(1.0, 0.0),
        lambda: mmc(1.0, 1.0, 0),
        lambda: mg1(0.5, 1.0, scv=-1.0),
        lambda: lindley([0.0, 1.0], [1.0]),
        lambda: kiefer_wolfowitz([0.0], [1.0], servers=0),
        lambda: little([0.0], [1.0, 2.0]),
    ],
)
def test_senseless_arguments_are_refused(call):
    with pytest.raises(ValueError, match=r"\d"):
        call()


@given(paths)
def test_lindley_agrees_with_its_closed_form(path):
    gaps, service = np.array(path).T
    arrival = np.cumsum(gaps)
    x = np.concatenate([[0.0], np.cumsum(service[:-1] - np.diff(arrival))])
    expected = x - np.minimum.accumulate(x)
    assert lindley(arrival, service) == pytest.approx(expected, abs=1e-9)


@given(paths, st.integers(1, 5))
def test_kiefer_wolfowitz_agrees_with_a_walk_over_all_servers(path, servers):
    gaps, service = np.array(path).T
    arrival = np.cumsum(gaps)
    free = np.zeros(servers)
    for a, s, waited in zip(
        arrival, service, kiefer_wolfowitz(arrival, service, servers), strict=True
    ):
        first = int(np.argmin(free))
        start = max(a, free[first])
        assert waited == start - a
        free[first] = start + s


@given(paths)
def test_littles_law_is_an_identity_on_any_path_that_ends_empty(path):
    arrival, stay = np.array(path).T
    sides = little(arrival, arrival + stay)
    assert sides.area == pytest.approx(sides.sojourns, rel=1e-9, abs=1e-9)
    _, n = number_in_system(arrival, arrival + stay)
    assert n[-1] == 0.0
    assert n.min() >= 0.0


def test_a_long_path_has_the_mean_wait_of_pollaczek_khinchine():
    rng = np.random.default_rng(1)
    n, replications = 20_000, 20
    found = []
    for _ in range(replications):
        service = rng.gamma(2.0, 0.5, n)  # mean 1, squared coefficient of variation 1/2
        arrival = np.cumsum(rng.exponential(1 / 0.7, n))
        found.append(lindley(arrival, service)[n // 10 :].mean())
    half = 3.0 * np.std(found, ddof=1) / replications**0.5
    assert abs(np.mean(found) - mg1(0.7, 1.0, scv=0.5).wait_s) < half


def test_a_long_path_has_the_mean_wait_of_erlang_c():
    rng = np.random.default_rng(2)
    n, replications = 20_000, 20
    found = []
    for _ in range(replications):
        arrival = np.cumsum(rng.exponential(1 / 3.2, n))
        found.append(kiefer_wolfowitz(arrival, rng.exponential(1.0, n), 4)[n // 10 :].mean())
    half = 3.0 * np.std(found, ddof=1) / replications**0.5
    assert abs(np.mean(found) - mmc(3.2, 1.0, 4).wait_s) < half
