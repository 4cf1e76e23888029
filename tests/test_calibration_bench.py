"""The bench on a CPU: rows in the tables' columns, resumed without repeats, refusals in one sentence."""

from __future__ import annotations

import builtins
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from calibration import comm, rows
from calibration.bench import Session, bench
from calibration.case import Case
from calibration.clocks import ClockMonitor
from calibration.device import CpuDevice
from calibration.journal import journal_path, open_journal
from calibration.kernels import prepare
from calibration.kernels.moe import GROUPED, LOOP, routing
from calibration.rows import TABLES, read_rows, table
from simulator.cli.app import app
from simulator.errors import InputError
from tests.calibration_kit import H100, TinyDevice

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parent.parent
LIGHT = "elementwise,copy,launch"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal_path(out).read_text().splitlines()]


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["calibrate", "bench", *args])


# --- the whole -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every operator but collectives, once."""
    out = tmp_path_factory.mktemp("bench") / "cpu.parquet"
    operators = [name for name in TABLES if name != "comm"]
    found = bench(out, device="cpu", quick=True, operators=operators)
    assert found.rows == found.measured > 40
    assert (found.left, found.skipped) == (0, {})
    return out


def test_rows_carry_the_machine_and_how_they_were_timed(measured: Path) -> None:
    data = read_rows(measured)
    assert list(data.columns) == list(rows.COLUMNS)
    assert (data["latency_us"] > 0.0).all()
    assert (data["n_meas"] >= 5).all()
    assert set(data["timing"]) == {"loop"}
    assert data["torch"].unique().tolist() == [torch.__version__]
    for name in ("gpu", "driver", "date", "memory_bytes", "cache_bytes", "sms"):
        assert data[name].notna().all(), name
    assert data["sm_mhz"].isna().all()  # a processor has none to read


@pytest.mark.parametrize("operator", [name for name in TABLES if name != "comm"])
def test_tables_have_the_columns_and_types_of_the_public_ones(
    measured: Path, operator: str
) -> None:
    found = table(read_rows(measured), operator)
    assert list(found.columns) == list(TABLES[operator])
    assert len(found) >= 2
    assert found.notna().all().all()
    for name in set(found.columns) & {"m", "n", "k", "batch", "isl", "kv_len", "head_dim", "bytes"}:
        assert found[name].dtype == "int64"


def test_a_second_run_repeats_nothing(measured: Path) -> None:
    before, journal = measured.read_bytes(), journal_path(measured).read_bytes()
    found = bench(measured, device="cpu", quick=True, operators=["gemm", "moe"])
    assert found.measured == 0
    assert journal_path(measured).read_bytes() == journal
    assert measured.read_bytes() == before


def test_command_line(tmp_path: Path) -> None:
    out = tmp_path / "light.parquet"
    args = ["--out", str(out), "--device", "cpu", "--quick", "--operators", "launch"]
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("2 rows of ")
    assert run(*args, "--quiet").output == ""
    assert len(read_rows(out)) == 2


def test_time_is_up(tmp_path: Path) -> None:
    out = tmp_path / "light.parquet"
    first = bench(out, device="cpu", quick=True, operators=["launch"], minutes=0.0)
    assert (first.rows, first.left) == (0, 2)
    with pytest.raises(InputError, match="has no rows"):
        read_rows(out)
    second = bench(out, device="cpu", quick=True, operators=["launch"])
    assert (second.rows, second.left) == (2, 0)


def test_killed_at_any_moment_it_repeats_nothing(tmp_path: Path) -> None:
    out = tmp_path / "killed.parquet"
    command = [sys.executable, "-m", "simulator.cli", "calibrate", "bench", "--out", str(out)]
    command += ["--device", "cpu", "--quick", "--operators", LIGHT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng = random.Random(5)
    kept: list[dict[str, Any]] = []
    for wanted in (3, 9):
        process = subprocess.Popen(command, cwd=ROOT, env=environment)
        while process.poll() is None and count_lines(out) < wanted:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = lines_whole(out)
        assert found[: len(kept)] == kept
        kept = found
    assert not out.exists()
    with journal_path(out).open("ab") as file:
        file.write(b'{"case":"torn')  # as a kill in the middle of a write would leave it
    found = bench(out, device="cpu", quick=True, operators=LIGHT.split(","))
    final = lines(out)
    assert final[: len(kept)] == kept
    keys = [entry["case"] for entry in final[1:]]
    assert len(set(keys)) == len(keys) == found.rows == len(read_rows(out))
    assert found.measured == len(final) - len(kept)


def count_lines(out: Path) -> int:
    path = journal_path(out)
    return path.read_bytes().count(b"\n") if path.exists() else 0


def lines_whole(out: Path) -> list[dict[str, Any]]:
    data = journal_path(out).read_bytes()
    return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def test_interrupted_it_keeps_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.parquet"
    entry = Session._entry

    def interrupted(self: Session, case: Case) -> dict[str, Any]:
        if len(self._journal.entries) == 4:
            raise KeyboardInterrupt
        return entry(self, case)

    monkeypatch.setattr(Session, "_entry", interrupted)
    result = run("--out", str(out), "--device", "cpu", "--quick", "--operators", LIGHT)
    assert result.exit_code == 130
    assert "interrupted; what was measured is in" in result.output
    assert not out.exists()
    assert len(lines(out)) == 5


# --- what cannot be measured -----------------------------------------------------------------


def gemm(m: int) -> Case:
    return Case("gemm", "torch_mm", "bfloat16", (("m", m), ("n", 128), ("k", 128)))


def session(tmp_path: Path, device: Any, cases: list[Case]) -> dict[str, str]:
    """Reasons by case key of a session over ``cases``."""
    with open_journal(tmp_path / "x.parquet", device.machine) as journal:
        Session(device, journal, ClockMonitor(None), quick=True).run(
            cases, None, lambda what, done, total: None
        )
        return journal.skipped


def test_no_room_skips_the_shape_and_goes_on(tmp_path: Path) -> None:
    def seconds(program: Any) -> float:
        if program.held_bytes == held(7):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return 1e-3

    device = TinyDevice(torch, seconds)
    cases = [gemm(5), gemm(7), gemm(9)]
    assert session(tmp_path, device, cases) == {gemm(7).key: "out of memory"}
    assert device.measured == 3
    assert session(tmp_path, device, cases) == {gemm(7).key: "out of memory"}
    assert device.measured == 3  # nor is it tried again


def held(m: int) -> float:
    return (128 * 128 + m * 128) * 2.0 + 2.0 * m * 128


def test_a_shape_larger_than_the_memory_is_not_tried(tmp_path: Path) -> None:
    device = TinyDevice(torch, lambda program: 1e-3)
    huge = Case("gemm", "torch_mm", "bfloat16", (("m", 1), ("n", 10**7), ("k", 10**7)))
    (reason,) = session(tmp_path, device, [huge, gemm(1)]).values()
    assert reason.startswith("out of memory: needs 200000.0 GB of ")
    assert device.measured == 1


def test_what_the_device_does_not_compute_is_named(tmp_path: Path) -> None:
    device = CpuDevice(torch)
    shape = (("batch", 1), ("kv_len", 64), ("n_heads", 4), ("n_kv_heads", 2), ("head_dim", 64))
    wrong = Case("attn_decode", "torch_sdpa_cudnn", "bfloat16", shape)
    (reason,) = session(tmp_path, device, [wrong]).values()
    assert reason.startswith("not computed here: No viable backend")


def test_a_broken_device_stops_and_the_next_run_goes_past_it(tmp_path: Path) -> None:
    def seconds(program: Any) -> float:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    class Broken(TinyDevice):
        def recover(self) -> None:
            raise RuntimeError("CUDA error")

    cases = [gemm(5), gemm(7)]
    with pytest.raises(
        InputError, match=r"the device failed at gemm bfloat16 m 5 .* goes on after"
    ):
        session(tmp_path, Broken(torch, seconds), cases)
    device = TinyDevice(torch, lambda program: 1e-3)
    reasons = session(tmp_path, device, cases)
    assert list(reasons) == [gemm(5).key]
    assert device.measured == 1


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    result = run("--out", str(tmp_path / "x.parquet"), "--device", "cpu")
    assert result.exit_code == 2
    assert "calibrate bench needs PyTorch" in result.output
    assert "python -m pip install 'xpyd[calibration]'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_imports_torch() -> None:
    code = (
        "import sys, simulator, simulator.cli, calibration.bench, calibration.plan\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--device", "tpu"], "--device 'tpu' is unknown; allowed: cuda, cuda:0, cuda:1, …, cpu."),
        (["--device", "cpu", "--operators", "gemms"], "'gemms' is unknown; did you mean 'gemm'?"),
        (["--device", "cpu", "--out", "{tmp}/none/x.parquet"], "none does not exist."),
        (["--device", "cpu", "--out", "{tmp}"], "it is a folder, not a file."),
    ],
)
def test_bad_options(tmp_path: Path, args: list[str], sentence: str) -> None:
    given = [arg.format(tmp=tmp_path) for arg in args]
    if "--out" not in given:
        given += ["--out", str(tmp_path / "x.parquet")]
    result = run(*given)
    assert result.exit_code == 2
    assert sentence in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_says_what_to_do(tmp_path: Path) -> None:
    result = run("--out", str(tmp_path / "x.parquet"))
    assert result.exit_code == 2
    assert "no CUDA GPU can be used" in result.output
    assert "give --device cpu" in result.output


# --- the journal -----------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.parquet"


def test_a_file_without_its_journal_is_not_overwritten(out: Path) -> None:
    out.write_text("precious")
    with pytest.raises(InputError, match="exists and has no journal beside it"):
        bench(out, device="cpu")
    assert out.read_text() == "precious"


def test_a_journal_of_another_machine(out: Path) -> None:
    with open_journal(out, H100):
        pass
    with pytest.raises(InputError, match="was measured with gpu 'NVIDIA H100 80GB HBM3', this is"):
        bench(out, device="cpu")


@pytest.mark.parametrize(
    ("text", "line"), [("hello\n", 1), ('{"journal":1}\n[]\n', 2), ('{"case":"x"}\n', 1)]
)
def test_not_a_journal(out: Path, text: str, line: int) -> None:
    journal_path(out).write_text(text)
    with pytest.raises(InputError, match=f"line {line} is not a journal entry; remove"):
        bench(out, device="cpu")
    assert journal_path(out).read_text() == text


def test_a_journal_of_another_version(out: Path) -> None:
    journal_path(out).write_text('{"journal":99}\n')
    with pytest.raises(InputError, match="is a journal of version 99, this is version 1"):
        bench(out, device="cpu")


def test_one_at_a_time(out: Path) -> None:
    with open_journal(out, H100), pytest.raises(InputError, match="is in use by another"):
        bench(out, device="cpu")


# --- rows that are none ----------------------------------------------------------------------


def test_bad_files(tmp_path: Path, measured: Path) -> None:
    data = read_rows(measured)
    text = tmp_path / "text.parquet"
    text.write_text("not parquet")
    cases: list[tuple[Path, str]] = [
        (tmp_path / "none.parquet", "does not exist; xpyd calibrate bench --out"),
        (text, "cannot be read as Parquet"),
        (saved(tmp_path, data.drop(columns="kernel")), "column 'kernel' is missing"),
        (saved(tmp_path, data.iloc[:0]), "has no rows"),
        (saved(tmp_path, data.assign(operator="gem")), "'gem' is unknown; did you mean 'gemm'"),
        (saved(tmp_path, data.assign(latency_us=0.0)), "row 0: latency_us is 0.0"),
        (saved(tmp_path, data.assign(latency_us=float("inf"))), "latency_us is inf"),
        (saved(tmp_path, pd.concat([data, data.assign(gpu="B")])), "rows of more than one gpu"),
    ]
    for path, sentence in cases:
        with pytest.raises(InputError, match=sentence) as found:
            read_rows(path)
        assert str(path) in str(found.value)
        assert "\n" not in str(found.value)


def saved(folder: Path, data: pd.DataFrame) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.parquet"
    data.to_parquet(path, index=False)
    return path


# --- kernels compute what they say -----------------------------------------------------------


def test_routing_is_a_uniform_draw_of_different_experts() -> None:
    tokens, counts = routing(4000, 2, 8)
    assert counts.sum() == len(tokens) == 8000
    assert abs(counts - 1000).max() < 150
    experts = [expert for expert, count in enumerate(counts) for _ in range(count)]
    pairs = set(zip(tokens.tolist(), experts, strict=True))
    assert len(pairs) == 8000  # no token has an expert twice


@pytest.mark.parametrize("kernel", [GROUPED, LOOP])
def test_experts_against_a_plain_sum(kernel: str) -> None:
    device = CpuDevice(torch)
    sizes = (("tokens", 12), ("hidden", 64), ("width", 128), ("topk", 2), ("experts", 4))
    program = prepare(device, Case("moe", kernel, "bfloat16", sizes))
    device.arena.begin()
    x = device.arena.take("bfloat16", 12, 64).double()
    w13 = device.arena.take("bfloat16", 4, 256, 64).double()
    w2 = device.arena.take("bfloat16", 4, 64, 128).double()
    with torch.inference_mode():
        found: Any = program.calls[0]()
    order, counts = routing(12, 2, 4)
    expected = torch.zeros(12, 64, dtype=torch.float64)
    start = 0
    for expert, count in enumerate(counts.tolist()):
        for token in order[start : start + count].tolist():
            h = w13[expert] @ x[token]
            act = torch.nn.functional.silu(h[:128]) * h[128:]
            expected[token] += 0.5 * (w2[expert] @ act)
        start += count
    assert (found.double() - expected).norm() < 0.02 * expected.norm()


def test_decode_writes_the_new_token_and_attends_to_all() -> None:
    device = CpuDevice(torch)
    shape = (("batch", 2), ("kv_len", 9), ("n_heads", 4), ("n_kv_heads", 2), ("head_dim", 64))
    program = prepare(device, Case("attn_decode", "torch_sdpa_flash", "bfloat16", shape))
    device.arena.begin()
    q = device.arena.take("bfloat16", 2, 1, 4, 64).double()
    cache = device.arena.take("bfloat16", 2, 2, 9, 2, 64).double()
    new = device.arena.take("bfloat16", 2, 2, 2, 64).double()
    with torch.inference_mode(), program.scope():
        found: Any = program.calls[0]()
    cache[:, :, -1] = new
    for sequence in range(2):
        for head in range(4):
            k, v = cache[0, sequence, :, head // 2], cache[1, sequence, :, head // 2]
            weights = torch.softmax(k @ q[sequence, 0, head] / 8.0, dim=0)
            expected = weights @ v
            assert (found[sequence, head, 0].double() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("dtype", "kernel"),
    [("bfloat16", "torch_mm"), ("float16", "torch_mm"), ("fp8", "torch_scaled_mm")],
)
def test_gemm_multiplies_by_the_weight_as_engines_store_it(dtype: str, kernel: str) -> None:
    shape = (("m", 3), ("n", 256), ("k", 128))
    call: Any = prepare(CpuDevice(torch), Case("gemm", kernel, dtype, shape)).calls[0]
    x, weight = call.args[:2]
    assert (x.stride(), weight.stride()) == ((128, 1), (1, 128))  # row-major × column-major
    with torch.inference_mode():
        found = call()
    expected = x.float().double() @ weight.float().double()
    assert found.shape == (3, 256)
    assert (found.double() - expected).norm() < 0.01 * expected.norm()


def test_operands_are_random_and_apart() -> None:
    device = CpuDevice(torch)
    program = prepare(device, gemm(16))
    assert len(program.calls) > 1
    first, second = (call.args for call in program.calls[:2])  # type: ignore[attr-defined]
    assert first[0].data_ptr() != second[0].data_ptr()
    assert 0.9 < first[1].float().std() < 1.1
    assert abs(first[1].float().mean()) < 0.05


# --- collectives -----------------------------------------------------------------------------


def test_collectives_between_two_processes(tmp_path: Path) -> None:
    out = tmp_path / "comm.parquet"
    found = bench(out, device="cpu", quick=True, operators=["comm"])
    assert (found.left, found.skipped) == (0, {})
    data = table(read_rows(out), "comm")
    assert set(data["op"]) == {"all_reduce", "alltoall"}
    assert set(data["kernel"]) == {"gloo"}
    assert (data["elements"] * 2 == data["bytes"]).all()


def test_ranks_that_fail_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    sizes = (("op", "all_reduce"), ("n_gpus", 2), ("elements", 2048), ("bytes", 4096))
    case = Case("comm", "gloo", "bfloat16", sizes)
    (result,) = comm.measured([case], kind="cpu", quick=True, until=None)
    assert result.timing is None
    assert result.how.startswith("not computed here: rank 0: ")
