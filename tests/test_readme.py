"""The README's code runs: every command line of the tour, the Python block, the scenario."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
BASH = [text for kind, text in BLOCKS if kind == "bash"]


def block(kind: str) -> str:
    found = [text for k, text in BLOCKS if k == kind]
    assert len(found) == 1
    return found[0]


def test_set_up_is_two_commands() -> None:
    assert "pip install" in BASH[0]
    assert "xpyd simulate" in BASH[0]
    assert "[test]" in BASH[1]
    assert "pytest" in BASH[1]
    assert all(text.count("\n") == 1 for text in BASH[:2])


@pytest.mark.parametrize(
    "line", [line.split("#")[0].strip() for line in BASH[2].splitlines() if line.strip()]
)
def test_tour(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simulator.cli.app import app

    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(line)
    assert program == "xpyd"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_scenario_block_loads_and_keeps_up(tmp_path: Path) -> None:
    from simulator import Scenario, analyze

    path = tmp_path / "my_chat.yaml"
    path.write_text(block("yaml"), encoding="utf-8")
    assert analyze(Scenario.load(path)).stable


def test_python_block(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block("python"), "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 3
