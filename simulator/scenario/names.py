"""Names and relative paths of a scenario: where a file is meant, its absolute path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import scenarios
from simulator.errors import suggest
from simulator.scenario.problem import Problem

_SUFFIXES = {".json", ".yaml", ".yml", ".csv", ".parquet"}

_FILES = (
    ("model",),
    ("prices",),
    ("link",),
    ("link", "name"),
    ("engine",),
    ("engine", "name"),
    ("workload", "trace", "path"),
    ("workload", "lengths", "trace"),
    ("workload", "arrivals", "path"),
    ("workload", "classes", "*", "lengths", "trace"),
    ("workload", "classes", "*", "arrivals", "path"),
    ("pools", "*", "gpu"),
)
"""Keys that hold a bundled name or a path; ``*`` is any key."""


def anchor(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A raw scenario with its relative paths made absolute.

    A text means a file if it has a folder in it, ends like a file that could be meant, or names a
    file that is there; everything else is left alone as a name.

    Args:
        raw: the scenario as read.
        folder: what the paths are relative to.
    """
    for path in _FILES:
        raw = _anchored(raw, path, folder)
    return raw


def _anchored(value: Any, path: tuple[str, ...], folder: Path) -> Any:
    if not path:
        return _absolute(value, folder) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return value
    keys = list(value) if path[0] == "*" else [path[0]]
    changed = {k: _anchored(value[k], path[1:], folder) for k in keys if k in value}
    return {**value, **changed}


def _absolute(text: str, folder: Path) -> str:
    path = Path(text)
    there = len(text) < 4096 and "\0" not in text and (folder / path).is_file()
    if len(path.parts) > 1 or path.suffix in _SUFFIXES or there:
        return str((folder / path.expanduser()).resolve())
    return text


def trace_file(name_or_path: str, at: tuple[str, ...] = ("workload", "trace", "path")) -> Path:
    """File of a trace: a bundled name, or a path already made absolute.

    Args:
        name_or_path: what the scenario says.
        at: the key that says it.

    Raises:
        Problem: neither.
    """
    if name_or_path in scenarios.trace_names():
        return scenarios.trace_path(name_or_path)
    path = Path(name_or_path)
    if path.is_absolute():
        return path
    raise Problem(
        at,
        f"found {name_or_path!r}, which is no file and no bundled trace; "
        f"{suggest(name_or_path, scenarios.trace_names())}",
    )
