"""Drawings in colours that go with their classes, more or less often."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import unknown
from .boxes import CHUNK, ink_boxes
from .images import LabelledImages
from .marked import CUE_GROUPS, Marked, agreement, check_pictures
from .spurious import spurious_cue

Where = Literal["ink", "background"]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (230, 25, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 255),
    "yellow": (255, 225, 25),
    "magenta": (240, 50, 230),
    "cyan": (70, 230, 240),
    "orange": (255, 130, 0),
    "purple": (125, 60, 160),
    "pink": (255, 185, 205),
    "brown": (150, 95, 40),
}
"""Colours that are easily told apart on black, red, green and blue from 0 to 255."""

BACKGROUND_BRIGHTNESS = 0.5
"""Of the colours where they are the background, so that white ink stands out on each."""


def coloured_digits(
    digits: LabelledImages, *, correlation: float = 0.9, seed: int, where: Where = "ink"
) -> Marked:
    """Grey drawings in colour, where the colour goes with the class.

    Class c has the c-th colour of `PALETTE`. Of the n_c images of a class exactly
    round(correlation · n_c) are in its colour, each of the others in one of the other classes'
    colours, all equally likely. A cue that flips is a test set with correlation 0; one that says
    nothing has 1 / classes, which is what trusted images should have. Colour them after they are
    split: ``coloured_digits(mnist.rows(splits.trusted), correlation=0.1, seed=1)``.

    The pixels are v · colour for ink of brightness v, or, with the background coloured,
    v + (1 − v) · colour / 2. A mask that multiplies the image can remove the colour only where it
    is the background.

    Args:
        digits: (n, 1, height, width) bright ink on black paper: "mnist", "fashion_mnist",
            "digits", "omniglot" or others, of at most ten classes.
        correlation: Share of each class in its own colour, in [0, 1].
        seed: Of everything random. The same seed with a larger correlation changes some images to
            the colour of their class and leaves the rest.
        where: What is coloured, the ink or the background.

    Returns:
        The images (n, 3, height, width) in the order given. box: the ink, which the label is
        about. cue: the colour. group: whether the colour is that of the class.

    Raises:
        BadInput: Images that are not grey or have no ink, more classes than colours, a correlation
            out of range.

    Reference: after Arjovsky et al., "Invariant risk minimization", 2019, section 5 (two colours
    there).
    """
    if where not in get_args(Where):
        raise unknown("place for colour", str(where), get_args(Where))
    check_pictures(digits, "digits", 1)
    names = tuple(PALETTE)[: len(digits.classes)]
    generator = torch.Generator().manual_seed(seed)
    cue = spurious_cue(digits.y, cues=len(names), correlation=correlation, generator=generator)
    n, _, height, width = digits.x.shape
    x = digits.x.new_empty(n, 3, height, width)
    for rows in torch.arange(n, device=x.device).split(CHUNK):
        x[rows] = _painted(digits.x[rows], palette(x)[cue[rows]][:, :, None, None], where)
    return Marked(
        images=LabelledImages(x, digits.y, digits.classes, f"coloured_{digits.name}", digits.files),
        box=ink_boxes(digits.x, digits.name),
        inside="label",
        cue=cue,
        cues=names,
        group=agreement(digits.y, cue),
        groups=CUE_GROUPS,
    )


def palette(like: Tensor) -> Tensor:
    """(colours, 3) `PALETTE` in [0, 1], of the type and on the device of another tensor."""
    return torch.tensor(list(PALETTE.values())).to(like) / 255


def _painted(ink: Tensor, colour: Tensor, where: Where) -> Tensor:
    if where == "ink":
        return ink * colour
    return torch.lerp(BACKGROUND_BRIGHTNESS * colour, torch.ones_like(colour), ink)
