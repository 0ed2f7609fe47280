"""Trusted examples out of the data themselves: a CSV of images whose labels a person has checked.

The columns are ``file`` and ``label``. Where the file does not exist it can be drawn: some images
of each class with the labels that the data give them, for a person to look at and correct.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import torch
from torch import Tensor

from ..data import LabelledImages, spreadsheet
from ..errors import BadInput, unknown
from ..training import atomic


def draw(images: LabelledImages, per_class: int, path: Path, *, seed: int) -> int:
    """Writes a list of images of each class for a person to check, and returns their number.

    Args:
        images: The data with their given labels.
        per_class: Images of each class; of a class that has fewer, all.
        path: The file, which must not exist; missing folders are made.
        seed: Of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    chosen: list[int] = []
    for label in range(len(images.classes)):
        own = order[images.y[order] == label]
        chosen += own[:per_class].sort().values.tolist()
    rows = [(images.file(row), images.classes[int(images.y[row])]) for row in chosen]
    with atomic.explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, spreadsheet.encode([("file", "label"), *rows]))
    return len(rows)


def read(path: Path, images: LabelledImages, per_class: int | None = None) -> tuple[Tensor, Tensor]:
    """The checked examples.

    Args:
        path: A CSV with the columns file and label; the label is the right one and overrides that
            of the data.
        images: The data.
        per_class: At most so many of each class are taken, in the order of the file.

    Returns:
        Their positions and their right labels, (t,) int64 each.

    Raises:
        BadInput: The file cannot be read, names an image or a class that the data lack, gives one
            image two labels, or leaves a class without any.
    """
    rows = {images.file(row): row for row in range(len(images))}
    labels = labels_of(path, rows, images.classes)
    counts = dict.fromkeys(images.classes, 0)
    taken: list[tuple[int, int]] = []
    for file, label in labels.items():
        if per_class is None or counts[label] < per_class:
            taken.append((rows[file], images.classes.index(label)))
        counts[label] += 1
    absent = [name for name, count in counts.items() if not count]
    if absent:
        raise BadInput(
            f"{path} has no image of class {absent[0]!r} ({len(absent)} of {len(counts)} classes "
            "are missing). Add at least one checked image of each class."
        )
    positions, checked = torch.tensor(taken, dtype=torch.int64).T
    return positions, checked


def labels_of(
    path: Path, rows: dict[str, int], classes: tuple[str, ...], *, also: tuple[str, ...] = ()
) -> dict[str, str]:
    """The label of each image that a file of labels names, in its order.

    Args:
        path: A CSV with the columns file and label.
        rows: Position of each image that it may name.
        classes: The labels that it may give.
        also: What may stand in place of a label.

    Raises:
        BadInput: It cannot be read, names an unknown image or class, or one image twice with
            different labels.
    """
    known = {*classes, *also}
    found: dict[str, str] = {}
    for file, label in spreadsheet.read_labels(path):
        if file not in rows:
            raise _unknown_file(file, rows, path)
        if label not in known:
            error = unknown("class", label, classes)
            raise BadInput(f"{path} gives {file!r} the label {label!r}. {error}")
        if found.setdefault(file, label) != label:
            raise BadInput(
                f"{path} gives {file!r} two labels, {found[file]!r} and {label!r}. Keep the right "
                "one."
            )
    return found


def _unknown_file(file: str, rows: dict[str, int], path: Path) -> BadInput:
    near = difflib.get_close_matches(file, rows, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}?" if near else "Write it as in column file of weights.csv."
    return BadInput(f"{path} names {file!r}, which is not among the training images. {hint}")
