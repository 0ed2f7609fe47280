"""CSV files that open in a spreadsheet without running anything, and come back exactly.

A spreadsheet takes a cell that begins with = + - @ tab or a line break for a formula. Such a cell
gets an apostrophe in front when it is written, and so does one that already has apostrophes before
such a sign; reading takes one away again. Names that merely begin with an apostrophe are left
alone. Text is UTF-8; a byte-order mark stands in front only where something is not plain ASCII,
for without one Excel takes such a file for its local encoding. Parts of file names that are not
UTF-8 are kept as the bytes that they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import BadInput

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r\n]")
_QUOTED = re.compile(r'[,;"\r\n]')
_MARK = "\ufeff"


def neutralised(text: str) -> str:
    """The text with an apostrophe in front where a spreadsheet would take it for a formula."""
    return "'" + text if _FORMULA.match(text) else text


def original(cell: str) -> str:
    """The text that `neutralised` made a cell of."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def encode(rows: Iterable[Sequence[str | float]]) -> bytes:
    """Rows as CSV: text neutralised, numbers to six digits, lines ended by \\n."""
    text = "".join(",".join(map(_cell, row)) + "\n" for row in rows)
    return ((_MARK if not text.isascii() else "") + text).encode("utf-8", "surrogateescape")


def decode(data: bytes, delimiter: str = ",") -> list[list[str]]:
    """The rows of `encode`, or of a spreadsheet that saved them, as text; empty lines left out.

    Raises:
        ValueError: It is no CSV.
    """
    text = data.decode("utf-8", "surrogateescape").removeprefix(_MARK)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return [[original(cell) for cell in row] for row in rows if row]


def read_labels(path: Path) -> list[tuple[str, str]]:
    """The columns ``file`` and ``label`` of a CSV that a person made or changed.

    Other columns are left out. Semicolons or tabs between the columns, which spreadsheets write in
    many countries, are understood too.

    Raises:
        BadInput: It cannot be read, is no CSV, lacks a column, or has no line below its header.
    """
    try:
        data = path.read_bytes()
        header = data.decode("utf-8").split("\n", 1)[0]
        delimiter = next((sign for sign in ",;\t" if sign in header), ",")
        head, *rows = decode(data, delimiter) or [[]]
    except OSError as error:
        raise BadInput(
            f"The file {path} cannot be read ({error.strerror}). Check the path."
        ) from error
    except ValueError as error:
        raise BadInput(
            f"The file {path} is not a CSV in UTF-8 ({error}). Save it as that, with the columns "
            "file and label."
        ) from error
    names = [name.strip().lower() for name in head]
    for name in ("file", "label"):
        if names.count(name) != 1:
            how = "no column" if name not in names else "more than one column"
            raise BadInput(
                f"The file {path} has {how} {name!r}: its first line is {head}. Give it a first "
                "line with the columns file and label."
            )
    if not rows:
        raise BadInput(f"The file {path} has no line below its header. Name at least one image.")
    file, label = names.index("file"), names.index("label")
    for number, row in enumerate(rows, start=1):
        if len(row) <= max(file, label):
            raise BadInput(
                f"Entry {number} of {path} is {row}, without a file or a label. Give each line a "
                "file and a label."
            )
    return [(row[file], row[label]) for row in rows]


def _cell(value: str | float) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}"
    text = neutralised(value)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
