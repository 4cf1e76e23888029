"""Scenarios and traces that come with the package, by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

TRACE_SUFFIX = ".parquet"
SCENARIO_SUFFIX = ".yaml"


def scenario_names() -> list[str]:
    """Names of the bundled scenarios, sorted."""
    return _stems(_root(), SCENARIO_SUFFIX)


def scenario_path(name: str) -> Path:
    """File of the bundled scenario ``name``.

    Raises:
        KeyError: if there is none of this name.
    """
    return _file(_root(), name, SCENARIO_SUFFIX)


def trace_names() -> list[str]:
    """Names of the bundled traces, sorted."""
    return _stems(_root() / "traces", TRACE_SUFFIX)


def trace_path(name: str) -> Path:
    """File of the bundled trace ``name``; origin and licence are in ``traces/README.md``.

    Raises:
        KeyError: if there is none of this name.
    """
    return _file(_root() / "traces", name, TRACE_SUFFIX)


def _root() -> Path:
    # packages are installed as files (zip_safe is off), so the resource is a real path
    return Path(str(files("scenarios")))


def _stems(folder: Path, suffix: str) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix == suffix)


def _file(folder: Path, name: str, suffix: str) -> Path:
    if name not in _stems(folder, suffix):
        raise KeyError(name)
    return folder / f"{name}{suffix}"
