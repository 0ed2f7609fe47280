"""The notebooks run, and what is kept of them is what their sources say."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs pip install -e '.[notebooks]'")
for package in ("jupytext", "nbclient", "ipykernel"):
    pytest.importorskip(package, reason="needs pip install -e '.[notebooks]'")

FOLDER = Path(__file__).parent.parent / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
EXECUTE = "Run `python notebooks/execute.py`."


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("notebooks_execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


@pytest.fixture
def kept(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_are_notebooks_and_each_has_its_source():
    assert SOURCES
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}


def test_the_kept_notebook_is_that_of_its_source(tool, source, kept):
    nbformat.validate(kept)
    cells = [
        [(cell.cell_type, cell.source) for cell in each.cells] for each in (kept, tool.read(source))
    ]
    assert cells[0] == cells[1], EXECUTE


def test_every_code_cell_was_executed_in_order_and_figures_are_kept(kept):
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), EXECUTE
    assert not [output for output in outputs(kept) if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs(kept)) >= 3


def test_nothing_kept_names_a_folder_of_a_machine(kept):
    for output in outputs(kept):
        data = {k: v for k, v in output.get("data", {}).items() if k.startswith("text/")}
        text = output.get("text", "") + "".join(map(str, data.values()))
        assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|private|var)/", text), text


def test_no_measured_number_is_typed_into_the_text(source, tool):
    for cell in tool.read(source).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"\$.*?\$|`[^`]*`|95 %", "", cell.source, flags=re.DOTALL)
            found = re.findall(r"\d+\.\d+|\d+ ?%|\d+,\d{3}", text)
            assert not found, f"{found} in {cell.source!r}: compute it in a code cell."


@pytest.mark.notebook
def test_a_notebook_runs(tool, source, tmp_path):
    executed = tool.execute(source, tmp_path)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
