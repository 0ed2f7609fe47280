"""A handwritten digit somewhere on a photo: one of the two is the label."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import BadInput, unknown
from .boxes import CHUNK, drawn_places, placed, scaled_ink
from .images import LabelledImages
from .marked import CUE_GROUPS, Marked, agreement, check_pictures, check_size
from .spurious import partners, spurious_cue

Label = Literal["digit", "photo"]


def pasted_digits(
    photos: LabelledImages,
    digits: LabelledImages,
    *,
    label: Label,
    correlation: float | None = None,
    seed: int,
    size: int = 14,
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Marked:
    """Photos with a digit at a place drawn for each, which is recorded.

    The images that carry the label are taken once each, in the order given; the others, which
    distract, are drawn, none twice before all have come. Give training, trusted and test sets
    photos and digits of their own, so that none is seen in two of them.

    A digit is cut to its ink and scaled so that the longer side is `size`. Its place is uniform
    over all where it lies wholly within the photo. With ink of brightness v a pixel becomes
    v · colour + (1 − v) · photo: beside the box, and between the strokes, the photo is untouched.

    Args:
        photos: (n, 3, height, width), such as "cifar10".
        digits: (m, 1, h, w) bright ink on black paper, such as "mnist".
        label: "digit": the digit's class is the label, and the photo distracts. "photo": the other
            way round.
        correlation: Share of each class whose distractor is of the class of the same number, the
            others being of one of the other classes, all equally likely: see `spurious_cue`. A
            cue that flips is a test set with correlation 0. None: distractors as they come,
            whatever the label.
        seed: Of everything random. Of how far down and to the right of its range a digit lies, the
            correlation changes nothing.
        size: Longer side of the digit's ink in pixels.
        colour: Of the ink: red, green, blue in [0, 1].

    Returns:
        As many images as there are of the set that carries the label, of the photos' size. box:
        the digit's ink; `inside` is "label" for label="digit", and for label="photo" it is "cue":
        there the box is where *not* to look. cue: the class of the distractor. group: whether
        that has the number of the label's class.

    Raises:
        BadInput: Photos without three channels, digits that are not grey or have no ink, a digit
            larger than the photos, a correlation out of range or between sets of different
            numbers of classes, a colour out of range.
    """
    if label not in get_args(Label):
        raise unknown("label", str(label), get_args(Label))
    check_pictures(photos, "photos", 3)
    check_pictures(digits, "digits", 1)
    height, width = photos.x.shape[2:]
    check_size(size, height, width, "a digit")
    if len(colour) != 3 or not all(0 <= each <= 1 for each in colour):
        raise BadInput(
            f"The colour is {colour}, but must be red, green and blue in [0, 1]. Use (1, 1, 1) for "
            "white."
        )
    digits = digits.to(photos.x.device)
    named, distractors = (digits, photos) if label == "digit" else (photos, digits)
    generator = torch.Generator().manual_seed(seed)
    place_seed = int(torch.randint(2**63 - 1, (), generator=generator))
    chosen = _drawn(named, distractors, correlation, generator)
    order = torch.arange(len(named), device=chosen.device)
    photo, digit = (chosen, order) if label == "digit" else (order, chosen)

    ink, extent = scaled_ink(digits.x, size, digits.name)
    places = torch.Generator().manual_seed(place_seed)
    box = drawn_places(extent[digit], height, width, places)
    paint = torch.tensor(colour).to(photos.x)[:, None, None]
    x = photos.x.new_empty(len(named), 3, height, width)
    for rows in order.split(CHUNK):
        weight = placed(ink[digit[rows]], box[rows, :2], height, width)
        x[rows] = torch.lerp(photos.x[photo[rows]], paint, weight)
    cue = distractors.y[chosen]
    return Marked(
        images=LabelledImages(x, named.y, named.classes, _name(photos, digits, label), named.files),
        box=box,
        inside="label" if label == "digit" else "cue",
        cue=cue,
        cues=distractors.classes,
        group=agreement(named.y, cue),
        groups=CUE_GROUPS,
    )


def _drawn(
    named: LabelledImages,
    distractors: LabelledImages,
    correlation: float | None,
    generator: torch.Generator,
) -> Tensor:
    """(n,) position of each example's distractor."""
    if correlation is None:
        every = torch.zeros(len(named), dtype=torch.int64)
        return partners(every, torch.zeros_like(distractors.y), kinds=("any",), generator=generator)
    if len(named.classes) != len(distractors.classes):
        raise BadInput(
            f"The {len(named.classes)} classes of {named.name} cannot be tied to the "
            f"{len(distractors.classes)} of {distractors.name}. Keep as many of each, or use "
            "correlation=None."
        )
    cue = spurious_cue(
        named.y, cues=len(named.classes), correlation=correlation, generator=generator
    )
    return partners(cue, distractors.y, kinds=distractors.classes, generator=generator)


def _name(photos: LabelledImages, digits: LabelledImages, label: Label) -> str:
    if label == "digit":
        return f"{digits.name}_on_{photos.name}"
    return f"{photos.name}_with_{digits.name}"
