"""``xpyd plan``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from simulator.cli import app
from tests.planner_kit import short_runs, tiny

pytestmark = pytest.mark.usefixtures(short_runs.__name__)


def _run(*args: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, ["plan", *args])
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A scenario and an inventory of three H100s of one GPU an instance."""
    scenario, inventory = tmp_path / "tiny.yaml", tmp_path / "stock.yaml"
    scenario.write_text(tiny(30.0).to_yaml())
    inventory.write_text("gpus:\n  h100_sxm: {count: 3, tp: [1], price: {on_demand: 2.0}}\n")
    return str(scenario), str(inventory)


def test_a_plan_prints_the_answer_and_can_be_kept_and_resumed(
    files: tuple[str, str], tmp_path: Path
) -> None:
    scenario, inventory = files
    out, saved = str(tmp_path / "out"), tmp_path / "scenarios"
    targets = ("--ttft", "150ms", "--tpot", "0.03", "--attainment", "0.9")
    code, text, _ = _run(
        scenario, *targets, "--inventory", inventory, "--out", out, "--save-scenarios", str(saved)
    )
    assert code == 0
    assert text.startswith("tiny: 1C h100_sxm:TP1")
    assert "TTFT ≤ 150 ms and TPOT ≤ 30 ms for 90 % of requests" in text
    for said in ("Answer", "Evidence", "Why the others lost", "Head-room", "Binds first"):
        assert said in text
    names = {path.name for path in Path(out).iterdir()}
    assert {"plan.json", "evidence.csv", "evidence.parquet", "winner.yaml"} <= names
    stored = json.loads((Path(out) / "plan.json").read_text())
    assert len(list(saved.iterdir())) == len(stored["evidence"])
    assert {entry["why"] for entry in stored["winner"]["not_measured"]} == {"assumed"}

    code, text, _ = _run("--resume", out, "--json")
    assert code == 0
    assert json.loads(text) == stored


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "needs a SCENARIO, or --resume"),
        (["quick_8b", "--ttft", "fast"], "--ttft: found 'fast'; allowed: a number of seconds"),
        (["quick_8b", "--ttft", "-1"], "slo.ttft_s: found -1.0"),
        (["quick_8b", "--attainment", "2"], "slo.attainment: found 2.0"),
        (["bench_70b_closed_loop"], "has no latency targets; give --ttft"),
        (["quick_8b", "--inventory", "exampel"], "did you mean 'example'"),
        (["quick_8b", "--resume", "x"], "SCENARIO has no effect with --resume"),
        (["--resume", "x", "--seed", "2"], "--seed has no effect with --resume"),
        (["--resume", "no-such-folder"], "holds no plan to resume"),
        (["quick_8b", "--jobs", "0"], "jobs: found 0"),
        (["quick_8b", "--set", "model=gpt"], "gpt"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(args: list[str], said: str) -> None:
    code, _, err = _run(*args)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_wrong_objective_is_refused() -> None:
    assert _run("quick_8b", "--objective", "speed")[0] == 2
