"""The notebooks run from top to bottom, and what they store is small and says nothing of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MOST_BYTES = 300_000
MOST_S = 300
"""For one cell, on a busy machine; a whole notebook takes some ten seconds on a quiet one."""


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_three() -> None:
    names = ["01_quickstart", "02_capacity_plan", "04_calibrate_your_gpu"]
    assert [path.stem for path in PATHS] == names


@pytest.mark.filterwarnings("default")  # those of the notebook tools are not ours
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in _code(notebook):
        cell.outputs, cell.execution_count = [], None
    place = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, timeout=MOST_S, resources=place).execute()  # an error is raised
    assert all(cell.execution_count and cell.outputs for cell in _code(notebook))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_stored_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    assert not any(cell.metadata for cell in notebook.cells), "timings: use notebooks/store.py"
    assert all(cell.outputs for cell in _code(notebook)), "run notebooks/store.py"
    outputs = [output for cell in _code(notebook) for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    kinds = [set(output.get("data", {})) for output in outputs]
    assert any("image/png" in kind for kind in kinds)
    assert not any("text/plain" in kind and len(kind) > 1 for kind in kinds)
    assert str(NOTEBOOKS.parent.parent) + "/" not in path.read_text(encoding="utf-8")
