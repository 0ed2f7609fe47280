"""Seeded splits into training, trusted and test examples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput, check_not_negative, check_positive
from .images import LabelledImages


class Splits(NamedTuple):
    """Disjoint positions in a data set, each int64 and in random order.

    Kept with a run as JSON, they say which examples the weights were learned from, so that a
    later training can leave out the trusted ones, which are the meta-validation examples.
    """

    train: Tensor
    trusted: Tensor
    test: Tensor

    def to_lists(self) -> dict[str, list[int]]:
        """The positions as JSON can hold them."""
        return {name: rows.tolist() for name, rows in self._asdict().items()}

    @classmethod
    def from_lists(cls, kept: object) -> Splits:
        """The splits that `to_lists` was given.

        Raises:
            BadInput: Other names, positions that are no whole numbers from 0, or that come twice.
        """
        if not isinstance(kept, dict) or set(kept) != set(cls._fields):
            raise BadInput(
                f"These are not the splits of a run, which name {', '.join(cls._fields)}. Restore "
                "the file, or start a new run."
            )
        every = [row for rows in kept.values() for row in (rows if isinstance(rows, list) else "?")]
        if not all(type(row) is int and row >= 0 for row in every) or len(set(every)) < len(every):
            raise BadInput(
                "These are not the splits of a run: positions must be whole numbers from 0, each "
                "only once. Restore the file, or start a new run."
            )
        return cls(*(torch.tensor(kept[name], dtype=torch.int64) for name in cls._fields))


def split(y: Tensor, *, train: int, trusted: int, test: int, seed: int) -> Splits:
    """Draws test, training and trusted examples, in this order, classes in proportion.

    The test and training examples depend on their own sizes and the seed alone, and a smaller
    trusted set is the beginning of a larger one: results for several trusted sizes are paired.

    Args:
        y: (n,) int64 labels.
        train: Number of training examples.
        trusted: Number of trusted examples, as equally spread over the classes as can be.
        test: Number of test examples, 0 where they are another set.
        seed: Of the draw.

    Raises:
        BadInput: A size below one (of the test set: below zero), more examples asked for than
            there are, or fewer trusted examples than classes.
    """
    check_positive("train", train)
    check_positive("trusted", trusted)
    check_not_negative("test", test)
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
    test_rows, rest = proportional(y, shuffled, test)
    train_rows, rest = proportional(y, rest, train)
    trusted_rows = rest[_alternating(y[rest])][:trusted]
    short = sorted(set(y.unique().tolist()) - set(y[trusted_rows].tolist()))
    if short:
        raise BadInput(
            f"No example of class {short[0]} is left for the trusted set. Ask for fewer training "
            "or test examples."
        )
    return Splits(train_rows, trusted_rows, test_rows)


def proportional(y: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The first rows of each class in proportion to its size, and the rows that are left."""
    labels = y[rows]
    # The k-th of a class of m stands at (k + ½) / m of the way: the nearest ones to the start.
    place = torch.empty(len(rows), dtype=torch.float64)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    order = place.argsort(stable=True)
    return rows[order[:size].sort().values], rows[order[size:].sort().values]


def some(images: LabelledImages, size: int | None, *, seed: int) -> LabelledImages:
    """So many of the examples, classes in proportion; all without a number.

    Raises:
        BadInput: There are fewer.
    """
    if size is None or size == len(images):
        return images
    if size > len(images):
        raise BadInput(
            f"{size} examples are asked for, and {images.name} has {len(images)}. Ask for fewer."
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.rows(proportional(images.y, order, size)[0])


def _alternating(labels: Tensor) -> Tensor:
    """Positions such that the first of each class come first, then the second, and so on."""
    turn = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        turn[own] = torch.arange(len(own))
    return turn.argsort(stable=True)
