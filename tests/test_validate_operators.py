"""Kernels predicted one by one: every row answered, forms applied as in a step, bad tables refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from hwprofiles import load_gpu
from simulator.cli.app import app
from simulator.errors import InputError
from simulator.validation.operators import scores as scoring
from simulator.validation.operators.scores import scores, validate_tables
from simulator.validation.operators.tables import read_tables

runner = CliRunner()


def gemm_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "framework": ["vllm", "vllm", "elsewhere", "vllm"],
            "dtype": ["bfloat16", "bfloat16", "bfloat16", "int3"],
            "m": [1, 4096, 16, 16],
            "n": [8192, 8192, 8192, 8192],
            "k": [8192, 8192, 32, 8192],
            "latency_us": [50.0, 800.0, 5.0, 50.0],
        }
    )


def comm_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "framework": ["vllm", "vllm", "nccl"],
            "op": ["all_reduce", "all_gather", "all_reduce"],
            "n_gpus": [4, 4, 8],
            "bytes": [65536, 65536, 2**20],
            "latency_us": [8.0, 9.0, 30.0],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gemm_frame().to_parquet(tmp_path / "h100_sxm_gemm.parquet")
    comm_frame().to_parquet(tmp_path / "h100_sxm_comm.parquet")
    return tmp_path


def test_every_row_has_a_prediction_or_a_reason(folder: Path) -> None:
    found = validate_tables(read_tables(folder))
    assert found["row"].tolist() == [0, 1, 2, 0, 1, 2, 3]
    missing = found["predicted_us"].isna()
    assert missing.tolist() == [False, True, False, False, False, False, True]
    assert (found.loc[missing, "note"] != "").all()
    assert "all_gather" in found.loc[1, "note"]
    assert "int3" in found.loc[6, "note"]


def test_a_stranger_gets_the_default_kernels_and_a_note(folder: Path) -> None:
    found = validate_tables(read_tables(folder))
    stranger = found[found["framework"] == "elsewhere"].iloc[0]
    default = load_gpu("h100_sxm").kernels[0].name
    assert stranger["note"] == f"kernels of {default} stand in for elsewhere"


def test_large_weights_take_bytes_over_bandwidth_and_flops_over_peak(folder: Path) -> None:
    gpu = load_gpu("h100_sxm")
    found = validate_tables(read_tables(folder)).query("operator == 'gemm'")
    one, many = found["predicted_us"].iloc[0], found["predicted_us"].iloc[1]
    read_us = 2 * 8192 * 8192 / gpu.memory_bytes_per_s.value * 1e6
    flops_us = 2 * 4096 * 8192 * 8192 / gpu.bf16_flops.value * 1e6
    assert read_us < one < 1.4 * read_us  # nothing beats the data sheet, and the model is near it
    assert flops_us < many < 1.5 * flops_us
    assert found["naive_us"].iloc[0] == pytest.approx(
        (2 * 8192 * 8192 + 4 * 8192) / gpu.memory_bytes_per_s.value * 1e6
    )


def test_small_or_odd_shapes_are_marked_extrapolated(folder: Path) -> None:
    found = validate_tables(read_tables(folder)).query("operator == 'gemm'")
    assert found["extrapolated"].tolist() == [False, False, True, False]


def test_scores_are_of_the_signed_errors() -> None:
    frame = pd.DataFrame(
        {
            "gpu": "g",
            "operator": "gemm",
            "framework": "f",
            "dtype": "d",
            "fitted": False,
            "region": ["cold", "cold", "cold", "other"],
            "predicted_us": [1.1, 0.8, np.nan, 5.0],
            "error": [0.1, -0.2, np.nan, 4.0],
            "naive_error": [-0.5, -0.7, -0.5, 0.0],
        }
    )
    row = scores(frame).iloc[0]
    assert row["rows"] == 2
    assert row["mape"] == pytest.approx(0.15)
    assert row["bias"] == pytest.approx(-0.05)
    assert row["naive"] == pytest.approx(0.6)


def test_a_shape_counts_as_fitted_only_for_the_kernels_it_was_fitted_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {("h100_sxm", "gemm", "vllm", "bfloat16"): {(8192, 8192)}}
    monkeypatch.setattr(scoring, "fitted_shapes", lambda: known)
    found = validate_tables(read_tables(folder)).query("operator == 'gemm'")
    assert found["fitted"].tolist() == [True, True, False, False]


def test_rows_file_has_the_contract(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    result = runner.invoke(app, ["validate", "--operators", str(folder), "--rows", str(out)])
    assert result.exit_code == 0, result.output
    rows = pd.read_parquet(out)
    assert list(rows.columns) == [
        "table", "row", "metric", "measured", "predicted", "unit", "extrapolated", "note",
    ]  # fmt: skip
    assert set(rows["table"]) == {"h100_sxm_gemm", "h100_sxm_comm"}
    assert (rows["unit"] == "us").all()
    assert (rows["metric"] == "latency_us").all()
    assert len(rows) == 7


def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_tables(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no \.parquet file"):
        read_tables(tmp_path)
    frame = gemm_frame()
    frame.to_parquet(tmp_path / "h100_sxm_gem.parquet")
    with pytest.raises(InputError, match="the name says no operator"):
        read_tables(tmp_path)
    (tmp_path / "h100_sxm_gem.parquet").unlink()
    frame.to_parquet(tmp_path / "h101_sxm_gemm.parquet")
    with pytest.raises(InputError, match=r"h101_sxm.*unknown.*h100_sxm"):
        read_tables(tmp_path)
    (tmp_path / "h101_sxm_gemm.parquet").unlink()
    frame.drop(columns="k").to_parquet(tmp_path / "h100_sxm_gemm.parquet")
    with pytest.raises(InputError, match="column 'k' is missing"):
        read_tables(tmp_path)
    (tmp_path / "h100_sxm_gemm.parquet").write_text("m,n,k\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_tables(tmp_path)


def test_options_without_effect_are_refused(folder: Path) -> None:
    both = runner.invoke(app, ["validate", "--serving", "--operators", str(folder)])
    assert both.exit_code == 2
    stray = runner.invoke(app, ["validate", str(folder)])
    assert stray.exit_code == 2


def test_borrowing_is_scored_on_the_borrowers_own_rows(folder: Path) -> None:
    from simulator.validation.operators.borrowing import borrowing

    gemm_frame().to_parquet(folder / "a100_sxm_gemm.parquet")
    found = borrowing(read_tables(folder))
    pairs = set(zip(found["gpu"], found["lender"], strict=True))
    assert pairs == {("a100_sxm_80gb", "h100_sxm"), ("h100_sxm", "a100_sxm_80gb")}
    gemm = found[found["operator"] == "gemm"]
    assert (gemm["rows"] == 2).all()  # the default kernels' rows of the cold region
    assert (gemm["mape"] != gemm["own_mape"]).all()
