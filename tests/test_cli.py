"""The command line: what it prints, where it writes, and how it refuses."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import simulator.comparison
import simulator.engine
from simulator.cli import app
from simulator.cli.progress import PATIENCE_S, LateProgress
from simulator.errors import InputError
from simulator.scenario import Scenario

ROOT = Path(__file__).resolve().parent.parent
FEW = ["--set", "workload.requests=60"]
QUICK = ["simulate", "quick_8b", *FEW]


def _run(*args: str) -> Any:
    return CliRunner().invoke(app, list(args))


def _json(*args: str) -> Any:
    result = _run(*args)
    assert result.exit_code == 0, result.output

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(result.stdout, parse_constant=refuse)


# --- help ---------------------------------------------------------------------------------------


def test_help_lists_the_commands() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    for command in ("simulate", "compare", "hardware", "scenarios", "models"):
        assert command in result.stdout
        assert _run(command, "--help").exit_code == 0


def test_version() -> None:
    result = _run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("xpyd 0.")


def test_help_does_not_wait_for_heavy_libraries() -> None:
    code = (
        "import sys; from simulator.cli import app; "
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'pydantic', 'simpy', 'pyarrow'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


# --- simulate -----------------------------------------------------------------------------------


def test_simulate_prints_the_json_contract_and_nothing_else() -> None:
    data = _json(*QUICK, "--json")
    assert list(data) == [
        "schema", "scenario", "mode", "first_token", "requests", "ttft_s", "tpot_s", "itl_s",
        "e2e_s", "waterfall_s", "goodput_rps", "slo_attainment", "throughput", "pools", "cost", "energy", "classes",
        "stable", "warnings", "not_measured", "settings", "meta",
    ]  # fmt: skip
    assert data["schema"] == 1
    assert data["requests"]["completed"] == 60
    assert sum(data["waterfall_s"].values()) == pytest.approx(data["ttft_s"]["mean"])


def test_simulate_prints_tables() -> None:
    result = _run(*QUICK)
    assert result.exit_code == 0
    for part in ("1P1D disaggregated", "first token", "TTFT", "KV peak", "per million"):
        assert part in result.stdout, part
    assert result.stderr == ""


def test_quiet_prints_nothing() -> None:
    result = _run(*QUICK, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_the_reference_path_gives_the_same_latencies() -> None:
    fast, slow = (_json(*QUICK, "--json", *extra) for extra in ([], ["--reference"]))
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert slow[metric] == pytest.approx(fast[metric], rel=1e-9)


def test_results_and_trace_are_written(tmp_path: Path) -> None:
    out, trace = tmp_path / "deep" / "out", tmp_path / "trace.json.gz"
    result = _run(*QUICK, "--seed", "9", "--out", str(out), "--trace-out", str(trace))
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == {
        "scenario.yaml", "run.json", "requests.parquet", "report.html",
        "waterfall.png", "latency_cdf.png", "timeline.png",
    }  # fmt: skip
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert str(out) in result.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"deep", "trace.json.gz"}
    # the resolved scenario records the seed, so that it gives the same run again
    assert Scenario.load(out / "scenario.yaml").seed == 9
    one = json.loads((out / "run.json").read_text(encoding="utf-8"))
    two = _json("simulate", str(out / "scenario.yaml"), "--json")
    for data in (one, two):
        data["meta"].pop("cpu_s")
    assert one == two
    assert one["meta"]["seed"] == 9
    assert one["ttft_s"] != _json(*QUICK, "--json", "--seed", "8")["ttft_s"]


# --- compare ------------------------------------------------------------------------------------


def test_compare(tmp_path: Path) -> None:
    args = ["compare", "quick_8b", *FEW, "--out", str(tmp_path)]
    data = _json(*args, "--json")
    assert data["twin"] == "inventory"
    assert data["verdict"].startswith("Disaggregated meets")
    assert json.loads((tmp_path / "compare.json").read_text(encoding="utf-8")) == data
    result = _run("compare", "quick_8b", *FEW, "--twin", "cost")
    assert result.exit_code == 0
    assert "Screened for the twin" in result.stdout
    assert _run("compare", "quick_8b", *FEW, "--quiet").output == ""


# --- catalogue ----------------------------------------------------------------------------------


def test_lists() -> None:
    names = {s["name"] for s in _json("scenarios", "--json")}
    assert {"quick_8b", "chat_70b_h100"} <= names
    assert "Is everything installed" in _run("scenarios").stdout
    models = {m["name"]: m for m in _json("models", "--json")}
    assert models["llama-3.1-70b"]["kv_bytes_per_token"]["bf16"] == 327_680
    assert "328 KB" in _run("models").stdout
    hardware = _json("hardware", "--json")
    assert {"h100_sxm", "l40s"} <= {g["name"] for g in hardware["gpus"]}
    assert hardware["prices"]["date"]
    assert "Prices of" in _run("hardware").stdout


def test_one_model_and_one_gpu() -> None:
    assert _json("models", "qwen3-8b", "--json")["layers"] == 36
    assert "8,190,735,360" in _run("models", "qwen3-8b").stdout
    assert _json("hardware", "h100", "--json")["gpu"] == "h100_sxm"
    report = _json("hardware", "h100", "--model", "llama-3.1-8b", "--tp", "2", "--batch", "8",
                   "--context", "512", "--prompt", "300", "--json")  # fmt: skip
    assert (report["tp"], report["decode"]["batch"], report["prefill"]["prompt"]) == (2, 8, 300)
    assert "all_reduce" in _run("hardware", "h100", "--model", "llama-3.1-8b", "--tp", "2").stdout


# --- bad input ----------------------------------------------------------------------------------

BAD = [
    (["simulate", "quick_9b"], "did you mean 'quick_8b'"),
    (["simulate", "missing/file.yaml"], "missing/file.yaml"),
    (["simulate", "quick_8b", "--set", "pools.decode.instnces=3"], "did you mean 'instances'"),
    (["simulate", "quick_8b", "--set", "pools.decode.instances=none"], "instances"),
    (["simulate", "quick_8b", "--set", "pools.decode.tp=3"], "allowed: 1, 2, 4"),
    (["simulate", "quick_8b", "--set", "model=llama-3.1-405b"], "does not fit|needs"),
    (["simulate", "quick_8b", "--set", "nonsense"], "--set nonsense"),
    (["simulate", "quick_8b", "--set", "slo.ttft_s=-1"], "ttft_s"),
    (["compare", "colocated_70b_h100"], "compare wants a disaggregated scenario"),
    (["models", "lama-3.1-8b"], "did you mean 'llama-3.1-8b'"),
    (["hardware", "h1000"], "did you mean"),
    (["hardware", "h100", "--model", "nope"], "nope"),
    (["hardware", "h100", "--model", "llama-3.1-8b", "--tp", "3"], "allowed: 1, 2, 4"),
    (["hardware", "h100", "--tp", "2"], "--tp has no effect without --model"),
    (["hardware", "--batch", "2"], "--batch has no effect without the NAME"),
    (["hardware", "--model", "llama-3.1-8b"], "--model has no effect without the NAME"),
]


@pytest.mark.parametrize(("args", "said"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(args: list[str], said: str) -> None:
    result = _run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("xpyd: ")
    assert any(part in line for part in said.split("|")), line


@pytest.mark.parametrize(
    "args",
    [
        ["simulate"],
        ["simulate", "quick_8b", "--seed", "-1"],
        ["simulate", "quick_8b", "--seed", "x"],
        ["simulate", "quick_8b", "--nonsense"],
        ["compare", "quick_8b", "--twin", "nonsense"],
        ["hardware", "h100", "--tp", "0"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(args: list[str]) -> None:
    result = _run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.fixture
def never_simulates(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the simulation ran")

    monkeypatch.setattr(simulator.engine, "simulate", fail)
    monkeypatch.setattr(simulator.comparison, "compare", fail)


@pytest.mark.usefixtures("never_simulates")
@pytest.mark.parametrize("command", ["simulate", "compare"])
@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_an_unusable_folder_is_refused_before_the_run(
    tmp_path: Path, command: str, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    result = _run(command, "quick_8b", "--out", str(tmp_path / place))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"xpyd: cannot write to --out {tmp_path / place}: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("never_simulates")
@pytest.mark.parametrize("place", ["", "missing/trace.json"])
def test_an_unusable_trace_file_is_refused_before_the_run(tmp_path: Path, place: str) -> None:
    out = tmp_path / "out"
    result = _run(*QUICK, "--out", str(out), "--trace-out", str(tmp_path / place))
    assert result.exit_code == 2
    assert "cannot write to --trace-out" in result.stderr
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.usefixtures("never_simulates")
def test_a_read_only_folder_is_refused_before_the_run(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = _run(*QUICK, "--out", str(tmp_path))
    tmp_path.chmod(0o700)
    assert result.exit_code == 2
    assert "permission denied" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "xpyd: interrupted\n"),
        (InputError("It\nis wrong."), 2, "xpyd: It is wrong.\n"),
    ],
)
def test_what_breaks_a_run_off_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simulator.engine, "simulate", broken)
    out, trace = str(tmp_path / "a" / "b"), str(tmp_path / "t.json")
    result = _run(*QUICK, "--out", out, "--trace-out", trace)
    assert (result.exit_code, result.stderr) == (code, said)
    assert list(tmp_path.iterdir()) == []


# --- progress -----------------------------------------------------------------------------------


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("simulator.cli.progress.time.monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("terminal", "quiet", "waited", "shown"),
    [
        ("1", False, PATIENCE_S + 0.1, True),
        ("1", False, PATIENCE_S - 0.1, False),
        ("1", True, PATIENCE_S + 0.1, False),
        ("", False, PATIENCE_S + 0.1, False),
    ],
)
def test_progress_appears_late_and_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: str,
    quiet: bool,
    waited: float,
    shown: bool,
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", terminal)
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = _Clock(monkeypatch)
    with LateProgress(quiet=quiet) as bar:
        clock.now += waited
        bar.simulating(5, 10)
        bar.simulating(10, 10)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("simulating" in captured.err) == shown


# --- the installed command ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code"), [([*QUICK, "--json"], 0), (["models", "nonsense"], 2)], ids=["good", "bad"]
)
def test_in_a_process_of_its_own(args: list[str], code: int) -> None:
    command = [sys.executable, "-W", "error", "-m", "simulator.cli", *args]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == code, found.stderr
    if code == 0:
        assert found.stderr == ""
        assert json.loads(found.stdout)["requests"]["arrived"] == 60
    else:
        assert found.stdout == ""
        (line,) = found.stderr.strip().splitlines()
        assert line.startswith("xpyd: model 'nonsense' is unknown")
