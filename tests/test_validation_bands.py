"""Bands of measured runs and how often measurements lie inside."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from simulator.cli import app
from simulator.errors import InputError
from simulator.report.bands import coverage_block
from simulator.uncertainty import EngineSpread
from simulator.validation.rows import rows_table
from simulator.validation.serving.bands import (
    CLIENT,
    RunBand,
    coverage,
    log_normal,
    rows_with_bands,
    run_bands,
    spread_in,
    with_bands,
)
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.predict import Prediction, predict
from simulator.validation.serving.runs import MeasuredRun, read_runs
from simulator.validation.serving.scores import joined, output_rows


@pytest.fixture(scope="module")
def run() -> MeasuredRun:
    """The quickest kind of run: one documented client, few requests in flight."""
    found = [r for r in read_runs(bundled_runs()) if r.usable and r.documented and not r.prefill]
    return min((r for r in found if r.engine == "vllm"), key=lambda r: r.concurrency * r.osl)


def test_the_band_is_log_normal() -> None:
    lo, hi = log_normal(100.0, 0.2)
    assert lo == pytest.approx(100 * math.exp(-1.6449 * 0.2), rel=1e-4)
    assert hi == pytest.approx(100 * math.exp(+1.6449 * 0.2), rel=1e-4)
    assert log_normal(7.0, 0.0) == (7.0, 7.0)


def test_spread_counts_a_shift_and_leaves_out_what_is_undefined() -> None:
    assert spread_in([0.3, -0.3]) == pytest.approx(0.3)
    assert spread_in([0.3, 0.3, math.nan]) == pytest.approx(0.3)
    assert math.isnan(spread_in([]))


def test_coverage_counts_measurements_between_the_ends() -> None:
    table = pd.DataFrame(
        {
            "ttft": [10.0, 10.0, 10.0, 10.0],
            "ttft_lo": [9.0, 10.5, 1.0, math.nan],
            "ttft_hi": [11.0, 12.0, 2.0, math.nan],
            "tpot": [5.0] * 4,
            "tpot_lo": [5.0] * 4,
            "tpot_hi": [6.0] * 4,
        }
    )
    assert coverage(table) == {"ttft": pytest.approx(1 / 3), "tpot": 1.0}
    assert math.isnan(coverage(table.iloc[3:])["ttft"])


def test_a_run_has_the_same_band_whatever_the_workers_and_a_wider_one_of_a_wider_spread(
    run: MeasuredRun,
) -> None:
    predictions = [predict(run), Prediction(0, reason="none")]
    runs = [run, run]
    one, none = run_bands(runs, predictions, draws=3)
    again = run_bands(runs, predictions, draws=3, jobs=2)[0]
    assert again == one
    assert math.isnan(none.tpot[0])
    for metric in ("ttft", "tpot"):
        at = getattr(predictions[0], f"{metric}_ms")
        lo, hi = getattr(one, metric)
        assert lo < at < hi
        assert lo * hi == pytest.approx(at * at)
    wide = EngineSpread(overhead=2.0, front=2.0, prefill=0.5, step=1.0)
    wider = run_bands(runs[:1], predictions[:1], draws=3, spread=wide)[0]
    assert wider.tpot[1] > one.tpot[1]
    assert wider.ttft[1] > one.ttft[1]


def test_bands_go_into_tables_and_rows(run: MeasuredRun) -> None:
    p = Prediction(run.row, ttft_ms=run.ttft_ms, tpot_ms=run.tpot_ms, latency_ms=1.0)
    inside = RunBand(run.row, log_normal(run.ttft_ms, 0.1), log_normal(2 * run.tpot_ms, 0.1))
    table = with_bands(joined([run], [p]), [inside])
    assert coverage(table) == {"ttft": 1.0, "tpot": 0.0}
    rows = rows_with_bands(rows_table(output_rows("t", [run], [p])), [inside])
    assert list(rows["lo"]) == [inside.ttft[0], inside.tpot[0]]
    assert list(rows["hi"]) == [inside.ttft[1], inside.tpot[1]]
    block = coverage_block(table.assign(relevant=True, usable=True, queue_dominated=False))
    cells = {row[0]: row[1:] for row in block.rows}
    assert next(iter(cells.values())) == ("1", "100 %", "1.39", "0 %", "1.39")


def test_an_inferred_client_widens_ttft(run: MeasuredRun, monkeypatch: Any) -> None:
    from dataclasses import replace

    from simulator.validation.serving import bands

    prediction = predict(run)
    known = run_bands([run], [prediction], draws=2)[0]
    client = bands.client_of(run)
    monkeypatch.setattr(bands, "client_of", lambda _: replace(client, known=False))
    guessed = run_bands([run], [prediction], draws=2)[0]
    assert guessed.tpot == known.tpot
    half = 0.5 * math.log(guessed.ttft[1] / guessed.ttft[0])
    assert half > 1.64 * CLIENT[False]


def test_bad_input() -> None:
    with pytest.raises(InputError, match="draws: found 1"):
        run_bands([], [], draws=1)
    for args, said in (
        (["validate", "--uncertainty", "12"], "--uncertainty has no effect without --serving"),
        (["validate", "--serving", "--uncertainty", "0"], "--uncertainty: found 0; allowed"),
    ):
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 2
        assert said in result.stderr
