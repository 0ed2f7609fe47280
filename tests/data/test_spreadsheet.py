"""Cells that a spreadsheet would run are neutralised, and every text comes back as it was."""

import csv
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from commentaries.data import read, spreadsheet
from commentaries.errors import BadInput

FORMULAS = ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "=HYPERLINK('a')", "-")
# What a name on disk can be: text, or bytes that are not UTF-8 (as Python decodes them).
TEXT = st.one_of(
    st.text(st.one_of(st.sampled_from("'=+-@\t\r\n\",; a"), st.characters(codec="utf-8"))),
    st.binary().map(lambda name: name.decode("utf-8", "surrogateescape")),
)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1))
@example([("'=a", "''=a")])
@example([("'a", "\r"), ("a,b", 'say "x"'), ("a\nb", "a\r\nb")])
@example([("ü", "caf\udce9.png"), ("\x85\u2028", "\ufeff")])
def test_every_text_comes_back(rows):
    rows = [("first", "line"), *rows]
    assert [tuple(row) for row in spreadsheet.decode(spreadsheet.encode(rows))] == rows


@given(TEXT)
def test_no_cell_begins_with_a_formula_sign(text):
    data = spreadsheet.encode([("a", text)]).decode("utf-8", "surrogateescape")
    ((_, cell),) = csv.reader(io.StringIO(data, newline=""), strict=True)
    assert not cell.startswith(tuple("=+-@\t\r\n"))
    assert cell in (text, "'" + text)


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_get_an_apostrophe(text):
    assert spreadsheet.neutralised(text) == "'" + text
    assert spreadsheet.original("'" + text) == text


@pytest.mark.parametrize("text", ["cat", "'cat'", "a=b", "1-2", ""])
def test_other_text_is_left_alone(text):
    assert spreadsheet.neutralised(text) == text == spreadsheet.original(text)


def test_numbers_are_written_to_six_digits():
    assert spreadsheet.encode([("a", -0.5, 1 / 3)]) == b"a,-0.5,0.333333\n"


def test_a_mark_stands_in_front_only_of_what_needs_it():
    assert spreadsheet.encode([("cat", "dog")]) == b"cat,dog\n"
    assert spreadsheet.encode([("café", "dog")]) == "\ufeffcafé,dog\n".encode()


# what people write


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na/1.png,cat\na/2.png,'-x\n",
        "\ufefffile;label\r\na/1.png;cat\r\na/2.png;-x\r\n",
        'weight,Label ,FILE\n0.5,cat,a/1.png\n\n0.2,"-x","a/2.png"\n',
        "file\tlabel\na/1.png\tcat\na/2.png\t-x\n",
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, text):
    found = spreadsheet.read_labels(write(tmp_path / "a.csv", text))
    assert found == [("a/1.png", "cat"), ("a/2.png", "-x")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'file': its first line is []"),
        ("name,label\na,b\n", "has no column 'file': its first line is ['name', 'label']"),
        ("file,name\na,b\n", "has no column 'label'"),
        ("file,label,label\na,b,c\n", "has more than one column 'label'"),
        ("file,label\n", "has no line below its header. Name at least one image."),
        ("file,label\na,b\nc\n", "Entry 2 of"),
        ('file,label\n"a,b\n', "is not a CSV in UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        spreadsheet.read_labels(write(tmp_path / "a.csv", text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        spreadsheet.read_labels(tmp_path / "missing.csv")
    with pytest.raises(BadInput, match="is not a CSV in UTF-8"):
        spreadsheet.read_labels(write(tmp_path / "a.csv", "file,label\na,ü\n", "latin-1"))


def test_a_table_that_a_run_wrote_can_be_data(tmp_path):
    rows = [["file", "label"]]
    for label in ("=a", "-1"):
        for k in range(2):
            name = f"{label}{k}.png"
            Image.new("L", (8, 8), 100 * k).save(tmp_path / name)
            rows.append([name, label])
    (tmp_path / "corrected.csv").write_bytes(spreadsheet.encode(rows))
    images, _ = read(tmp_path / "corrected.csv")
    assert images.classes == ("-1", "=a")
    assert set(images.files) == {"=a0.png", "=a1.png", "-10.png", "-11.png"}
