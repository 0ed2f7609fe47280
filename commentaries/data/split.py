"""Seeded splits into training, trusted and test examples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput, check_positive


class Splits(NamedTuple):
    """Disjoint positions in a data set, each int64 and in random order."""

    train: Tensor
    trusted: Tensor
    test: Tensor


def split(y: Tensor, *, train: int, trusted: int, test: int, seed: int) -> Splits:
    """Draws test, training and trusted examples, in this order, classes in proportion.

    The test and training examples depend on their own sizes and the seed alone, and a smaller
    trusted set is the beginning of a larger one: results for several trusted sizes are paired.

    Args:
        y: (n,) int64 labels.
        train: Number of training examples.
        trusted: Number of trusted examples, as equally spread over the classes as can be.
        test: Number of test examples.
        seed: Of the draw.

    Raises:
        BadInput: A size below one, more examples asked for than there are, or fewer trusted
            examples than classes.
    """
    for name, size in (("train", train), ("trusted", trusted), ("test", test)):
        check_positive(name, size)
    classes = len(y.unique())
    if trusted < classes:
        raise BadInput(
            f"{trusted} trusted examples cannot cover {classes} classes. Give at least one "
            f"trusted example of each class, {classes} in all."
        )
    if train + trusted + test > len(y):
        raise BadInput(
            f"{train} training, {trusted} trusted and {test} test examples are more than the "
            f"{len(y)} there are. Ask for fewer."
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(y), generator=generator)
    test_rows, rest = _proportional(y, shuffled, test)
    train_rows, rest = _proportional(y, rest, train)
    trusted_rows = rest[_alternating(y[rest])][:trusted]
    short = sorted(set(y.unique().tolist()) - set(y[trusted_rows].tolist()))
    if short:
        raise BadInput(
            f"No example of class {short[0]} is left for the trusted set. Ask for fewer training "
            "or test examples."
        )
    return Splits(train_rows, trusted_rows, test_rows)


def _proportional(y: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first rows of each class in proportion to its size, and the rows that are left."""
    labels = y[rows]
    # The k-th of a class of m stands at (k + ½) / m of the way: the nearest ones to the start.
    place = torch.empty(len(rows), dtype=torch.float64)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    order = place.argsort(stable=True)
    return rows[order[:size].sort().values], rows[order[size:].sort().values]


def _alternating(labels: Tensor) -> Tensor:
    """Positions such that the first of each class come first, then the second, and so on."""
    turn = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        turn[own] = torch.arange(len(own))
    return turn.argsort(stable=True)
