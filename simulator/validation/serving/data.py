"""The measured runs that come with the project."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path


def bundled_runs() -> Path:
    """File of the bundled runs: a part of the silicon samples of aiconfigurator-core 0.12.0.

    Origin, version and licence are beside it, in ``simulator/validation/data/README.md``.
    """
    with as_file(files("simulator").joinpath("validation", "data", "serving.parquet")) as path:
        return Path(path)
