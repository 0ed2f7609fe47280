"""Sets for masks, made of sets by name: it is known where to look, and what misleads."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..data import (
    LabelledImages,
    Marked,
    coloured_digits,
    load,
    pasted_digits,
    photo_crops,
    swapped_backgrounds,
)
from .options import MasksJob
from .parts import Parts, by_name, parted


class Marks(NamedTuple):
    """What is known of the images of a job.

    Attributes:
        train: Of the training examples: the cue goes with the label as often as the job says.
        test: Of the test examples: as in training.
        shifted: The test examples once more, with a cue that misleads: never that of the class,
            or, where there are groups of background and class, all groups alike. None where there
            is no such cue.
    """

    train: Marked
    test: Marked
    shifted: Marked | None

    def to(self, device: str) -> Marks:
        """The same on a device."""
        shifted = None if self.shifted is None else self.shifted.to(device)
        return Marks(self.train.to(device), self.test.to(device), shifted)


class _Correlations(NamedTuple):
    """How often the cue goes with the label where the job does not say it.

    Attributes:
        neutral: Where the cue says nothing.
        shifted: In the shifted test.
    """

    neutral: float
    shifted: float


_OTHERS = {"pasted_digits": "cifar10", "pasted_photos": "mnist", "swapped_backgrounds": "cifar100"}
_LABELS = {
    "digits_on_photos": "digits",
    "coloured_mnist": "mnist",
    "pasted_digits": "mnist",
    "pasted_photos": "cifar10",
    "swapped_backgrounds": "cifar10",
}
_CORRELATIONS = {
    "coloured_mnist": _Correlations(0.1, 0.0),
    "pasted_digits": _Correlations(0.1, 0.0),
    "pasted_photos": _Correlations(0.1, 0.0),
    "swapped_backgrounds": _Correlations(0.5, 0.5),
}
CROPS = {"train": 2_000, "validation": 500, "test": 500}
"""Pieces of scikit-learn's photographs behind its digits."""


def gather_marked(job: MasksJob) -> tuple[Parts, Marks]:
    """Makes the images of a job on one of these sets, each part of originals of its own.

    The validation examples, by which the masks are judged, carry the cue at random.

    Raises:
        BadInput: A set that is not there, or more examples asked for than there are.
    """
    train, validation, test = parted(job, *by_name(_LABELS[job.data], job))
    others = _others(job, len(validation) / (len(train) + len(validation)))
    known = _CORRELATIONS.get(job.data)
    usual = None if known is None else job.correlation

    def made(images: LabelledImages, part: int, correlation: float | None) -> Marked:
        seed = 40_000 + 3 * job.seed + part
        return _made(job.data, images, others[part], correlation, seed)

    held = made(validation, 1, None if known is None else known.neutral)
    marks = Marks(
        made(train, 0, usual),
        made(test, 2, usual),
        None if known is None else made(test, 2, known.shifted),
    )
    return Parts(marks.train.images, held.images, marks.test.images), marks


def _made(
    name: str,
    images: LabelledImages,
    other: LabelledImages | None,
    correlation: float | None,
    seed: int,
) -> Marked:
    if name == "coloured_mnist":
        assert correlation is not None
        return coloured_digits(images, correlation=correlation, seed=seed, where="background")
    assert other is not None
    if name == "swapped_backgrounds":
        assert correlation is not None
        return swapped_backgrounds(images, other, correlation=correlation, seed=seed)
    if name == "pasted_photos":
        return pasted_digits(images, other, label="photo", correlation=correlation, seed=seed)
    return pasted_digits(other, images, label="digit", correlation=correlation, seed=seed)


def _others(job: MasksJob, share: float) -> list[LabelledImages | None]:
    """What the images are put together with: for training, validation and test, all disjoint."""
    if job.data == "coloured_mnist":
        return [None, None, None]
    if job.data == "digits_on_photos":
        return [
            photo_crops(CROPS[part], "test" if part == "test" else "train", seed=job.seed + i)
            for i, part in enumerate(CROPS)
        ]
    name = _OTHERS[job.data]
    images = load(name, root=job.root, download=job.download)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(job.seed))
    count = max(1, round(share * len(images)))
    test = load(name, "test", root=job.root, download=job.download)
    return [images.rows(order[count:]), images.rows(order[:count]), test]
