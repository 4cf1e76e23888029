"""The fits: known parameters come back, intervals are honest, leaks and bad rows are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hwprofiles import GemmParams, Source
from simulator.errors import InputError
from simulator.perf import fits
from simulator.perf.fits import LeakError, Score, Sheet, Split
from simulator.perf.fits.attention import DECODE, PREFILL, windowed_pairs
from simulator.perf.fits.collective import ALL_REDUCE, ALL_TO_ALL, BUS
from simulator.perf.fits.elementwise import ELEMENTWISE
from simulator.perf.fits.gemm import GEMM
from simulator.perf.fits.kernel import Kernel, fit_kernel, values_of
from simulator.perf.fits.mla import MLA_DECODE, MLA_PREFILL
from simulator.perf.fits.moe import MOE
from simulator.perf.fits.split import in_share
from tests import fits_kit as kit

Fit = Callable[[pd.DataFrame, Sheet], fits.FitResult]
Shapes = Callable[[np.random.Generator], pd.DataFrame]


def bytes_only(rng: np.random.Generator) -> pd.DataFrame:
    del rng
    return pd.DataFrame({"bytes": np.geomspace(1e3, 1e9, 60).astype(int)})


def two_gpus(rng: np.random.Generator) -> pd.DataFrame:
    del rng
    return kit.messages().query("n_gpus == 2")


CASES: dict[str, tuple[Fit, Kernel, Shapes, dict[str, float]]] = {
    "gemm": (fits.fit_gemm, GEMM, kit.gemm_shapes, kit.GEMM_TRUTH),
    "decode": (
        fits.fit_decode_attention, DECODE,
        lambda rng: kit.attention_shapes(rng, "kv_len"), kit.DECODE_TRUTH,
    ),
    "prefill": (
        fits.fit_prefill_attention, PREFILL,
        lambda rng: kit.attention_shapes(rng, "isl"), kit.PREFILL_TRUTH,
    ),
    "moe": (fits.fit_moe_gemm, MOE, kit.expert_shapes, kit.MOE_TRUTH),
    "mla_decode": (
        fits.fit_mla_decode, MLA_DECODE,
        lambda rng: kit.latent_shapes(rng, "kv_len"), kit.MLA_DECODE_TRUTH,
    ),
    "mla_prefill": (
        fits.fit_mla_prefill, MLA_PREFILL,
        lambda rng: kit.latent_shapes(rng, "isl"), kit.MLA_PREFILL_TRUTH,
    ),
    "all_reduce": (fits.fit_all_reduce, ALL_REDUCE, lambda _: kit.messages(), kit.REDUCE_TRUTH),
    "bus": (fits.fit_bus_all_reduce, BUS, two_gpus, kit.BUS_TRUTH),
    "all_to_all": (fits.fit_all_to_all, ALL_TO_ALL, lambda _: kit.messages(), kit.EXCHANGE_TRUTH),
    "elementwise": (fits.fit_elementwise, ELEMENTWISE, bytes_only, kit.MOVE_TRUTH),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_known_parameters_come_back(name: str) -> None:
    fit, kernel, shapes, truth = CASES[name]
    rng = np.random.default_rng(1)
    found = fit(kit.timed(kernel, shapes(rng), truth, rng, noise=1e-5), kit.SHEET)
    assert found.operator == kernel.operator
    for key, value in truth.items():
        assert found[key].value == pytest.approx(value, rel=0.02), key
    assert found.held_out.rows > 0
    assert found.held_out.mape < 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "gemm",
        pytest.param("decode", marks=pytest.mark.slow),
        pytest.param("prefill", marks=pytest.mark.slow),
        pytest.param("mla_prefill", marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_the_truth_over_a_hundred_draws(name: str) -> None:
    # Rows of one shape share half of their error, as measured ones do.
    fit, kernel, shapes, truth = CASES[name]
    inside: list[bool] = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = kit.timed(kernel, shapes(rng), truth, rng, noise=0.04, shared=0.04)
        found = fit(rows, kit.SHEET)
        for key, value in truth.items():
            low, high = found.interval(key)
            inside.append(low <= value <= high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_ignoring_groups_would_understate_the_error() -> None:
    # The same rows, once told that a shape shares its error and once not.
    rng = np.random.default_rng(5)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.01, shared=0.08)
    told = fits.fit_gemm(Split.by_hash(rows, ("n", "k")), kit.SHEET)
    untold = fit_kernel(replace(GEMM, keys=("m", "n", "k")), rows, kit.SHEET)
    assert (told["memory_eff"].stderr or 0) > 1.5 * (untold["memory_eff"].stderr or 0)


def test_an_outlier_pulls_little() -> None:
    rng = np.random.default_rng(2)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    spoiled = rows.copy()
    spoiled.loc[rng.random(len(rows)) < 0.03, "latency_us"] *= 4.0
    assert fits.fit_gemm(spoiled, kit.SHEET)["compute_eff"].value == pytest.approx(0.8, rel=0.03)


# ------------------------------------------------------------------------------- leaks


def test_planted_held_out_rows_are_refused() -> None:
    rng = np.random.default_rng(3)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    split = Split.by_hash(rows, ("n", "k"))
    leak = split.held_out.head(1)
    with pytest.raises(LeakError, match=r"held-out rows leak into the fit: group n=\d+ k=\d+ is"):
        Split(pd.concat([split.train, leak]), split.held_out, split.keys)


def test_a_leak_of_another_row_of_a_held_out_shape_is_refused_too() -> None:
    rng = np.random.default_rng(3)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    split = Split.by_hash(rows, ("n", "k"))
    leak = split.held_out.head(1).assign(m=17)
    with pytest.raises(LeakError):
        Split(pd.concat([split.train, leak]), split.held_out, split.keys)


def test_a_split_by_finer_groups_than_the_form_demands_is_refused() -> None:
    rng = np.random.default_rng(3)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    with pytest.raises(LeakError):
        fits.fit_gemm(Split.by_hash(rows, ("m", "n", "k")), kit.SHEET)


def test_a_group_is_held_out_whatever_else_is_in_the_table() -> None:
    names = [f"n={n} k={k}" for n in range(60) for k in range(5)]
    whole = dict(zip(names, in_share(names, 0.2), strict=True))
    part = names[::7]
    assert [whole[name] for name in part] == list(in_share(part, 0.2))
    assert 0.1 < np.mean(list(whole.values())) < 0.3


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latency_us": 0.0}, "latency_us: found a time that is not positive"),
        ({"latency_us": float("nan")}, "latency_us: found a time that is not positive"),
        ({"n": 16}, "0 rows do not determine 4 parameters"),
    ],
)
def test_bad_rows_are_refused(change: dict[str, Any], sentence: str) -> None:
    rng = np.random.default_rng(4)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    with pytest.raises(InputError, match=sentence):
        fits.fit_gemm(rows.assign(**change), kit.SHEET)


def test_a_missing_column_is_named() -> None:
    rng = np.random.default_rng(4)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    with pytest.raises(InputError, match="column 'k' is missing"):
        fits.fit_gemm(rows.drop(columns="k"), kit.SHEET)


# ------------------------------------------------------------------------------- results


def test_a_result_becomes_a_section_of_a_profile() -> None:
    rng = np.random.default_rng(6)
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), kit.GEMM_TRUTH, rng, noise=0.02)
    found = fits.fit_gemm(rows, kit.SHEET)
    params = found.to_params(GemmParams, Source("fitted", "synthetic rows"))
    assert params.t0_s.unit == "s"
    assert params.t0_s.stderr == found["t0_s"].stderr
    assert params.error is not None
    assert params.error.value == found.held_out.mape
    assert {name: low for name, low, _ in params.ranges}["m"] >= 1
    one, two, value = params.correlations[0]
    spread = (found[one].stderr or 0.0) * (found[two].stderr or 0.0)
    assert (one, two) == ("t0_s", "compute_eff")
    assert value == pytest.approx(found.covariance[0, 1] / spread, abs=5e-4)
    assert values_of(params) == found.numbers | {"error": found.held_out.mape}
    with pytest.raises(InputError, match="parameter 'memory_ef' is unknown; did you mean"):
        found["memory_ef"]


def test_a_parameter_at_its_bound_has_no_standard_error() -> None:
    rng = np.random.default_rng(7)
    truth = kit.GEMM_TRUTH | {"t0_s": 0.0}
    rows = kit.timed(GEMM, kit.gemm_shapes(rng), truth, rng, noise=0.001)
    found = fits.fit_gemm(rows.assign(latency_us=rows.latency_us - 0.5), kit.SHEET)
    assert found["t0_s"].value == pytest.approx(0.0, abs=1e-8)
    assert found["t0_s"].stderr is None
    low, high = found.interval("t0_s")
    assert low == high


def test_scores_by_hand() -> None:
    score = Score.of(np.array([1.1, 0.8, 2.0]), np.array([1.0, 1.0, 2.0]))
    assert (score.rows, score.mape) == (3, pytest.approx(0.1))
    assert score.median == pytest.approx(0.1)
    assert score.bias == pytest.approx(-0.1 / 3)
    assert np.isnan(Score.of(np.empty(0), np.empty(0)).mape)


def test_windowed_pairs_by_hand() -> None:
    def one(cached: float, new: float, window: float) -> float:
        return float(windowed_pairs(np.array(cached), np.array(new), np.array(window)))

    assert one(0, 10, np.inf) == 50  # c²/2
    assert one(4, 10, np.inf) == 90  # c·p + c²/2
    assert one(0, 10, 4) == 50 - 18  # less the (10-4)²/2 beyond
    assert one(20, 10, 4) == 10 * 4  # every query reads the window
