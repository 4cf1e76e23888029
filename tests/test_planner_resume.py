"""Kill it, interrupt it, tear its ledger: a resumed plan is the plan."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.planner import Inventory, Plan, bench, plan
from simulator.planner.ledger import LEDGER, REQUEST, Ledger
from simulator.planner.space import families
from simulator.planner.trial import Outcome, Question, Trial, run_trial
from tests.planner_kit import SPACE, TARGETS, short_runs, tiny

pytestmark = pytest.mark.usefixtures(short_runs.__name__)

SCRIPT = """
import sys
from simulator.planner import plan, sizes
from tests.planner_kit import SPACE, TARGETS, tiny
sizes.COUNTED, sizes.PROBE = 320, 160
if __name__ == "__main__":
    if sys.argv[2] == "new":
        plan(tiny(), TARGETS, max_gpus=5, space=SPACE, out=sys.argv[1], jobs=int(sys.argv[3]))
    else:
        plan(resume=sys.argv[1], jobs=int(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def whole() -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        from simulator.planner import sizes

        patch.setattr(sizes, "COUNTED", 320)
        patch.setattr(sizes, "PROBE", 160)
        return plan(tiny(), TARGETS, max_gpus=5, space=SPACE)


def _start(folder: Path, how: str, jobs: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(folder), how, str(jobs)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


def _rows(folder: Path) -> list[str]:
    file = folder / LEDGER
    return file.read_bytes().decode(errors="replace").splitlines() if file.exists() else []


def _kill_after(process: subprocess.Popen[bytes], folder: Path, rows: int, wait_s: float) -> None:
    """``kill -9`` once the ledger has ``rows`` rows, and a little later."""
    deadline = time.monotonic() + 60
    while len(_rows(folder)) < rows and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _check(folder: Path, whole: Plan) -> None:
    found = plan(resume=folder)
    assert found.to_dict() == whole.to_dict()
    trials = [json.dumps(json.loads(row)["trial"], sort_keys=True) for row in _rows(folder)]
    assert len(trials) == len(set(trials))  # nothing was made twice
    assert json.loads((folder / "plan.json").read_text()) == whole.to_dict()


def _killed(folder: Path, kills: int, seed: int) -> None:
    random.seed(seed)
    for k in range(kills):
        process = _start(folder, "new" if k == 0 else "resume", jobs=1 + k % 2)
        # a kill before the question is stored would leave nothing to resume
        rows = 1 if k == 0 else len(_rows(folder)) + 1
        _kill_after(process, folder, rows, random.uniform(0.0, 0.15))


@pytest.mark.slow
def test_ten_kills_lose_and_repeat_nothing(tmp_path: Path, whole: Plan) -> None:
    folder = tmp_path / "out"
    _killed(folder, 10, seed=2)
    assert len(_rows(folder)) >= 1
    _check(folder, whole)


def test_an_interrupt_leaves_the_best_so_far_and_can_be_resumed(
    tmp_path: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def interrupted(question: Question, trial: Trial) -> Outcome:
        nonlocal made
        made += 1
        if made == 8:
            raise KeyboardInterrupt
        return run_trial(question, trial)

    with monkeypatch.context() as patch:
        patch.setattr(bench, "run_trial", interrupted)
        found = plan(tiny(), TARGETS, max_gpus=5, space=SPACE, out=tmp_path / "out")
    assert found.interrupted
    assert not found.complete
    assert any("interrupted" in note for note in found.notes)
    assert len(_rows(tmp_path / "out")) == 7
    _check(tmp_path / "out", whole)


def test_a_torn_last_row_is_dropped(tmp_path: Path, whole: Plan) -> None:
    folder = tmp_path / "out"
    plan(tiny(), TARGETS, max_gpus=5, space=SPACE, out=folder)
    text = (folder / LEDGER).read_bytes()
    (folder / LEDGER).write_bytes(text[:-40])
    before = len(_rows(folder))
    _check(folder, whole)
    assert len(_rows(folder)) == before
    assert (folder / LEDGER).read_bytes() == text


def test_a_finished_plan_resumes_to_itself_without_a_run(
    tmp_path: Path, whole: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    plan(tiny(), TARGETS, max_gpus=5, space=SPACE, out=folder)

    def never(*_: object) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr(bench, "run_trial", never)
    assert plan(resume=folder).to_dict() == whole.to_dict()


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    plan(tiny(), TARGETS, max_gpus=2, space=SPACE, out=folder)
    with pytest.raises(
        InputError, match=r"holds a plan already; allowed: another folder, or --res"
    ):
        plan(tiny(), TARGETS, max_gpus=2, space=SPACE, out=folder)
    with pytest.raises(InputError, match="holds no plan to resume"):
        plan(resume=tmp_path / "other")
    rows = (folder / LEDGER).read_bytes()
    (folder / LEDGER).write_bytes(b"{}\n" + rows)
    with pytest.raises(InputError, match="line 1 is no row of a ledger"):
        plan(resume=folder)
    (folder / LEDGER).write_bytes(rows + rows.splitlines(keepends=True)[0])
    with pytest.raises(InputError, match="repeats an earlier trial"):
        plan(resume=folder)
    (folder / LEDGER).write_bytes(rows)
    request = json.loads((folder / REQUEST).read_text())
    (folder / REQUEST).write_text(json.dumps({**request, "workload": "other"}))
    with pytest.raises(InputError, match="its workload has changed"):
        plan(resume=folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to --out"):
        plan(tiny(), TARGETS, max_gpus=2, space=SPACE, out=tmp_path / "file")


def test_two_plans_do_not_write_one_ledger(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with Ledger(tmp_path), pytest.raises(InputError, match="another plan is writing here"):
        Ledger(tmp_path)


def test_a_ledger_gives_back_what_it_was_given(tmp_path: Path) -> None:
    base = tiny(30.0)
    kind = families(base, Inventory.of_scenario(base), SPACE)[0][0]
    trial = Trial(kind, 1, 100, rate_scale=1.1)
    outcome = run_trial(Question(base, TARGETS, {}), trial)
    with Ledger(tmp_path) as ledger:
        ledger.add(trial, outcome)
    with Ledger(tmp_path) as again:
        assert again.recovered == 1
        assert again.get(trial) == outcome
