"""What has been measured so far: one JSON line a case beside the output file, only ever appended to.

A line is written whole and reaches the disk before the next case starts. A process killed in the
middle of a line leaves a torn one, which the next run cuts off: that case is measured again, all
others are not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from calibration.machine import Machine
from simulator.errors import InputError

VERSION = 1


def journal_path(out: Path) -> Path:
    """Where the journal of ``out`` lies."""
    return out.with_name(out.name + ".journal")


class Journal:
    """An open journal: its entries so far, and a way to add one."""

    def __init__(self, path: Path, file: int, entries: list[dict[str, Any]]) -> None:
        self.path = path
        self._file = file
        self.entries = entries

    def append(self, entry: dict[str, Any]) -> None:
        """Add an entry, on disk when this returns.

        Raises:
            InputError: the disk is full, or gone.
        """
        _write(self._file, entry, self.path)
        self.entries.append(entry)

    @property
    def done(self) -> set[str]:
        """Keys of the cases that need not be measured again."""
        return {entry["case"] for entry in self.entries}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The measured rows, in the order they were measured."""
        return [entry["row"] for entry in self.entries if "row" in entry]

    @property
    def skipped(self) -> dict[str, str]:
        """Why a case was left out, by its key."""
        return {e["case"]: e["skipped"] for e in self.entries if "skipped" in e}


@contextmanager
def open_journal(out: Path, machine: Machine) -> Iterator[Journal]:
    """The journal beside ``out``, new or to go on with; closed and unlocked at the end.

    Raises:
        InputError: it cannot be written, another process has it open, it is not a journal, or it
            holds what another machine or another version of torch measured.
    """
    path = journal_path(out)
    if out.exists() and not path.exists():
        raise InputError(
            f"--out {out} exists and has no journal beside it to go on with; remove it or choose "
            "another name."
        )
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}."
        ) from None
    try:
        _lock(file, path)
        entries = _entries(path, file)
        if entries:
            _check_header(entries[0], machine, path)
        else:
            _write(file, {"journal": VERSION, "machine": machine.to_dict()}, path)
        yield Journal(path, file, entries[1:])
    finally:
        os.close(file)


def _lock(file: int, path: Path) -> None:
    with suppress(ImportError):  # not on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{path} is in use by another xpyd calibrate bench; wait for it or choose another --out."
            ) from None


def _entries(path: Path, file: int) -> list[dict[str, Any]]:
    """The whole lines; a torn last one is cut off."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.ftruncate(file, end)
    entries = []
    for number, line in enumerate(data[:end].splitlines(), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or ("journal" if number == 1 else "case") not in entry:
            raise InputError(
                f"{path} line {number} is not a journal entry; remove the file to measure afresh."
            )
        entries.append(entry)
    return entries


def _check_header(header: dict[str, Any], machine: Machine, path: Path) -> None:
    if header["journal"] != VERSION:
        raise InputError(
            f"{path} is a journal of version {header['journal']}, this is version {VERSION}; choose "
            "another --out."
        )
    now = machine.to_dict()
    for name in ("gpu", "driver", "cuda", "torch"):
        then = header.get("machine", {}).get(name)
        if then != now[name]:
            raise InputError(
                f"{path} was measured with {name} '{then}', this is '{now[name]}'; choose another "
                "--out."
            )


def _write(file: int, entry: dict[str, Any], path: Path) -> None:
    line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
    try:
        os.write(file, line)
        os.fsync(file)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}."
        ) from None
