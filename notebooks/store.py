"""Execute the notebooks and store their outputs.

    python notebooks/store.py [NAME ...]

What differs from run to run or from machine to machine is left out: cell timings, kernel metadata, and the
plain text of outputs that are shown as HTML or as a picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(path: Path, timeout_s: int = 300) -> Any:
    """The notebook with fresh outputs; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=timeout_s, record_timing=False, resources={"metadata": {"path": HERE}}
    ).execute()
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """The notebook without what depends on when and where it ran."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if len(data) > 1:
                data.pop("text/plain", None)
    return notebook


def main() -> None:
    """Store the notebooks named on the command line, or all of them."""
    paths = sorted(HERE.glob("*.ipynb"))
    for path in paths:
        if len(sys.argv) < 2 or path.stem in sys.argv[1:]:
            nbformat.write(executed(path), path)
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
