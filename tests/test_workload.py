"""Requests, random streams, arrival processes and length distributions."""

import math
import subprocess
import sys

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.workload import ClosedLoop, Requests, arrivals, lengths, stream

N = 40_000


def sigmas(sample: np.ndarray, mean: float) -> float:
    """Distance of a sample mean from ``mean`` in standard errors; a right one stays below 4.5."""
    return abs(sample.mean() - mean) / (sample.std(ddof=1) / math.sqrt(sample.size))


# --- streams ------------------------------------------------------------------------------------


def test_a_stream_is_the_same_in_another_process() -> None:
    code = "from simulator.workload import stream; print(stream(7, 'arrivals').random())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == stream(7, "arrivals").random()


def test_streams_differ_by_name_and_by_seed() -> None:
    draws = {stream(s, n).random() for s in (0, 1) for n in ("arrivals", "lengths", "router")}
    assert len(draws) == 6


def test_streams_of_different_names_are_uncorrelated() -> None:
    a, b = stream(1, "arrivals").random(N), stream(1, "lengths").random(N)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(N)


# --- arrivals -----------------------------------------------------------------------------------


def test_constant_arrivals_are_a_grid_from_zero() -> None:
    assert arrivals.constant(4, 2.0).tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_gamma_gaps_have_the_mean_and_the_cv_asked_for(cv: float) -> None:
    gaps = np.diff(arrivals.gamma(N, 5.0, cv, stream(1, "arrivals")))
    assert sigmas(gaps, 0.2) < 4.5
    assert sigmas((gaps - 0.2) ** 2, (0.2 * cv) ** 2) < 4.5


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(arrivals.poisson(N, 5.0, stream(1, "arrivals")), prepend=0.0)
    empirical = np.arange(1, N + 1) / N
    distance = np.abs(empirical - (1.0 - np.exp(-5.0 * np.sort(gaps)))).max()
    assert distance < 2.0 / math.sqrt(N)  # Kolmogorov-Smirnov: exceeded once in 1,500 seeds


def test_poisson_counts_have_variance_equal_to_their_mean() -> None:
    t = arrivals.poisson(N, 5.0, stream(2, "arrivals"))
    counts = np.histogram(t, bins=np.arange(0.0, t[-1] - 2.0, 2.0))[0]
    assert sigmas((counts - 10.0) ** 2, 10.0) < 4.5


def test_gamma_with_cv_one_is_the_poisson_process() -> None:
    poisson = arrivals.poisson(1000, 3.0, stream(1, "arrivals"))
    gamma = arrivals.gamma(1000, 3.0, 1.0, stream(1, "arrivals"))
    np.testing.assert_allclose(gamma, poisson, rtol=1e-14)


def test_another_rate_is_the_same_sequence_stretched() -> None:
    slow = arrivals.poisson(1000, 3.0, stream(1, "arrivals"))
    fast = arrivals.poisson(1000, 6.0, stream(1, "arrivals"))
    assert (slow == 2.0 * fast).all()


def test_more_arrivals_continue_the_sequence() -> None:
    short = arrivals.gamma(100, 3.0, 2.0, stream(1, "arrivals"))
    long = arrivals.gamma(1000, 3.0, 2.0, stream(1, "arrivals"))
    assert (long[:100] == short).all()


# --- lengths ------------------------------------------------------------------------------------


def test_uniform_reaches_both_ends_equally_often() -> None:
    drawn = lengths.uniform(N, 3, 6, stream(1, "lengths"))
    counts = np.bincount(drawn, minlength=8)
    assert counts[:3].sum() == counts[7:].sum() == 0
    spread = math.sqrt(N * 0.25 * 0.75)
    assert np.abs(counts[3:7] - N / 4).max() < 4.5 * spread


def test_uniform_ratio_is_the_benchmark_clients_range() -> None:
    drawn = lengths.uniform_ratio(N, 1024, 0.8, stream(1, "lengths"))
    assert (drawn.min(), drawn.max()) == (819, 1024)  # int(1024 · 0.8) = 819, both ends included
    assert sigmas(drawn, (819 + 1024) / 2) < 4.5


def test_uniform_ratio_never_goes_below_one_token() -> None:
    assert lengths.uniform_ratio(100, 3, 0.1, stream(1, "lengths")).min() == 1


def test_lognormal_has_the_mean_and_the_cv_asked_for() -> None:
    drawn = lengths.lognormal(N, 1000.0, 0.5, stream(1, "lengths")).astype(float)
    assert sigmas(drawn, 1000.0) < 4.5
    assert sigmas((drawn - 1000.0) ** 2, 500.0**2) < 4.5
    log = np.log(drawn)
    assert sigmas(log, math.log(1000.0) - 0.5 * math.log(1.25)) < 4.5


def test_lognormal_is_clipped_not_redrawn() -> None:
    free = lengths.lognormal(N, 1024.0, 1.0, stream(1, "lengths"))
    clipped = lengths.lognormal(N, 1024.0, 1.0, stream(1, "lengths"), 64, 2048)
    assert (clipped == np.clip(free, 64, 2048)).all()


def test_lognormal_of_tiny_mean_still_has_a_token() -> None:
    assert lengths.lognormal(1000, 1.0, 3.0, stream(1, "lengths")).min() == 1


def test_lognormal_without_variation_is_fixed() -> None:
    assert (lengths.lognormal(10, 100.0, 0.0, stream(1, "x")) == lengths.fixed(10, 100)).all()


# --- requests -----------------------------------------------------------------------------------


def requests(arrival_s: list[float], **more: object) -> Requests:
    n = len(arrival_s)
    columns = {"prompt_tokens": np.full(n, 5), "output_tokens": np.full(n, 2)} | more
    return Requests(np.array(arrival_s), source="test", **columns)  # type: ignore[arg-type]


def test_requests_keep_read_only_copies_of_the_right_type() -> None:
    given = np.array([0.0, 1.0])
    made = Requests(given, np.array([1, 2], np.uint16), np.array([3, 4], np.int32), "test")
    given[0] = 9.0
    assert made.arrival_s[0] == 0.0
    assert made.prompt_tokens.dtype == made.output_tokens.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        made.prompt_tokens[0] = 7


@pytest.mark.parametrize(
    ("arrival_s", "more", "words"),
    [
        ([], {}, "at least one request"),
        ([1.0, 0.5], {}, "must not decrease, but does at request 1"),
        ([-1.0, 0.5], {}, "between 0 and"),
        ([0.0, float("nan")], {}, "not finite"),
        ([0.0, 1.7e9], {}, "1.7e\\+09"),
        ([0.0, 1.0], {"prompt_tokens": np.array([1])}, "one length"),
        ([0.0, 1.0], {"prompt_tokens": np.array([1, 0])}, "prompt_tokens of request 1 is 0"),
        ([0.0, 1.0], {"output_tokens": np.array([1.0, 2.0])}, "integers, found float64"),
        ([0.0, 1.0], {"closed_loop": ClosedLoop(2)}, "all zeros"),
    ],
)
def test_bad_requests_are_refused(
    arrival_s: list[float], more: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        requests(arrival_s, **more)


def test_a_closed_loop_needs_someone_in_it() -> None:
    with pytest.raises(InputError, match="at least 1, found 0"):
        ClosedLoop(0)


def test_cutting_by_time_is_half_open_and_moves_time_zero() -> None:
    cut = requests([0.0, 1.0, 2.0, 3.0]).between(1.0, 3.0)
    assert cut.arrival_s.tolist() == [0.0, 1.0]


def test_cutting_where_nothing_arrives_is_refused() -> None:
    with pytest.raises(InputError, match=r"from 5 s to 6 s; arrivals span 0 s to 1 s"):
        requests([0.0, 1.0]).between(5.0, 6.0)
    with pytest.raises(InputError, match="from 5 s on"):
        requests([0.0, 1.0]).between(5.0, math.inf)


def test_a_closed_loop_cannot_be_cut_by_time() -> None:
    with pytest.raises(InputError, match="closed loop"):
        requests([0.0, 0.0], closed_loop=ClosedLoop(1)).between(0.0, 1.0)


def test_faster_divides_arrivals_and_head_keeps_the_first() -> None:
    made = requests([0.0, 1.0, 4.0])
    assert made.faster(2.0).arrival_s.tolist() == [0.0, 0.5, 2.0]
    assert made.head(2).arrival_s.tolist() == [0.0, 1.0]
    assert len(made.head(99)) == 3
    with pytest.raises(InputError, match="positive"):
        made.faster(0.0)
    with pytest.raises(InputError, match="at least one"):
        made.head(0)


def test_rate_is_gaps_over_span() -> None:
    assert requests([1.0, 2.0, 5.0]).rate_rps == 0.5
    assert math.isnan(requests([1.0]).rate_rps)
