"""Constants of the bundled engines: the fit finds what runs were made with, and what is written is read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import simulator.engine_profiles
from calibration.engines.fit import Constant, Formula, Problem
from calibration.engines.plan import GENERATIONS, PRIORS, Generation, generation_of, thinned
from calibration.engines.spread import needed
from calibration.engines.write import rounded, written
from simulator.engine_profiles import load_engine
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.runs import read_runs
from simulator.validation.serving.split import fitted


class Known(Problem):
    """A problem whose times are a formula with a known optimum."""

    truth = np.array([0.5, -0.8])

    def logs(self, x):  # type: ignore[no-untyped-def]
        n = len(self.rows)
        share = np.stack([np.linspace(0.1, 0.6, n), np.linspace(0.5, 0.1, n)], axis=1)
        own = Formula(self.priors, np.zeros(2), np.zeros(n), share)
        return own(x) - own(self.truth)


def test_a_fit_finds_what_the_runs_were_made_with() -> None:
    runs = [run for run in read_runs(bundled_runs()) if run.engine == "vllm"][:40]
    problem = Known(runs, load_engine("vllm"), ("c0_s", "sustained_fp8"))
    x, formula = problem.fit()
    assert x == pytest.approx(Known.truth, abs=0.15)  # the prior pulls towards 0
    c0, share = problem.constants(x, formula)
    assert c0.value == pytest.approx(PRIORS["c0_s"].value(0.5), rel=0.1)
    assert 0.0 < c0.stderr < c0.value
    assert share.value < 1.0
    left_out = problem.misses(x, formula)
    assert max(abs(miss.left_out) for miss in left_out) < 0.2


def test_shares_end_at_one_and_overheads_of_experts_may_be_negative() -> None:
    share, extra = PRIORS["sustained_bf16"], PRIORS["c0_experts_s"]
    assert share.value(10.0) == 1.0
    assert share.value(share.top) == pytest.approx(1.0)
    assert share.drive(np.array([share.top + 1.0])) == pytest.approx([share.centre])
    assert extra.value(-1.0) == -extra.width
    assert math.isinf(extra.top)


def test_every_fitted_deployment_belongs_to_one_generation() -> None:
    runs = [run for run in read_runs(bundled_runs()) if fitted(run)]
    assert {generation_of(run) for run in runs} == set(GENERATIONS)
    own = GENERATIONS[0].runs(runs)
    assert 0 < len(thinned(own, 2, 1e9)) <= 2 * len({run.layout + run.model for run in own})


@pytest.mark.parametrize("one", GENERATIONS, ids=lambda g: f"{g.engine}-{g.version}")
def test_what_is_written_is_read_back(one: Generation, tmp_path: Path) -> None:
    folder = Path(simulator.engine_profiles.__file__).parent
    text = (folder / f"{one.engine}.yaml").read_text(encoding="utf-8")
    some = [
        Constant("c0_s", 1.2345e-3, 3.21e-5, 0.9),
        Constant("front_s", 0.0234, 0.0123, 0.4),
    ]
    file = tmp_path / "engine.yaml"
    file.write_text(written(text, some, one.version, "fit"), encoding="utf-8")
    engine = load_engine(file).of_version(one.version)
    assert (engine["c0_s"], engine.param("c0_s").stderr) == (1.234e-3, 3.2e-5)
    assert engine["c1_s"] == load_engine(one.engine).of_version(one.version)["c1_s"]


def test_values_are_rounded_to_what_is_significant() -> None:
    assert rounded(0.023456, 0.0087) == 0.0235
    assert rounded(0.6758, 0.058) == 0.676
    with pytest.raises(ValueError, match="no_such"):
        written("a: 1\nnumbers:\n  c0_s: 1\n", [Constant("no_such", 1.0, 0.1, 0.0)], "", "fit")


def test_bands_reach_nine_in_ten_errors_whatever_a_deployments_number_of_runs() -> None:
    """Deployments count alike: ten errors of one weigh as much as one of another."""
    rng = np.random.default_rng(0)
    logs = rng.normal(0.0, 0.3, 4000)
    one = np.ones(logs.size)
    assert needed(logs, 0.0 * one, one) == pytest.approx(0.3, rel=0.05)
    assert needed(logs, 0.2 * one, one) == pytest.approx(math.sqrt(0.09 - 0.04), rel=0.1)
    assert needed(np.array([0.1, 0.1, 0.9]), np.zeros(3), np.array([0.5, 0.45, 0.05])) < 0.1
