"""What a run says of each example: ``weights.csv``, ``cleaned.txt`` and ``corrected.csv``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from ..data import spreadsheet
from ..errors import BadRun
from ..training import RunFolder, atomic


class Line(NamedTuple):
    """What was found out about one training example.

    Attributes:
        file: Its path as under the data folder, or the set's name and its position there.
        label: Its given label.
        weight: What that label counts, in (0, 1).
        suspicion: Higher for labels that are more likely wrong.
        suggested: The most likely label.
        confidence: Its probability.
    """

    file: str
    label: str
    weight: float
    suspicion: float
    suggested: str
    confidence: float


class Checked(NamedTuple):
    """An example of the data whose label a person has checked.

    Attributes:
        file: As in `Line`.
        given: The label that the data gave it.
        label: The right one.
    """

    file: str
    given: str
    label: str


def write_weights(folder: RunFolder, lines: Iterable[Line]) -> None:
    """Replaces ``weights.csv``: see `spreadsheet` for how its cells are written."""
    data = spreadsheet.encode([Line._fields, *lines])
    atomic.write_bytes(folder.path / "weights.csv", data)


def read_weights(folder: RunFolder) -> list[Line]:
    """The lines of ``weights.csv`` in the order of the training examples.

    Raises:
        BadRun: It is missing or was changed.
    """
    path = folder.path / "weights.csv"
    with atomic.explained(path, "read"):
        data = path.read_bytes()
    try:
        head, *lines = spreadsheet.decode(data)
        if tuple(head) != Line._fields:
            raise ValueError("other columns")
        return [
            Line(name, label, float(weight), float(suspicion), suggested, float(confidence))
            for name, label, weight, suspicion, suggested, confidence in lines
        ]
    except ValueError as error:
        raise BadRun(
            f"{path} is not a table of weights as a run writes it ({error}). Restore it, or start "
            "a new run."
        ) from error


def write_cleaned(folder: RunFolder, lines: Iterable[Line], checked: Iterable[Checked]) -> None:
    """Replaces ``cleaned.txt`` and ``corrected.csv``: what is worth training with.

    ``cleaned.txt`` has one path per line: the examples whose given label is the most likely one,
    or was confirmed by a person. A path that holds a line break or begins with a double quote is
    written as a JSON string, in double quotes, so that a line is always one path.
    ``corrected.csv`` has the columns file and label: the same examples, and those to which a
    person gave another label. Suggestions that nobody has looked at are in neither.
    """
    kept = [(line.file, line.label) for line in lines if line.suggested == line.label]
    confirmed = [(each.file, each.label) for each in checked if each.label == each.given]
    mended = [(each.file, each.label) for each in checked if each.label != each.given]
    text = "".join(f"{one_line(file)}\n" for file, _ in kept + confirmed)
    atomic.write_bytes(folder.path / "cleaned.txt", text.encode("utf-8", "surrogateescape"))
    data = spreadsheet.encode([("file", "label"), *kept, *confirmed, *mended])
    atomic.write_bytes(folder.path / "corrected.csv", data)


def one_line(path: str) -> str:
    """A path as a line of ``cleaned.txt``."""
    whole = path.splitlines() == [path] and not path.startswith('"')
    return path if whole else json.dumps(path)


def most_distrusted(lines: list[Line], count: int | None = None) -> list[int]:
    """Positions of the lines with the highest suspicion, highest first; all without a count."""
    return sorted(range(len(lines)), key=lambda row: -lines[row].suspicion)[:count]
