"""From rows to a profile: known parameters come back, and a processor's profile simulates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from calibration.bench import bench
from calibration.fit import Calibration, calibrate, fitted_files
from calibration.rows import frame, write_rows
from hwprofiles import GpuProfile, NvlinkAllReduce, load_gpu
from simulator.cli.app import app
from simulator.errors import InputError
from tests.calibration_kit import DECODE, GEMM, H100, NVLINK, PREFILL, synthetic_rows

FILES = [
    "my_h100.yaml",
    "my_h100.html",
    "my_h100.md",
    "my_h100_all_reduce_nvlink.png",
    "my_h100_decode_attention_bf16.png",
    "my_h100_elementwise.png",
    "my_h100_gemm_bf16.png",
    "my_h100_gemm_fp8.png",
    "my_h100_prefill_attention_bf16.png",
]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame(synthetic_rows(H100, noise=0.03))


@pytest.fixture(scope="module")
def with_base(data: pd.DataFrame) -> Calibration:
    return calibrate(data, "my_h100", load_gpu("h100_sxm"))


def loaded(found: Calibration, tmp_path: Path) -> GpuProfile:
    path = tmp_path / f"{found.name}.yaml"
    path.write_text(found.text, encoding="utf-8")
    return load_gpu(path)


# --- parameters ------------------------------------------------------------------------------


def test_known_parameters_come_back_within_their_errors(
    with_base: Calibration, tmp_path: Path
) -> None:
    gpu = loaded(with_base, tmp_path)
    family = gpu.family()
    assert isinstance(family.all_reduce, NvlinkAllReduce)
    sections: list[tuple[Any, dict[str, float]]] = [
        (dict(family.gemm)["bf16"], GEMM),
        (dict(family.gemm)["fp8"], GEMM),
        (dict(family.decode_attention)["bf16"], DECODE),
        (dict(family.prefill_attention)["bf16"], PREFILL),
        (family.all_reduce, NVLINK),
    ]
    for section, truth in sections:
        for name, value in truth.items():
            param = getattr(section, name)
            assert param.source.kind == "fitted"
            assert param.stderr is not None, name
            assert abs(param.value - value) < 4.0 * param.stderr, name
            assert abs(param.value / value - 1.0) < 0.25, name
        assert 0.01 < section.error.value < 0.06  # of 3 % noise
        assert section.correlations


def test_the_fastest_kernel_is_the_engines_choice(with_base: Calibration) -> None:
    found = {fitted.path: fitted for fitted in with_base.operators}
    assert found["decode_attention", "bf16"].kernel == "torch_sdpa_cudnn"
    assert found["prefill_attention", "bf16"].rows == 12


def test_without_noise_nothing_is_left_over() -> None:
    exact = calibrate(frame(synthetic_rows(H100, noise=0.0)), "x", load_gpu("h100_sxm"))
    for fitted in exact.operators:
        assert fitted.fit_error == pytest.approx(0.0, abs=1e-3), fitted.name
        assert fitted.held_out == pytest.approx(0.0, abs=2e-3), fitted.name


# --- the data sheet --------------------------------------------------------------------------


def test_device_facts_are_its_own_and_peaks_the_bases(
    with_base: Calibration, tmp_path: Path
) -> None:
    gpu = loaded(with_base, tmp_path)
    assert gpu.memory_bytes.value == H100.memory_bytes
    assert gpu.memory_bytes.source.kind == "measured"
    assert "NVIDIA H100 80GB HBM3, driver 570.1, CUDA 12.8, torch 2.13.0, 2026-01-02" in str(
        gpu.memory_bytes.source
    )
    assert gpu.bf16_flops.value == 989e12
    assert gpu.bf16_flops.source.text.startswith("as h100_sxm: ")
    assert gpu.calibrated


def test_without_a_base_peaks_are_the_highest_rates(data: pd.DataFrame, tmp_path: Path) -> None:
    found = calibrate(data, "my_h100")
    gpu = loaded(found, tmp_path)
    assert 0.9 * 0.8 * 989e12 < gpu.bf16_flops.value < 1.1 * 0.8 * 989e12
    assert gpu.bf16_flops.value <= gpu.peak_flops("fp8") <= 2.0 * gpu.bf16_flops.value
    assert 0.8 * 3.35e12 < gpu.memory_bytes_per_s.value < 3.7e12
    assert gpu.tdp_w.value == 500.0
    assert gpu.nvlink_bytes_per_s is None  # no peer copies among these rows
    assert isinstance(gpu.family().all_reduce, tuple)
    assert any("highest rates seen here" in note for note in found.page.notes)


def test_what_was_not_measured_is_the_bases(data: pd.DataFrame, tmp_path: Path) -> None:
    some = data[~data["operator"].isin(["comm", "elementwise"])]
    base = load_gpu("h100_sxm")
    gpu = loaded(calibrate(some, "my_h100", base), tmp_path)
    assert isinstance(gpu.family().all_reduce, NvlinkAllReduce)
    assert gpu.family().all_reduce.t0_s.source.kind == "borrowed"
    assert gpu.family().elementwise.memory_eff.value == base.family().elementwise.memory_eff.value
    with pytest.raises(InputError, match="no rows of elementwise, and no --base"):
        calibrate(some, "my_h100")


def test_profile_is_the_same_every_time(data: pd.DataFrame, with_base: Calibration) -> None:
    assert calibrate(data, "my_h100", load_gpu("h100_sxm")).text == with_base.text
    assert yaml.safe_load(with_base.text)["name"] == "my_h100"


# --- the command -----------------------------------------------------------------------------


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["calibrate", "fit", *args])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write_rows(synthetic_rows(H100, noise=0.03), path)
    return path


def test_command_writes_profile_page_and_figures(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(str(file), "--name", "my_h100", "--base", "h100_sxm", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert "gemm.bf16.compute_eff" in result.output
    assert f"Wrote {out / 'my_h100.yaml'}" in result.output
    page = (out / "my_h100.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 6
    assert "<h2>Parameters</h2>" in page
    text = (out / "my_h100.md").read_text(encoding="utf-8")
    assert all(f"({name})" in text for name in FILES[3:])
    assert "## Fits" in text


def test_rows_can_be_validated_against_a_bundled_profile(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    arguments = ["calibrate", "tables", str(file), "--gpu", "h100", "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert sorted(path.stem for path in out.iterdir()) == [
        "h100_sxm_attn_decode",
        "h100_sxm_attn_prefill",
        "h100_sxm_comm",
        "h100_sxm_gemm",
    ]
    scored = tmp_path / "scores.parquet"
    arguments = ["validate", "--operators", str(out), "--rows", str(scored)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = pd.read_parquet(scored)
    gemm = found[found["table"].eq("h100_sxm_gemm")]
    assert len(gemm) == 96
    ratio = gemm["predicted"] / gemm["measured"]
    assert 0.7 < ratio.median() < 1.3  # it obeys nearly the bundled parameters


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["none.parquet", "--name", "x"], "file 'none.parquet' does not exist"),
        (["{file}", "--name", "My GPU"], "--name 'My GPU' cannot name a profile"),
        (["{file}", "--name", "x", "--base", "h1000"], "GPU 'h1000' is unknown; did you mean"),
        (["{file}", "--name", "x", "--out", "{file}"], "it is a file, not a folder."),
    ],
)
def test_bad_input(file: Path, tmp_path: Path, args: list[str], sentence: str) -> None:
    given = [arg.format(file=file) for arg in args]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "out")]
    result = run(*given)
    assert result.exit_code == 2
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operator", ["gemm", "attn_decode", "attn_prefill"])
def test_too_few_rows(data: pd.DataFrame, operator: str) -> None:
    few = data[~data["operator"].eq(operator) | (data.groupby("operator").cumcount() < 3)]
    with pytest.raises(InputError, match=f"3 rows of {operator} are too few to fit"):
        calibrate(few, "x")


# --- a processor, from end to end ------------------------------------------------------------


def test_a_processors_profile_simulates(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = tmp_path / "cpu.parquet"
    operators = ["gemm", "attn_prefill", "attn_decode", "elementwise", "copy"]
    try:
        bench(rows, device="cpu", quick=True, operators=operators)
    finally:
        torch.set_num_threads(threads)
    found, files = fitted_files(rows, "my_cpu", tmp_path / "out")
    assert any("No all-reduce was measured" in note for note in found.page.notes)
    gpu = load_gpu(files[0])
    assert gpu.bf16_flops.source.kind == "measured"
    for pool in ("prefill", "decode"):
        assert gpu.family().name == "torch", pool
    changes = [f"pools.{pool}.gpu={files[0]}" for pool in ("prefill", "decode")]
    changes += ["prices.my_cpu=0.1", "workload.rate_rps=0.0001", "workload.requests=5"]
    arguments = [part for change in changes for part in ("--set", change)]
    result = CliRunner().invoke(app, ["simulate", "quick_8b", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["requests"]["completed"] == 5
    assert summary["ttft_s"]["mean"] > 1.0  # 8 billion parameters on one thread
    shown = CliRunner().invoke(app, ["hardware", str(files[0]), "--model", "llama-3.1-8b"])
    assert shown.exit_code == 0, shown.output
