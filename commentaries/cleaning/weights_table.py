"""``weights.csv``: one line for each training example, as its run has written it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import BadRun
from ..training import RunFolder, atomic


class Line(NamedTuple):
    """What was found out about one training example.

    Attributes:
        file: Where the example comes from.
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


def write_weights(folder: RunFolder, lines: Iterable[Line]) -> None:
    """Replaces ``weights.csv``, numbers to six digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Line._fields)
    for line in lines:
        writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line)
    atomic.write_bytes(folder.path / "weights.csv", buffer.getvalue().encode())


def read_weights(folder: RunFolder) -> list[Line]:
    """The lines of ``weights.csv`` in the order of the training examples.

    Raises:
        BadRun: It is missing or was changed.
    """
    path = folder.path / "weights.csv"
    with atomic.explained(path, "read"):
        data = path.read_bytes()
    try:
        head, *lines = csv.reader(io.StringIO(data.decode(), newline=""))
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


def most_distrusted(lines: list[Line], count: int) -> list[int]:
    """Positions of the lines with the highest suspicion, highest first."""
    return sorted(range(len(lines)), key=lambda row: -lines[row].suspicion)[:count]
