"""Images of which is known where to look and what misleads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import BadInput
from .boxes import region
from .images import LabelledImages

Inside = Literal["label", "cue"]

CUE_GROUPS = ("cue agrees", "cue disagrees")
"""Groups of a set in which each class has a cue of its own."""


@dataclass(frozen=True)
class Marked:
    """Labelled images with a box, a spurious cue and a group for each.

    Attributes:
        images: The images and their labels.
        box: (n, 4) int64 top, left, bottom, right in pixels; the last row and column lie before
            bottom and right, so that ``x[:, top:bottom, left:right]`` is what is inside.
        inside: What the box holds. "label": what the label is about, where to look. "cue": what
            misleads, where not to look.
        cue: (n,) int64 the spurious cue of each image, a position in `cues`.
        cues: Names of the cues, all different.
        group: (n,) int64 the group of each image, a position in `groups`, for the accuracy of the
            worst group.
        groups: Names of the groups, all different; some may have no image.

    Raises:
        BadInput: Features in place of images, tensors of other shapes or types, boxes that are
            empty or reach out of the image, cues or groups out of range.
    """

    images: LabelledImages
    box: Tensor
    inside: Inside
    cue: Tensor
    cues: tuple[str, ...]
    group: Tensor
    groups: tuple[str, ...]

    def __post_init__(self) -> None:
        name, n = self.images.name, len(self.images)
        if self.images.x.dim() != 4:
            raise BadInput(
                f"{name}: features of shape {tuple(self.images.x.shape)} have no places. Give "
                "images (n, channels, height, width)."
            )
        for what, given, shape in (
            ("boxes", self.box, (n, 4)),
            ("cues", self.cue, (n,)),
            ("groups", self.group, (n,)),
        ):
            if tuple(given.shape) != shape or given.dtype != torch.int64:
                raise BadInput(
                    f"{name}: {what} of shape {tuple(given.shape)} and type {given.dtype} do not "
                    f"fit {n} images. Give whole numbers (torch.int64) of shape {shape}."
                )
        if self.inside not in ("label", "cue"):
            raise BadInput(
                f"{name}: inside is {self.inside!r}. Say 'label' where the boxes hold what the "
                "label is about and 'cue' where they hold what misleads."
            )
        self._check_boxes()
        for what, given, names in (
            ("cue", self.cue, self.cues),
            ("group", self.group, self.groups),
        ):
            if len(set(names)) < len(names):
                raise BadInput(f"{name}: a {what} is named twice in {names}. Name each once.")
            outside = ((given < 0) | (given >= len(names))).nonzero().flatten()
            if len(outside):
                raise BadInput(
                    f"{name}: the {what} {int(given[outside[0]])} at position {int(outside[0])} is "
                    f"out of range for {len(names)} names. Number them from 0."
                )

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, index: Tensor) -> Marked:
        """The examples at some positions, in that order, each with its box, cue and group.

        Args:
            index: (m,) int64 positions, or (n,) bool.
        """
        index = index.to(self.box.device)
        return replace(
            self,
            images=self.images.rows(index),
            box=self.box[index],
            cue=self.cue[index],
            group=self.group[index],
        )

    def to(self, device: torch.device | str) -> Marked:
        """The same examples with all tensors on a device."""
        return replace(
            self,
            images=self.images.to(device),
            box=self.box.to(device),
            cue=self.cue.to(device),
            group=self.group.to(device),
        )

    def region(self) -> Tensor:
        """(n, 1, height, width) bool: the pixels inside each box."""
        return region(self.box, self.images.x.shape[2], self.images.x.shape[3])

    def _check_boxes(self) -> None:
        height, width = self.images.x.shape[2:]
        top, left, bottom, right = self.box.unbind(1)
        inside = (top >= 0) & (top < bottom) & (bottom <= height)
        inside &= (left >= 0) & (left < right) & (right <= width)
        broken = (~inside).nonzero().flatten()
        if len(broken):
            raise BadInput(
                f"{self.images.name}: the box {self.box[broken[0]].tolist()} at position "
                f"{int(broken[0])} is empty or not within {height} x {width} pixels. Give top, "
                "left, bottom and right with top < bottom and left < right."
            )


def agreement(y: Tensor, cue: Tensor) -> Tensor:
    """(n,) int64 position in `CUE_GROUPS`: 0 where the cue is that of the image's class."""
    return (y != cue).long()


def check_pictures(images: LabelledImages, what: str, channels: int) -> None:
    """Refuses sets that are empty, features, or images with another number of channels.

    Args:
        images: The set.
        what: What it is for, in the plural, as in "digits".
        channels: How many there must be; 1 or 3.
    """
    if images.x.dim() != 4 or images.x.shape[1] != channels:
        kind = "grey images, (n, 1," if channels == 1 else "colour images, (n, 3,"
        raise BadInput(
            f"The {what} {images.name} have the shape {tuple(images.x.shape)}. Give {kind} height, "
            "width)."
        )
    if not len(images):
        raise BadInput(f"The {what} {images.name} are empty. Give at least one image.")


def check_size(size: int, height: int, width: int, what: str) -> None:
    """Refuses a side in pixels that is no whole number from 1 to the shorter side of an image."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= min(height, width):
        raise BadInput(
            f"size is {size}, but {what} of that many pixels must fit into {height} x {width}. "
            f"Choose a whole number from 1 to {min(height, width)}."
        )
