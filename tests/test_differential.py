"""The differential check against an independent estimator, with a stand-in for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import differential
import pytest

from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.predict import Prediction
from simulator.validation.serving.runs import MeasuredRun, read_runs


@pytest.fixture(scope="module")
def runs() -> list[MeasuredRun]:
    return [run for run in read_runs(bundled_runs()) if run.usable]


def test_without_the_estimator_a_sentence_and_exit_code_2(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator", None)
    assert differential.main([]) == 2
    said = capsys.readouterr()
    assert "aiconfigurator, which is not installed" in said.err
    assert said.out == ""


def test_another_interface_is_said_to_be_unknown(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "aiconfigurator", ModuleType("aiconfigurator"))
    for name in ("aiconfigurator.cli", "aiconfigurator.cli.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert differential.main([]) == 2
    assert "has no cli_estimate" in capsys.readouterr().err


def test_the_estimator_is_asked_for_the_deployment_that_was_measured(
    monkeypatch: Any, runs: list[MeasuredRun]
) -> None:
    asked = {}

    def estimate(model: str, gpu: str, **given: Any) -> SimpleNamespace:
        asked[model, gpu] = given
        return SimpleNamespace(ttft=12.0, tpot=3.0)

    _install(monkeypatch, estimate)
    estimator = differential.load_estimator()
    agg = next(r for r in runs if r.prefill is None and r.workers.instances == 1)
    assert estimator(agg) == (12.0, 3.0)
    given = asked[agg.model, agg.gpu]
    assert given["mode"] == "agg"
    assert (given["isl"], given["osl"], given["tp_size"]) == (agg.isl, agg.osl, agg.workers.tp)
    assert given["batch_size"] == max(1, round(agg.concurrency / agg.workers.attention_dp))
    split = next(r for r in runs if r.prefill is not None)
    given = differential.arguments(split)
    assert given["mode"] == "disagg"
    assert given["prefill_num_workers"] == split.prefill.instances  # type: ignore[union-attr]
    assert given["decode_num_workers"] == split.workers.instances


def test_a_model_it_cannot_fetch_is_handed_over_as_a_configuration(
    monkeypatch: Any, runs: list[MeasuredRun]
) -> None:
    class DownloadError(Exception):
        pass

    def estimate(model: str, gpu: str, **given: Any) -> SimpleNamespace:
        if not Path(model).is_absolute():
            raise DownloadError(model)
        config = json.loads((Path(model) / "config.json").read_text())
        return SimpleNamespace(ttft=config["num_hidden_layers"], tpot=1.0)

    _install(monkeypatch, estimate)
    llama = next(r for r in runs if r.model == "meta-llama/Llama-3.1-70B")
    assert differential.load_estimator()(llama) == (80.0, 1.0)


def test_a_checkpoint_of_one_format_is_not_given_another(runs: list[MeasuredRun]) -> None:
    asked = {"gpt-oss" in r.model: differential.arguments(r) for r in runs if r.gemm}
    assert "gemm_quant_mode" not in asked[True]
    assert "gemm_quant_mode" in asked[False]


def _install(monkeypatch: Any, estimate: Any) -> None:
    """An estimator of that name whose point estimate is ``estimate``."""
    for name in ("aiconfigurator", "aiconfigurator.cli", "aiconfigurator.cli.api"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["aiconfigurator.cli.api"].cli_estimate = estimate  # type: ignore[attr-defined]


def test_both_errors_stand_in_one_table_over_the_same_runs(runs: list[MeasuredRun]) -> None:
    some = runs[:4]
    ours = [
        Prediction(r.row, ttft_ms=1.1 * r.ttft_ms, tpot_ms=0.8 * r.tpot_ms) for r in some[:3]
    ] + [Prediction(some[3].row, reason="no profile")]

    def estimator(run: MeasuredRun) -> tuple[float, float]:
        if run is some[0]:
            raise KeyError("no table")
        return 1.5 * run.ttft_ms, 1.3 * run.tpot_ms

    pairs = differential.compared(some, ours, estimator)
    assert [p.reason.split(":")[0] for p in pairs] == ["not estimated", "", "", "not simulated"]
    text = differential.lines(differential.table(pairs))
    assert text[-1] == "| all | 2 | 10 / 10 | 50 / 50 | 20 / 20 | 30 / 30 |"
    assert len(differential.lines(differential.table([]))) == 2
    assert "- 1 runs not simulated: no profile" in differential.report(pairs)
    assert differential.short("row 3: OOM: '/tmp/x' is large. Try") == "OOM: it is large"
