"""Models by name: the bundled ``config.json`` files, or a path to the user's own."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from simulator.errors import ModelError, suggest
from simulator.model.config import spec_from_config
from simulator.model.spec import ModelSpec


def model_names() -> list[str]:
    """Names of the bundled models, sorted."""
    return sorted(_bundled())


def load_model(name_or_path: str | Path) -> ModelSpec:
    """A model by bundled name (in any case), or from a ``config.json`` or a folder that has one.

    Args:
        name_or_path: e.g. ``"llama-3.1-70b"``, ``"checkpoints/mine"`` or ``"mine/config.json"``.

    Raises:
        ModelError: unknown name (with the nearest one), unreadable file, malformed JSON, missing
            or impossible key, or an architecture that is not supported.
    """
    text = str(name_or_path)
    bundled = _bundled()
    if text.lower() in bundled:
        return _bundled_model(text.lower())
    path = Path(name_or_path)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return _read(path, name=_name_of(path), where=str(path))
    if path.suffix == ".json" or len(path.parts) > 1:
        raise ModelError(f"model file '{path}' does not exist; names: {', '.join(bundled)}.")
    raise ModelError(f"model '{text}' is unknown; {suggest(text.lower(), bundled)}")


@cache
def _bundled_model(name: str) -> ModelSpec:
    return _read(_bundled()[name], name=name, where=f"simulator/models/{name}.json")


@cache
def _bundled() -> dict[str, Traversable]:
    folder = files("simulator").joinpath("models")
    names = {f.name: f for f in folder.iterdir() if f.name.endswith(".json")}
    return {name.removesuffix(".json"): names[name] for name in sorted(names)}


def _name_of(path: Path) -> str:
    """``config.json`` is called after its folder, any other file after itself."""
    return path.resolve().parent.name if path.stem == "config" else path.stem


def _read(file: Traversable | Path, *, name: str, where: str) -> ModelSpec:
    try:
        config: object = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(
            f"{where}: not valid JSON ({error.msg} at line {error.lineno} column {error.colno})."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{where}: cannot be read ({error}).") from error
    return spec_from_config(config, name=name, where=where)
