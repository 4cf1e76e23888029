"""``xpyd calibrate overhead``: results of every client, and constants that come back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares
from typer.testing import CliRunner

from calibration.overhead import refit as fitting
from calibration.overhead.engine_yaml import engine_text
from calibration.overhead.fit import Clients, Overhead, overhead
from calibration.overhead.page import output_rows, verdicts
from calibration.overhead.reading import read_results
from calibration.overhead.refit import Constant
from calibration.overhead.setup import Options
from calibration.overhead.surrogate import Surrogate, posterior
from simulator.cli.app import app
from simulator.engine_profiles import load_engine
from simulator.engine_profiles.profile import NUMBERS
from simulator.scenario import Scenario
from tests.overhead_kit import TRUTH, Measured, scenario, write

OPTIONS = Options(profile="h100_sxm", engine="vllm", model="llama-3.1-8b")
SIZES = ((1, 8), (6, 40), (24, 100))
"""Requests in flight, and in all."""


@pytest.fixture(scope="module")
def measured() -> list[Measured]:
    return [Measured(scenario(c, n)) for c, n in SIZES]


@pytest.fixture(scope="module")
def files(measured: list[Measured], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("results")
    return [write(folder / f"c{m.concurrency}.json", m.vllm()) for m in measured]


@pytest.fixture(scope="module")
def found(files: list[Path]) -> Overhead:
    return overhead(files, OPTIONS, Clients(), name="mine")


# --- the fit ------------------------------------------------------------------------------------


def test_the_truth_is_inside_the_intervals(found: Overhead) -> None:
    for constant in found.refit.constants:
        assert constant.low <= TRUTH[constant.name] <= constant.high, constant
    by_name = {c.name: c for c in found.refit.constants}
    assert by_name["c0_s"].verdict != "prior"
    assert by_name["c0_s"].value == pytest.approx(TRUTH["c0_s"], rel=0.1)
    assert by_name["front_s"].value == pytest.approx(TRUTH["front_s"], rel=0.1)


def test_errors_fall_and_runs_left_out_are_predicted(found: Overhead) -> None:
    rows = output_rows(found)
    assert set(rows["metric"]) >= {"ttft_ms", "tpot_ms", "e2e_ms", "ttft_median_ms"}
    for name, most in (("predicted", 0.06), ("left_out", 0.15)):
        after = (rows[name] / rows["measured"] - 1).abs().groupby(rows["metric"]).mean()
        before = (rows["before"] / rows["measured"] - 1).abs().groupby(rows["metric"]).mean()
        for metric in ("ttft_ms", "tpot_ms"):
            assert after[metric] < min(before[metric], most)
    assert found.refit.widened < 1.2


def test_the_same_files_give_the_same_answer_on_any_number_of_processes(files: list[Path]) -> None:
    one, two = (
        overhead(files[:2], OPTIONS, Clients(), constants=["c0_s"], jobs=jobs) for jobs in (1, 2)
    )
    assert engine_text(one.engine) == engine_text(two.engine)
    assert one.refit.constants == two.refit.constants


def test_the_engine_runs_in_a_scenario(found: Overhead, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(engine_text(found.engine))
    back = load_engine(file)
    assert back.choices == found.engine.choices
    for (name, mine), (_, other) in zip(found.engine.values, back.values, strict=True):
        assert other.value == pytest.approx(mine.value, rel=1e-5), name
        assert (other.unit, other.source) == (mine.unit, mine.source)
    raw = dict(scenario(6, 40).raw) | {"engine": {"name": "mine.yaml"}, "routing": {}}
    built = Scenario.from_dict(raw, folder=tmp_path)
    config = built.config
    by_name = {c.name: c.value for c in found.refit.constants}
    step = built.deployment().pools[-1].step
    assert step.c0_s == pytest.approx(by_name["c0_s"], rel=1e-5)
    assert config.routing.latency_s == pytest.approx(by_name["front_s"], rel=1e-5)
    source = back.param("c0_s").source
    assert source.kind == "fitted"
    assert "c24.json" in source.text
    assert back.param("c0_s").stderr is not None


def test_one_light_run_leaves_most_to_the_prior(files: list[Path]) -> None:
    found = overhead(files[:1], OPTIONS, Clients(), name="light")
    by_name = {c.name: c for c in found.refit.constants}
    assert by_name["c1_s"].verdict == "prior"
    assert all(c.low <= c.value <= c.high for c in found.refit.constants)
    assert found.engine["c1_s"] == load_engine("vllm")["c1_s"]
    assert found.engine.param("c1_s").source == load_engine("vllm").param("c1_s").source
    assert by_name["c0_s"].verdict != "prior"
    assert not found.refit.left_out
    text = " ".join(verdict.text for verdict in verdicts(found))
    assert "say next to nothing of c1_s" in text
    assert "Fewer than three files" in text


def test_only_the_constants_asked_for_move(files: list[Path]) -> None:
    found = overhead(files[:2], OPTIONS, Clients(), constants=["c0_s", "host_s"])
    assert [c.name for c in found.refit.constants] == ["c0_s", "host_s"]
    vllm = load_engine("vllm")
    names = [field.name for field in NUMBERS]
    changed = {name for name in names if found.engine.param(name) != vllm.param(name)}
    assert changed == {"c0_s"}


def test_loss_is_soft_for_runs_and_square_for_the_prior(found: Overhead) -> None:
    problem = fitting._Problem(found.refit.replays, found.setup.engine, ("c0_s",), 1, None)

    def rows(x: np.ndarray) -> np.ndarray:
        return np.array([x[0] - 3.0, x[0] - 50.0, 2.0 * x[0]])

    mine = least_squares(rows, [0.5], loss=problem._loss)

    def cost(x: float) -> float:
        soft = sum(2.0 * (math.sqrt(1.0 + r * r) - 1.0) for r in rows(np.array([x]))[:2])
        return 0.5 * (soft + 4.0 * x * x)

    grid = np.linspace(0.0, 2.0, 20_001)
    best = grid[np.argmin([cost(x) for x in grid])]
    assert mine.x[0] == pytest.approx(best, abs=1e-3)
    assert mine.cost == pytest.approx(cost(best), rel=1e-6)


def test_covariance_is_that_of_linear_regression() -> None:
    rng = np.random.default_rng(1)
    jacobian = rng.normal(size=(40, 2))
    covariance, widened = fitting._covariance(np.zeros(40), jacobian, np.array([1e6, 1e6]))
    assert widened == 1.0
    assert covariance == pytest.approx(np.linalg.inv(jacobian.T @ jacobian), rel=1e-6)
    alone, _ = fitting._covariance(np.zeros(1), np.zeros((1, 2)), np.array([0.7, 0.2]))
    assert np.diag(alone) == pytest.approx([0.49, 0.04])
    _, wider = fitting._covariance(np.full(40, 3.0), jacobian, np.array([0.7, 0.2]))
    assert wider > 1.5


def test_a_prior_that_ends_at_one_is_narrower() -> None:
    found = fitting._free_spread(np.zeros(2), np.full(2, 0.2), np.array([0.0, np.inf]))
    assert found == pytest.approx([0.2 * np.sqrt(1.0 - 2.0 / np.pi), 0.2])


def test_draws_are_those_of_the_posterior() -> None:
    width = np.array([0.5, 0.2])
    bounds = np.full(2, -9.0), np.array([9.0, 0.0])
    blind = Surrogate(np.zeros(2), np.ones(2), np.zeros(1), np.ones(1), np.zeros((1, 2)))
    draws = posterior(blind, np.zeros(2), width, bounds, np.diag(width**2), 1.0)
    assert draws[:, 0].std() == pytest.approx(0.5, rel=0.05)  # the prior
    half = np.sqrt(2.0 / np.pi) * 0.2  # mean of a normal law cut at its centre
    assert draws[:, 1].mean() == pytest.approx(-half, rel=0.1)
    assert draws[:, 1].max() <= 0.0
    # one time of which the constant is half: against its density on a grid
    sharp = Surrogate(np.zeros(1), np.ones(1), np.zeros(1), np.full(1, 0.1), np.full((1, 1), 0.5))
    one = np.ones(1)
    draws = posterior(sharp, 0 * one, 0.7 * one, (-9 * one, 9 * one), 0.04 * np.eye(1), 1.0)
    grid = np.linspace(-3.0, 3.0, 60_001)
    residual = np.log(1.0 + 0.5 * np.expm1(grid)) / 0.1
    log_density = 1.0 - np.sqrt(1.0 + residual**2) - 0.5 * (grid / 0.7) ** 2
    cumulative = np.cumsum(np.exp(log_density))
    ends = np.interp([0.05, 0.95], cumulative / cumulative[-1], grid)
    assert np.quantile(draws[:, 0], [0.05, 0.95]) == pytest.approx(ends, rel=0.08)


def test_surrogate_is_exact_for_times_linear_in_the_constants() -> None:
    def times(x: np.ndarray) -> np.ndarray:
        c0, efficiency = np.exp(x)
        return np.array([3.0 + 2.0 * c0 + 5.0 / efficiency, 1.0 + c0])

    best, there = np.log([0.5, 0.8]), np.log([0.2, 0.6])
    t = times(best)
    slopes = np.array([[2.0 * 0.5, 5.0 / 0.8], [0.5, 0.0]]) / t[:, None]
    formula = Surrogate(best, np.array([1.0, -1.0]), np.zeros(2), np.full(2, 0.1), slopes)
    assert formula.residuals(there) == pytest.approx(np.log(times(there) / t) / 0.1)
    tiny = 1e-6
    for k in range(2):
        moved = best + tiny * np.eye(2)[k]
        assert formula.jacobian()[:, k] == pytest.approx(
            np.log(times(moved) / t) / 0.1 / tiny, rel=1e-4, abs=1e-9
        )


@pytest.mark.parametrize(("spread", "word"), [(0.1, "data"), (0.5, "both"), (0.69, "prior")])
def test_who_decides(spread: float, word: str) -> None:
    assert Constant("c0_s", 1e-3, 0.7, 1e-3, spread, 1e-3, 1e-3).verdict == word


# --- files --------------------------------------------------------------------------------------


def written(kind: str, run: Measured, folder: Path) -> Path:
    file = folder / f"{kind}.json"
    if kind == "records":
        write(folder / "profile_export_aiperf.json", run.aiperf())
        return write(folder / "profile_export.jsonl", *run.records())
    if kind == "totals":
        return write(file, run.vllm(detailed=False))
    return write(file, getattr(run, kind)())


@pytest.mark.parametrize(
    ("kind", "client"),
    [
        ("vllm", "vllm"),
        ("totals", "vllm"),
        ("sglang", "sglang"),
        ("records", "aiperf"),
        ("aiperf", "aiperf"),
        ("genai_perf", "genai-perf"),
        ("inference_perf", "inference-perf"),
    ],
)
def test_every_client_tells_the_same_run(
    kind: str, client: str, measured: list[Measured], tmp_path: Path
) -> None:
    run = measured[1]
    (result,) = read_results([written(kind, run, tmp_path)])
    assert (result.client, result.requests, result.concurrency) == (client, run.n, 6)
    for metric, values in (("ttft", run.ttft), ("tpot", run.tpot), ("e2e", run.e2e)):
        assert result.measured[metric, "mean"] == pytest.approx(float(values.mean()), rel=1e-9)
        assert result.measured[metric, "median"] == pytest.approx(float(np.median(values)))
    assert result.prompt.mean == pytest.approx(run.prompt.mean())
    listed = kind in ("vllm", "records")
    assert (result.prompt.recorded is not None) is listed
    if listed:
        assert np.array_equal(result.output.recorded, run.output[np.argsort(run.start)])


@pytest.mark.parametrize("kind", ["sglang", "records", "aiperf", "inference_perf"])
def test_every_client_leads_to_the_same_constants(kind: str, tmp_path: Path) -> None:
    truth = {k: v for k, v in TRUTH.items() if k != "sustained_bf16"}
    run = Measured(scenario(6, 40, truth))
    file = written(kind, run, tmp_path)
    if kind == "sglang":  # which speaks to vLLM as well
        write(file, json.loads(file.read_text()) | {"backend": "vllm"})
    found = overhead([file], OPTIONS, Clients(), constants=["c0_s", "front_s"])
    (replay,) = found.refit.replays
    assert replay.client == "6 in flight"
    assert len(replay.requests) == run.n
    assert replay.requests.output_tokens.mean() == pytest.approx(run.output.mean(), rel=0.02)
    by_name = {c.name: c for c in found.refit.constants}
    assert by_name["front_s"].low <= TRUTH["front_s"] <= by_name["front_s"].high


def test_several_runs_in_one_file(measured: list[Measured], tmp_path: Path) -> None:
    file = write(tmp_path / "all.jsonl", *(run.sglang(backend="vllm") for run in measured))
    results = read_results([file])
    assert [r.label for r in results] == ["all.jsonl:1", "all.jsonl:2", "all.jsonl:3"]
    assert [r.concurrency for r in results] == [c for c, _ in SIZES]


def open_loop(run: Measured, **more: Any) -> dict[str, Any]:
    return run.vllm() | {"max_concurrency": None, "request_rate": 5.0} | more


def replayed(tmp_path: Path, content: dict[str, Any], clients: Clients | None = None) -> Any:
    file = write(tmp_path / "run.json", content)
    found = overhead([file], OPTIONS, clients or Clients(), constants=["c0_s"])
    return found.refit.replays[0]


def test_clients_are_replayed_as_they_were(measured: list[Measured], tmp_path: Path) -> None:
    run = measured[0]
    recorded = replayed(tmp_path, open_loop(run))
    assert recorded.client == "as recorded"
    assert recorded.requests.arrival_s == pytest.approx(run.start - run.start.min(), abs=1e-6)
    drawn = replayed(tmp_path, open_loop(run, start_times=[]))
    assert drawn.client == "5 requests/s"
    assert any("drawn at the rate" in note for note in drawn.notes)
    both = replayed(tmp_path, open_loop(run, max_concurrency=4))
    assert both.requests.closed_loop is None
    at_once = replayed(tmp_path, open_loop(run, request_rate="inf", start_times=[]))
    assert (at_once.client, at_once.requests.arrival_s.max()) == ("all 8 at once", 0.0)
    given = replayed(tmp_path, open_loop(run, request_rate=None), Clients(concurrency=(3,)))
    assert given.client == "3 in flight"


def test_lengths_that_a_file_does_not_list(measured: list[Measured], tmp_path: Path) -> None:
    run = measured[1]
    fixed = replayed(tmp_path, run.vllm(detailed=False))
    assert fixed.waves
    assert len(set(fixed.requests.output_tokens.tolist())) == 1
    assert any("move in waves" in note for note in fixed.notes)
    spread = replayed(tmp_path, run.vllm(detailed=False), Clients(ratio=0.5))
    assert not spread.waves
    output = spread.requests.output_tokens
    assert output.mean() == pytest.approx(run.output.mean(), rel=0.01)
    assert output.min() / output.max() == pytest.approx(0.5, abs=0.05)


def test_failed_requests_are_left_out(measured: list[Measured], tmp_path: Path) -> None:
    content = measured[1].vllm()
    content["errors"][3] = "timeout"
    content |= {"completed": measured[1].n - 1}
    replay = replayed(tmp_path, content)
    assert len(replay.requests) == measured[1].n - 1
    assert any("1 of 40 requests failed" in note for note in replay.notes)


# --- the command --------------------------------------------------------------------------------

ARGUMENTS = ["--profile", "h100_sxm", "--engine", "vllm", "--jobs", "1"]


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["calibrate", "overhead", *map(str, arguments)])


def test_command(files: list[Path], tmp_path: Path) -> None:
    out, rows = tmp_path / "my_engine.yaml", tmp_path / "rows.parquet"
    fit = ("--constants", "c0_s,front_s", "--out", out, "--rows", rows)
    answer = call(*files[:2], *ARGUMENTS, *fit, "--json")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert found["engine"] == "my_engine"
    documented = (Path(__file__).parent.parent / "docs" / "json.md").read_text()
    documented = documented[documented.index("calibrate overhead --json") :]
    keys = {*found, *found["constants"]["c0_s"], *found["errors"], *found["runs"][0]}
    assert [key for key in sorted(keys) if f"{key}`" not in documented and key != "schema"] == []
    assert found["errors"]["left_out"] == {"ttft_s": None, "tpot_s": None}
    assert found["constants"]["c0_s"]["decided_by"] == "data"
    assert [run["replayed"] for run in found["runs"]] == ["1 in flight", "6 in flight"]
    assert load_engine(out).name == "my_engine"
    table = pd.read_parquet(rows)
    assert list(table.columns[:5]) == ["table", "row", "metric", "measured", "predicted"]
    shown = call(files[0], *ARGUMENTS, "--constants", "c0_s")
    assert shown.exit_code == 0
    assert "TPOT on llama-3.1-8b, bf16 weights" in shown.stdout


def test_scenario_says_the_deployment(measured: list[Measured], tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    raw = dict(scenario(6, 40).raw) | {"engine": "vllm", "routing": {}}
    base.write_text(json.dumps(raw))
    file = write(tmp_path / "run.json", measured[1].vllm(detailed=False))
    options = Options(scenario=str(base), profile="h100_sxm", engine="vllm")
    found = overhead([file], options, Clients(), constants=["c0_s"])
    (replay,) = found.refit.replays
    assert not replay.waves
    assert any("the scenario's" in note for note in replay.notes)
    base.write_text(json.dumps(raw | {"engine": {"name": "vllm", "c0_s": 1e-3}}))
    assert "engine.c0_s is what is to be fitted" in call(file, "--scenario", base).stderr
    base.write_text(json.dumps(raw))
    for more, words in (
        (("--tp", "2"), "--tp has no effect with --scenario"),
        (("--engine", "sglang"), "engine.name: found 'vllm'; allowed: sglang"),
        (("--profile", "l40s"), "pools.colocated.gpu: found 'h100_sxm'; allowed: l40s"),
    ):
        answer = call(file, "--scenario", base, *more)
        assert answer.exit_code == 2
        assert words in answer.stderr


BAD: list[tuple[dict[str, Any], list[str], str]] = [
    ({"model_id": "Qwen/Qwen3-32B"}, ["--model", "llama-3.1-8b"], "model_id: found 'Qwen/Qwen3"),
    ({"model_id": "nobody/knows"}, [], "model_id: found 'nobody/knows', which is not bundled"),
    ({"backend": "sglang"}, [], "backend: found 'sglang'; allowed: vllm"),
    ({"tp": "4"}, [], "tp: found '4'; allowed: 1"),
    ({"max_concurrency": 6}, ["--concurrency", "8"], "max_concurrency: found 6; allowed: 8"),
    ({"max_concurrency": None, "request_rate": None, "start_times": []}, [], "says neither"),
    ({"max_concurrency": 0}, [], "max_concurrency: found 0; allowed: a whole number"),
    ({"request_rate": 3.0, "start_times": []}, [], "one of the two, or recorded start_times"),
    ({"mean_ttft_ms": "soon"}, [], 'mean_ttft_ms: found "soon"; allowed: a number'),
    ({"output_lens": [1, 2]}, [], "output_lens: found a list of 2; allowed: a list of 40"),
    ({"input_lens": None, "total_input_tokens": None}, [], "found the keys"),
    ({"completed": 30}, [], "10 of 40 requests failed"),
    ({"mean_ttft_ms": None, "median_ttft_ms": None, "mean_tpot_ms": None, "median_tpot_ms": None},
     [], "holds neither TTFT nor TPOT"),
    ({}, ["--constants", "c2"], "--constants: found 'c2'; allowed: c0_s"),
    ({}, ["--concurrency", "a"], "--concurrency: found 'a'; allowed: whole numbers"),
    ({}, ["--concurrency", "1,2"], "--concurrency: found 2 values; allowed: one"),
    ({}, ["--precision", "fp9"], "precision.weights"),
    ({}, ["--set", "pools.colocated.tp=3"], "pools.colocated.tp"),
    ({}, ["--out", "engine.json"], "--out engine.json: found '.json'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "arguments", "words"), BAD)
def test_bad_input_is_one_sentence(
    change: dict[str, Any],
    arguments: list[str],
    words: str,
    measured: list[Measured],
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "run.json", measured[1].vllm() | change)
    out = tmp_path / "engine.yaml"
    out.write_text("as it was")
    given = [] if "--out" in arguments else ["--out", str(out)]
    answer = call(file, *ARGUMENTS, *given, *arguments)
    assert answer.exit_code == 2, answer.output
    assert words in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""
    assert out.read_text() == "as it was"
    assert {f.name for f in tmp_path.iterdir()} == {"run.json", "engine.yaml"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "h100_smx", "--engine", "vllm"], "did you mean 'h100_sxm'"),
        (["--profile", "h100_sxm", "--engine", "vlm"], "engine 'vlm' is unknown; did you mean"),
        (["--profile", "h100_sxm"], "--engine is missing"),
        (["--engine", "vllm"], "--profile is missing"),
    ],
)
def test_bad_names(arguments: list[str], words: str, files: list[Path]) -> None:
    answer = call(files[0], *arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{", "line 1: is not JSON"),
        ("[1, 2]", "found a list of 2; allowed: an object"),
        ('{"a": 1}\n{"a": ', "line 2: is not JSON"),
        ('{"experiments": []}', "found the keys experiments"),
    ],
)
def test_bad_files(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    answer = call(file, *ARGUMENTS)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert "no such file" in call(tmp_path / "none.json", *ARGUMENTS).stderr
    assert "is given twice" in call(*[write(file, {"completed": 1, "total_input_tokens": 5,
        "total_output_tokens": 5, "mean_ttft_ms": 1, "max_concurrency": 1})] * 2, *ARGUMENTS).stderr  # fmt: skip


def test_requests_that_do_not_fit(measured: list[Measured], tmp_path: Path) -> None:
    content = measured[0].vllm()
    content["input_lens"][0] = 900_000
    answer = call(write(tmp_path / "run.json", content), *ARGUMENTS)
    assert answer.exit_code == 2
    assert "1 of 8 requests are longer than" in answer.stderr
