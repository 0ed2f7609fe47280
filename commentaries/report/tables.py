"""Tables for the terminal and for Markdown, and the interval that stands beside every mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from ..errors import BadInput

Cell = str | int | float | None
"""What a table holds; ``None`` is shown as a dash."""


class Interval(NamedTuple):
    """A mean and the two ends of its confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float] | np.ndarray, *, level: float = 0.95) -> Interval:
    """The mean and its Student-t interval, mean ± t(n - 1) · s / √n.

    Args:
        values: (n,) independent measurements, one per seed.
        level: Confidence level, between 0 and 1.

    Returns:
        (mean, low, high). One value says nothing of its spread: low = high = mean.

    Raises:
        BadInput: Without values, or with a level that is not between 0 and 1.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise BadInput(
            f"An interval needs one or more values in one dimension, not the shape {sample.shape}. "
            "Pass one number per seed."
        )
    if not 0 < level < 1:
        raise BadInput(
            f"The confidence level is {level}. Choose one between 0 and 1, such as 0.95."
        )
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, mean, mean)
    quantile = float(stdtrit(sample.size - 1, (1 + level) / 2))
    half = quantile * float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return Interval(mean, mean - half, mean + half)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table for the terminal: aligned, numbers to the right, floats with 3 decimals.

    Args:
        columns: Column headings.
        rows: One sequence of cells per row, as long as ``columns``.

    Raises:
        BadInput: If a row is not as long as ``columns``.
    """
    right = numeric_columns(columns, rows)
    cells = [[_printable(str(column)) for column in columns]]
    cells += [[_printable(format_cell(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def markdown_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    align_right: Sequence[bool] | None = None,
) -> str:
    """A GitHub Markdown table; floats with 3 decimals.

    Args:
        columns: Column headings.
        rows: One sequence of cells per row, as long as ``columns``.
        align_right: Which columns are set to the right; by default those of numbers.

    Raises:
        BadInput: If a row is not as long as ``columns``.
    """
    numeric = numeric_columns(columns, rows)
    right = numeric if align_right is None else align_right
    lines = [
        [_one_line(str(column)) for column in columns],
        ["---:" if is_right else "---" for is_right in right],
    ]
    lines += [[_one_line(format_cell(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_cell(cell: Cell) -> str:
    """A cell as text: 3 decimals, scientific where those would show zero, a dash for ``None``."""
    if cell is None:
        return "–"
    if isinstance(cell, (bool, np.bool_)):
        return "yes" if cell else "no"
    if isinstance(cell, (str, Integral)):
        return str(cell)
    number = float(cell)
    if number != 0 and (abs(number) < 5e-4 or abs(number) >= 1e7) and math.isfinite(number):
        return f"{number:.1e}"
    return f"{number:.3f}"


def numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """Which columns hold numbers only (and ``None``): these are set to the right.

    Raises:
        BadInput: If a row is not as long as ``columns``.
    """
    for row in rows:
        if len(row) != len(columns):
            raise BadInput(
                f"A table row has {len(row)} cells for {len(columns)} columns: {list(row)!r}. "
                "Give every row one cell per column, None where there is no value."
            )
    return [
        any(_is_number(row[at]) for row in rows)
        and all(row[at] is None or _is_number(row[at]) for row in rows)
        for at in range(len(columns))
    ]


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, Real) and not isinstance(cell, (bool, np.bool_))


def _printable(text: str) -> str:
    """Names come from users' folders: nothing in them may move the cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
