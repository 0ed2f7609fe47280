"""Executes the notebooks: NAME.py, in jupytext's percent format, becomes NAME.ipynb with outputs.

    python notebooks/execute.py          # all of them
    python notebooks/execute.py 01 02    # those whose names begin so

The sources are what is edited and reviewed; the .ipynb files are what is read. Cells have fixed
ids and no times, so that a notebook which gives the same results is the same file.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
CELL_SECONDS = 300
"""After which a cell that has not ended is an error."""


def sources() -> list[Path]:
    """The notebooks' sources, in their order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def read(source: Path) -> Any:
    """A source as a notebook without outputs."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", {}
    return notebook


def execute(source: Path, folder: Path) -> Any:
    """A source as a notebook with the outputs of every cell.

    Args:
        source: The .py file.
        folder: The working folder of its process, where it may leave runs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
        nbclient.exceptions.CellTimeoutError: A cell took more than `CELL_SECONDS`.
    """
    notebook = read(source)
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for cell in notebook.cells:  # progress is no result
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata["language_info"] = {"name": "python"}  # the kernel adds its version
    return notebook


def main(names: list[str]) -> None:
    """Executes the notebooks whose names begin with one of `names`, or all."""
    for source in sources():
        if names and not source.name.startswith(tuple(names)):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(source, Path(folder))
        nbformat.write(notebook, source.with_suffix(".ipynb"))
        print(f"{source.stem}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
