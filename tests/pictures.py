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
