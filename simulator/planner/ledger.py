"""The state of a search on disk: one line for every finished trial.

A search is a deterministic function of its question and of the outcomes of its trials, so the
outcomes are all there is to save. Rows are appended, flushed and synced one by one; a torn last row
(the process was killed while writing) is cut off when the ledger is opened again.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from simulator.errors import InputError
from simulator.planner.trial import Outcome, Trial

LEDGER = "ledger.jsonl"
REQUEST = "request.json"
SCENARIO = "scenario.yaml"


class Ledger:
    """Outcomes by trial, in memory and, given a folder, in ``ledger.jsonl`` there.

    Args:
        folder: an existing folder, or None to keep outcomes in memory only.

    Raises:
        InputError: another process writes it, or a row before the last is not one of ours.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._found: dict[str, Outcome] = {}
        self._file: IO[bytes] | None = None
        self.recovered = 0
        if folder is not None:
            self._open(folder / LEDGER)

    def __len__(self) -> int:
        return len(self._found)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, trial: Trial) -> Outcome | None:
        """The outcome of a trial that has been made."""
        return self._found.get(trial.key)

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Record an outcome; it is on disk when this returns."""
        self._found[trial.key] = outcome
        if self._file is not None:
            row = {"trial": json.loads(trial.key), "outcome": asdict(outcome)}
            text = json.dumps(row, sort_keys=True, separators=(",", ":"))
            self._file.write(text.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another process have the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, path: Path) -> None:
        try:
            file = open(path, "a+b")  # noqa: SIM115 - stays open, closed by ``close``
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
        try:
            _lock(file, path)
            file.seek(0)
            whole = 0
            for number, line in enumerate(file.read().splitlines(keepends=True), start=1):
                if not line.endswith(b"\n"):
                    break  # torn: the row was being written
                self._read(line, path, number)
                whole += len(line)
            file.truncate(whole)
            file.seek(0, os.SEEK_END)
        except BaseException:
            file.close()
            raise
        self.recovered = len(self._found)
        self._file = file

    def _read(self, line: bytes, path: Path, number: int) -> None:
        try:
            row = json.loads(line)
            outcome = Outcome.of(row["outcome"])
            key = json.dumps(row["trial"], sort_keys=True, separators=(",", ":"))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: line {number} is no row of a ledger ({error}); remove it to go on."
            ) from None
        if key in self._found:
            raise InputError(f"{path}: line {number} repeats an earlier trial; remove it to go on.")
        self._found[key] = outcome


def _lock(file: IO[bytes], path: Path) -> None:
    """Refuse a ledger that another process is writing (where the system can tell)."""
    try:
        import fcntl
    except ImportError:  # not on this platform; two writers are then the user's to avoid
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"{path}: another plan is writing here; wait for it to end.") from None


def read_request(folder: Path) -> dict[str, Any]:
    """What a folder's plan was asked, as ``write_request`` stored it.

    Raises:
        InputError: the folder holds no plan.
    """
    path = folder / REQUEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: holds no plan to resume (no {REQUEST}); allowed: the --out folder of a plan."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: is not a plan's request.")
    return found


def write_request(folder: Path, request: dict[str, Any], scenario_yaml: str) -> None:
    """Store the question, so that ``read_request`` needs nothing else.

    Raises:
        InputError: the folder cannot be made or written, or holds another plan.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / REQUEST).exists() or (folder / LEDGER).exists():
            raise InputError(
                f"{folder}: holds a plan already; allowed: another folder, or --resume {folder}."
            )
        replace_text(folder / SCENARIO, scenario_yaml)
        replace_text(folder / REQUEST, json.dumps(request, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to --out {folder}: {error.strerror}.") from None


def replace_text(path: Path, text: str) -> None:
    """Write a file that is complete or absent."""
    staged = path.with_name(f".{path.name}.part")
    with open(staged, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
