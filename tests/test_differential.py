"""The differential check: both errors on the rows both predict."""

from __future__ import annotations

import math

import differential
import pandas as pd
import pytest

from simulator.validation.rows import Row, rows_table
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.runs import read_runs


def test_errors_are_taken_where_both_predict() -> None:
    mine = rows_table(
        [
            Row("t", 0, "ttft_ms", 10.0, 11.0, "ms"),
            Row("t", 1, "ttft_ms", 10.0, 5.0, "ms"),
            Row("t", 2, "ttft_ms", 10.0, 10.0, "ms"),
        ]
    )
    other = pd.DataFrame(
        {"row": [0, 1, 2], "metric": "ttft_ms", "predicted": [20.0, 10.0, math.nan]}
    )
    found = differential.errors(mine, other).set_index("estimator")
    assert found["rows"].tolist() == [2, 2]
    assert found.loc["xpyd", "mean %"] == pytest.approx(30.0)
    assert found.loc["other", "mean %"] == pytest.approx(50.0)


def test_the_naive_reference_knows_every_bundled_run() -> None:
    found = differential.naive_rows(read_runs(bundled_runs())[:20])
    assert (found["predicted"] > 0.0).all()
