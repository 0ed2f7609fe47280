"""Labelled images in memory, and the sets that can be loaded by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput, unknown


@dataclass(frozen=True)
class LabelledImages:
    """A data set that fits in memory.

    Attributes:
        x: (n, channels, height, width) float32.
        y: (n,) int64 labels below the number of classes.
        classes: Their names.
        name: Of the set.

    Raises:
        BadInput: Shapes that do not fit, pixels that are not finite, labels out of range, fewer
            than two classes among the labels.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str = "images"

    def __post_init__(self) -> None:
        if self.x.dim() != 4 or self.y.shape != self.x.shape[:1]:
            raise BadInput(
                f"{self.name}: images of shape {tuple(self.x.shape)} and labels of shape "
                f"{tuple(self.y.shape)} do not fit. Give images (n, channels, height, width) and "
                "labels (n,)."
            )
        if self.y.dtype != torch.int64:
            raise BadInput(
                f"{self.name}: labels have the type {self.y.dtype}. Convert them to whole numbers "
                "(torch.int64)."
            )
        broken = (~torch.isfinite(self.x).flatten(1).all(1)).nonzero().flatten()
        if len(broken):
            raise BadInput(
                f"{self.name}: {len(broken)} of {len(self.x)} images hold pixels that are not "
                f"finite, the first at position {int(broken[0])}. Remove or repair them."
            )
        outside = ((self.y < 0) | (self.y >= len(self.classes))).nonzero().flatten()
        if len(outside):
            first = int(outside[0])
            raise BadInput(
                f"{self.name}: the label {int(self.y[first])} at position {first} is out of range "
                f"for {len(self.classes)} classes. Number the classes from 0 without gaps."
            )
        if len(self.y.unique()) < 2:
            raise BadInput(
                f"{self.name}: all {len(self.y)} labels are of one class, so there is nothing to "
                "tell apart. Give examples of at least two classes."
            )

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images and labels at some positions."""
        return self.x[index], self.y[index]


def load(name: str) -> LabelledImages:
    """A data set by name.

    Args:
        name: "digits": scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, in [0, 1].

    Raises:
        BadInput: An unknown name; the message proposes the nearest known one.
    """
    if name not in _LOADERS:
        raise unknown("data set", name, _LOADERS)
    return _LOADERS[name]()


def _digits() -> LabelledImages:
    from sklearn.datasets import load_digits  # half a second to import

    pixels, labels = load_digits(return_X_y=True)
    return LabelledImages(
        torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16,
        torch.tensor(labels, dtype=torch.int64),
        tuple(str(digit) for digit in range(10)),
        "digits",
    )


_LOADERS: dict[str, Callable[[], LabelledImages]] = {"digits": _digits}
