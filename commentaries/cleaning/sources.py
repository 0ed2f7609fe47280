"""The examples that a job names: a set that is known by name, or a user's own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..data import LabelledImages, Preparation, corrupt, has_test, load, read, some, split
from ..errors import BadInput
from . import trusted_list
from .options import Job
from .weights_table import Checked

TrustedFrom = Literal["split", "folder", "list", "agreement"]

DIGITS = {"train": 1300, "test": 397}
"""Of the 1,797 embedded ones."""

TRUSTED = 100
"""Examples of a set by name that are trusted, or one of each class if that is more."""


class Sources(NamedTuple):
    """Examples as they were found, before a person corrected any.

    Attributes:
        train: With their given labels; ``files`` names each.
        truth: (n,) their right labels where they are known.
        trusted: Examples with right labels; None where there are none.
        test: Examples with right labels for scoring only.
        trusted_from: Where the trusted ones come from: drawn from a set by name, a folder of
            their own, a list of checked examples of the data, or (there are none) examples on
            whose labels networks agree.
        checked: Those of the data that such a list names.
        skipped: One sentence for each image that was left out.
    """

    train: LabelledImages
    truth: Tensor | None
    trusted: LabelledImages | None
    test: LabelledImages | None
    trusted_from: TrustedFrom
    checked: tuple[Checked, ...] = ()
    skipped: tuple[str, ...] = ()


def gather(job: Job) -> Sources:
    """The examples of a job before corrections."""
    return _own(job) if job.is_own else _by_name(job)


def _by_name(job: Job) -> Sources:
    """A set by name: its parts are drawn, and the training labels made wrong."""
    images = load(job.data, root=job.root, download=job.download).named()
    default = DIGITS if job.data == "digits" else {}
    trusted = job.trusted or max(TRUSTED, len(images.classes))
    assert isinstance(trusted, int)
    assert not isinstance(job.test, Path)
    apart = has_test(job.data)  # its test part
    test = 0 if apart else (job.test or default.get("test") or len(images) // 5)
    train = job.train or default.get("train") or len(images) - trusted - test
    parts = split(images.y, train=train, trusted=trusted, test=test, seed=job.seed)
    if apart:
        held = load(job.data, "test", root=job.root, download=job.download)
        held = some(replace(held, name=f"{held.name}-test").named(), job.test, seed=job.seed)
    else:
        held = images.rows(parts.test)
    given, truth = _with_noise(job, images.rows(parts.train))
    return Sources(given, truth, images.rows(parts.trusted), held, "split")


def _own(job: Job) -> Sources:
    """A user's own images: nothing is known to be right but what the user says."""
    skipped: list[str] = []
    train, preparation = _own_train(job, skipped)

    def beside(place: Path, role: str) -> LabelledImages:
        if place.resolve() == Path(job.data).resolve():
            raise BadInput(
                f"The {role} images and the data are the same, {place}. Give other images, whose "
                "labels were checked."
            )
        return read(
            place,
            preparation=preparation,
            classes=train.classes,
            skip_unreadable=job.skip_unreadable,
            on_skip=skipped.append,
        )[0]

    test = beside(job.test, "test") if isinstance(job.test, Path) else None
    trusted, checked = None, ()
    source: TrustedFrom = "agreement"
    if isinstance(job.trusted, Path):
        trusted, source = beside(job.trusted, "trusted"), "folder"
    elif job.trusted_list is not None:
        rows, labels = trusted_list.read(job.trusted_list, train, job.trusted_per_class)
        trusted, source = replace(train.rows(rows), y=labels), "list"
        checked = checked_of(train.rows(rows), labels)
        train = train.rows(without(rows, len(train)))
        if not len(train):
            raise BadInput(
                f"{job.trusted_list} names all images of {job.data}, so that none is left to "
                "clean. Name fewer, or take fewer by --trusted-per-class."
            )
    given, truth = _with_noise(job, train)
    return Sources(given, truth, trusted, test, source, checked, tuple(skipped))


def draw_trusted_list(job: Job) -> int:
    """Writes the trusted list of a job for a person to check; returns how many images it names.

    Raises:
        BadInput: The data cannot be read, or the job does not say how many of each class.
    """
    assert job.trusted_list is not None
    if job.trusted_per_class is None:
        raise BadInput(
            f"There is no file {job.trusted_list}. Check the path, or say with "
            "--trusted-per-class how many images of each class are to be drawn into it for you to "
            "check."
        )
    path, size, seed = job.trusted_list, job.trusted_per_class, job.seed
    return trusted_list.draw(_own_train(job, [])[0], size, path, seed=seed)


def _own_train(job: Job, skipped: list[str]) -> tuple[LabelledImages, Preparation]:
    """The examples of a user's own data, and how they were prepared."""
    images, preparation = read(
        Path(job.data),
        size=job.size,
        skip_unreadable=job.skip_unreadable,
        on_skip=skipped.append,
    )
    return some(images.named(), job.train, seed=job.seed), preparation


def _with_noise(job: Job, train: LabelledImages) -> tuple[LabelledImages, Tensor | None]:
    """The training examples with given labels, and the right ones where they are known."""
    if job.is_own and job.noise_kind == "none":
        return train, None
    given = corrupt(
        train.x,
        train.y,
        noise=job.noise_kind,
        rate=job.rate,
        classes=train.classes,
        seed=10_000 + job.seed,
    )
    return replace(train, y=given), train.y


def checked_of(images: LabelledImages, labels: Tensor) -> tuple[Checked, ...]:
    """What a person's labels say of some examples.

    Args:
        images: With their given labels.
        labels: (n,) the right ones.
    """
    classes = images.classes
    pairs = zip(images.names, images.y.tolist(), labels.tolist(), strict=True)
    return tuple(Checked(file, classes[given], classes[right]) for file, given, right in pairs)


def without(rows: Tensor, size: int) -> Tensor:
    """The positions that are not among some, in order."""
    stays = torch.ones(size, dtype=torch.bool)
    stays[rows] = False
    return stays.nonzero().flatten()
