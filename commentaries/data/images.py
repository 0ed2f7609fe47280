"""Labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import BadInput


@dataclass(frozen=True)
class LabelledImages:
    """A data set that fits in memory.

    Attributes:
        x: (n, channels, height, width) float32 pixels in [0, 1] as the loaders give them, never
            normalised (networks do that); or (n, d) float32 features of a frozen network.
        y: (n,) int64 labels below the number of classes.
        classes: Their names, all different.
        name: Of the set.
        files: (n,) path of each example as under the data folder, "/" between the parts; empty
            where there are none.

    Raises:
        BadInput: Shapes that do not fit, pixels that are not finite, labels out of range, a class
            name that comes twice.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    name: str = "images"
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.x.dim() not in (2, 4) or self.y.shape != self.x.shape[:1]:
            raise BadInput(
                f"{self.name}: images of shape {tuple(self.x.shape)} and labels of shape "
                f"{tuple(self.y.shape)} do not fit. Give images (n, channels, height, width) or "
                "features (n, d), and labels (n,)."
            )
        if self.files and len(self.files) != len(self.y):
            raise BadInput(
                f"{self.name}: {len(self.files)} files and {len(self.y)} labels do not fit. Give "
                "one file for each example, or none at all."
            )
        if self.x.dtype != torch.float32:
            raise BadInput(
                f"{self.name}: images have the type {self.x.dtype}. Convert them to torch.float32, "
                "bytes divided by 255."
            )
        if self.y.dtype != torch.int64:
            raise BadInput(
                f"{self.name}: labels have the type {self.y.dtype}. Convert them to whole numbers "
                "(torch.int64)."
            )
        if len(set(self.classes)) != len(self.classes):
            twice = next(each for each in self.classes if self.classes.count(each) > 1)
            raise BadInput(
                f"{self.name}: two classes are named {twice!r}. Give each class a name of its own."
            )
        self._check_finite()
        outside = ((self.y < 0) | (self.y >= len(self.classes))).nonzero().flatten()
        if len(outside):
            first = int(outside[0])
            raise BadInput(
                f"{self.name}: the label {int(self.y[first])} at position {first} is out of range "
                f"for {len(self.classes)} classes. Number the classes from 0 without gaps."
            )

    def __len__(self) -> int:
        return len(self.y)

    def file(self, row: int) -> str:
        """What example `row` is called: its file, else the set's name and the row."""
        return self.files[row] if self.files else f"{self.name}/{row}"

    @property
    def names(self) -> list[str]:
        """What each example is called."""
        return [self.file(row) for row in range(len(self))]

    def named(self) -> LabelledImages:
        """The same with a name for each example, which it keeps in every part."""
        return self if self.files else replace(self, files=tuple(self.names))

    def rows(self, index: Tensor) -> LabelledImages:
        """The examples at some positions, in that order.

        Args:
            index: (m,) int64 positions, or (n,) bool.
        """
        index = index.to(self.y.device)
        files = self.files
        if files:
            positions = index.nonzero().flatten() if index.dtype == torch.bool else index
            files = tuple(files[row] for row in positions.tolist())
        return replace(self, x=self.x[index], y=self.y[index], files=files)

    def to(self, device: torch.device | str) -> LabelledImages:
        """The same examples with images and labels on a device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def check_two_classes(self) -> None:
        """Refuses labels that are all of one class; a part of a set may well have such.

        Raises:
            BadInput: Fewer than two classes among the labels.
        """
        if len(self.y.unique()) < 2:
            raise BadInput(
                f"{self.name}: all {len(self.y)} labels are of one class, so there is nothing to "
                "tell apart. Give examples of at least two classes."
            )

    def _check_finite(self) -> None:
        if not self.x.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(self.x)):
            return
        broken = (~torch.isfinite(self.x).flatten(1).all(1)).nonzero().flatten()
        raise BadInput(
            f"{self.name}: {len(broken)} of {len(self.x)} images hold pixels that are not "
            f"finite, the first at position {int(broken[0])}. Remove or repair them."
        )
