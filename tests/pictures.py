"""Folders of real images that tests write: scikit-learn's digits as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from commentaries.data import load

NAMES = ("naught", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_digits(
    folder: Path, rows: range, *, wrong: Mapping[int, int] | None = None, classes: int = 10
) -> Path:
    """Writes some digits, ``folder/<class>/<row>.png``.

    Args:
        folder: Where to; it is made.
        rows: Positions in the set; those of later classes are left out.
        wrong: Position -> the class in whose folder it is put in place of its own.
        classes: How many of the first ones.
    """
    digits = load("digits")
    for row in rows:
        truth = int(digits.y[row])
        if truth >= classes:
            continue
        place = folder / NAMES[(wrong or {}).get(row, truth)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (digits.x[row, 0].numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{row}.png")
    return folder


def write_parts(
    root: Path, data: range, trusted: range, test: range, *, wrong: Mapping[int, int]
) -> Path:
    """Writes digits to ``root/data``, ``root/trusted`` and ``root/test``; returns the root.

    Args:
        root: Where to; it is made.
        data: Positions in the set.
        trusted: Others.
        test: Others.
        wrong: As in `write_digits`, of the data.
    """
    write_digits(root / "data", data, wrong=wrong)
    write_digits(root / "trusted", trusted)
    write_digits(root / "test", test)
    return root
