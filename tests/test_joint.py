"""Parameters that were fitted together are kept, checked and drawn together."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from hwprofiles import GpuProfile, Param, Source, load_gpu
from hwprofiles.joint import (
    MOST_STDERR,
    correlations_of,
    log_covariance,
    read_correlations,
)
from hwprofiles.node import Node
from hwprofiles.scaling import scaled
from simulator.errors import ProfileError
from simulator.uncertainty import draw_factors

PATH = "kernels.vllm.prefill_attention.bf16"
SOURCE = Source("fitted", "test")


def with_params(gpu: GpuProfile, **changes: Any) -> GpuProfile:
    """The GPU with other prefill attention, and no other operator that has standard errors."""
    first = gpu.kernels[0]
    params = dict(first.prefill_attention)["bf16"]
    section = (("bf16", replace(params, **changes)),)
    bare = replace(
        first, prefill_attention=section, gemm=(), decode_attention=(), moe=(), mla_decode=(),
        mla_prefill=(), all_reduce=None, all_to_all=None,
    )  # fmt: skip
    return replace(gpu, kernels=(bare,))


def param(value: float, stderr: float) -> Param:
    return Param(value, "1", SOURCE, stderr)


PAIR = {
    "t0_s": Param(1e-5, "s", SOURCE, 1e-6),
    "compute_eff": param(0.7, 0.035),
    "memory_eff": param(0.5, 0.01),
}


def logs(gpu: GpuProfile, name: str, count: int = 400) -> np.ndarray[Any, np.dtype[np.float64]]:
    drawn = draw_factors([], [gpu], count, seed=5)
    return np.array([d.parameters[gpu.name][f"{PATH}.{name}"] for d in drawn])


def test_errors_that_go_together_are_drawn_together() -> None:
    pair = (("t0_s", "compute_eff", -0.9),)
    gpu = with_params(load_gpu("h100_sxm"), **PAIR, correlations=pair)
    fixed, compute, memory = (logs(gpu, name) for name in PAIR)
    assert np.corrcoef(fixed, compute)[0, 1] == pytest.approx(-0.9, abs=0.05)
    assert abs(np.corrcoef(fixed, memory)[0, 1]) < 0.15
    # still one value in each slice: a Latin hypercube, whatever the order
    assert compute.std() == pytest.approx(0.05, rel=0.02)
    slices = np.floor(400 * norm.cdf(compute / np.sqrt(log_covariance_of(gpu)[1, 1]))).astype(int)
    assert len(set(slices.tolist())) > 395  # the last digit may fall on either side of an edge
    alone = with_params(load_gpu("h100_sxm"), **PAIR, correlations=())
    assert abs(np.corrcoef(logs(alone, "t0_s"), logs(alone, "compute_eff"))[0, 1]) < 0.15


def log_covariance_of(gpu: GpuProfile) -> np.ndarray[Any, np.dtype[np.float64]]:
    return log_covariance(dict(gpu.kernels[0].prefill_attention)["bf16"])[1]


def test_a_sum_that_is_known_stays_known_though_its_parts_are_not() -> None:
    """The spread of a time by the delta method, from the covariance of the fit."""
    pair = (("t0_s", "compute_eff", 0.95),)
    gpu = with_params(load_gpu("h100_sxm"), **PAIR, correlations=pair)
    times = []
    for draw in draw_factors([], [gpu], 400, seed=2):
        drawn = dict(scaled(gpu, {}, draw.parameters[gpu.name]).parameters())
        # fixed cost and compute take as long as each other
        parts = drawn[f"{PATH}.t0_s"].value, 1e-5 * 0.7 / drawn[f"{PATH}.compute_eff"].value
        times.append(np.log(sum(parts)))
    gradient = np.array([0.5, -0.5, 0.0])
    expected = float(np.sqrt(gradient @ log_covariance_of(gpu) @ gradient))
    assert float(np.std(times)) == pytest.approx(expected, rel=0.12)


def test_what_rows_do_not_tell_keeps_its_prior() -> None:
    gpu = with_params(load_gpu("h100_sxm"), compute_eff=param(0.7, 50.0), correlations=())
    spread = np.sqrt(np.diag(log_covariance_of(gpu)))
    assert spread.max() == pytest.approx(MOST_STDERR, rel=1e-3)
    # told together with a known sum: neither may run away, and the sum stays known
    both = {"t0_s": Param(1e-5, "s", SOURCE, 1e-4), "compute_eff": param(0.7, 7.0)}
    gpu = with_params(load_gpu("h100_sxm"), **both, correlations=(("t0_s", "compute_eff", 1.0),))
    covariance = log_covariance_of(gpu)[:2, :2]
    across = np.array([1.0, -1.0])
    assert across @ covariance @ across < 1e-9
    assert np.sqrt(covariance[0, 0]) < MOST_STDERR


def test_correlations_are_those_of_the_covariance() -> None:
    covariance = np.array([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    assert correlations_of(["a", "b", "at_bound"], covariance) == (("a", "b", -0.5),)


@pytest.mark.parametrize("name", ["h100_sxm", "h200_sxm", "a100_sxm_80gb", "l40s"])
def test_bundled_profiles_hold_them_and_borrowers_do_not(name: str) -> None:
    params = dict(load_gpu(name).family("vllm").gemm)["bf16"]
    assert params.correlations
    known = {f for f in ("t0_s", "compute_eff", "memory_eff", "p") if getattr(params, f).stderr}
    assert {one for one, _, _ in params.correlations} & known
    assert not dict(load_gpu("h100_pcie").family("vllm").gemm)["bf16"].correlations


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"compute_ef": {"t0_s": 0.1}}, "'compute_ef' is unknown; did you mean 'compute_eff'"),
        ({"head_dim_exponent": {"t0_s": 0.1}}, "'head_dim_exponent' is unknown"),
        ({"t0_s": {"compute_eff": 1.2}}, "found 1.2; allowed: a number from -1 to 1"),
        ({"t0_s": {"t0_s": 1.0}}, "found the same pair again; allowed: each pair"),
        ({"t0_s": {"memory_eff": 0.1}, "memory_eff": {"t0_s": 0.2}}, "same pair again"),
        ({"t0_s": 0.3}, "found 0.3; allowed: a mapping"),
        (
            {"t0_s": {"compute_eff": 0.9, "memory_eff": 0.9}, "compute_eff": {"memory_eff": -0.9}},
            "found correlations with the eigenvalue -0.8; allowed: a positive semi-definite matrix",
        ),
    ],
)
def test_bad_correlations_are_one_sentence(given: Any, said: str) -> None:
    known = {**PAIR, "head_dim_exponent": Param(0.45, "1", SOURCE)}
    with pytest.raises(ProfileError) as error:
        read_correlations(Node(given, "mine.yaml", "kernels.a.correlations"), known)
    message = str(error.value)
    assert message.startswith("mine.yaml: kernels.a.correlations")
    assert said in message
    assert message.endswith(".")


def test_correlations_that_errors_can_have_are_read() -> None:
    given = {"t0_s": {"compute_eff": -0.9, "memory_eff": 0.2}}
    assert read_correlations(Node(given, "mine.yaml"), PAIR) == (
        ("t0_s", "compute_eff", -0.9), ("t0_s", "memory_eff", 0.2),
    )  # fmt: skip
    assert read_correlations(None, PAIR) == ()
