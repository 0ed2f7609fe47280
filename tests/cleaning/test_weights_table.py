import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commentaries.cleaning.weights_table import (
    Checked,
    Line,
    most_distrusted,
    one_line,
    read_weights,
    write_cleaned,
    write_weights,
)
from commentaries.errors import BadRun
from commentaries.training import RunFolder

NAMES = st.text(st.one_of(st.sampled_from("'=\n\r\",\x85 a/"), st.characters(codec="utf-8")))
NUMBERS = st.floats(-1e3, 1e3).map(lambda value: float(f"{value:.6g}"))


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {})


@given(lines=st.lists(st.builds(Line, NAMES, NAMES, NUMBERS, NUMBERS, NAMES, NUMBERS)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_lines_come_back(folder, lines):
    write_weights(folder, lines)
    assert read_weights(folder) == lines


def test_columns(folder):
    write_weights(folder, [Line("a/=b.png", "=cat", 0.25, -1.5, "dog", 1.0)])
    text = (folder.path / "weights.csv").read_text()
    header, line = text.splitlines()
    assert header == "file,label,weight,suspicion,suggested,confidence"
    assert line == "a/=b.png,'=cat,0.25,-1.5,dog,1"


def test_a_table_that_a_spreadsheet_has_saved_is_read(folder):
    lines = [Line("a.png", "cat", 0.5, 1.0, "dog", 0.5)]
    write_weights(folder, lines)
    path = folder.path / "weights.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_weights(folder) == lines
    path.write_bytes(path.read_bytes().replace(b"weight", b"gewicht"))
    with pytest.raises(BadRun, match="other columns"):
        read_weights(folder)


def test_cleaned_and_corrected(folder):
    lines = [
        Line("a.png", "cat", 0.9, 0.1, "cat", 0.9),
        Line("b.png", "cat", 0.1, 9.0, "dog", 0.9),
        Line("c\nd.png", "dog", 0.9, 0.1, "dog", 0.9),
    ]
    checked = [Checked("e.png", "cat", "cat"), Checked("f.png", "cat", "=dog")]
    write_cleaned(folder, lines, checked)
    assert (folder.path / "cleaned.txt").read_text() == 'a.png\n"c\\nd.png"\ne.png\n'
    corrected = (folder.path / "corrected.csv").read_text()
    assert corrected == 'file,label\na.png,cat\n"c\nd.png",dog\ne.png,cat\nf.png,\'=dog\n'


@given(st.text(min_size=1))
def test_a_line_is_always_one_path(path):
    line = one_line(path)
    assert len(line.splitlines()) == 1
    assert (json.loads(line) if line.startswith('"') else line) == path


def test_most_distrusted():
    lines = [Line("", "", 0.5, suspicion, "", 0.5) for suspicion in (0.5, 2.0, 1.0, 2.0)]
    assert most_distrusted(lines) == [1, 3, 2, 0]
    assert most_distrusted(lines, 2) == [1, 3]
