"""Examples as a job works on them: corrected, as features where it has a backbone, on a device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data import LabelledImages
from ..data.record import record
from ..errors import BadInput
from ..networks import backbone, embed
from ..student import Student
from ..training import Recipe
from ..training.students import check_device, rate_scale, student_for
from .learner import Settings
from .options import Job
from .sources import Sources, TrustedFrom, checked_of, gather, without
from .task import Task
from .untrusted import choose_trusted
from .weights_table import Checked

FEATURE_NORM = 5.0
"""Root mean square length of the features of a backbone, which a linear head then learns well."""


class Prepared(NamedTuple):
    """What a job works on.

    Attributes:
        task: The examples, as features where the job has a backbone.
        student: The network.
        pictures: The training examples as images.
        fair: Of the trusted examples, how many of the first are a fair sample of right labels;
            those after them were looked at because they were suspicious.
        trusted_from: See `Sources`.
        checked: The examples of the data whose label a person has checked.
        skipped: One sentence for each image that was left out.
    """

    task: Task
    student: Student
    pictures: LabelledImages
    fair: int
    trusted_from: TrustedFrom
    checked: tuple[Checked, ...]
    skipped: tuple[str, ...]


def prepare(job: Job) -> Prepared:
    """Reads, splits and corrupts the data: a function of the configuration and the data alone.

    Raises:
        BadInput: Data or options that cannot be used.
    """
    return assemble(job, gather(job))


def assemble(job: Job, sources: Sources, *, chosen: Iterable[str] | None = None) -> Prepared:
    """Applies the corrections of a job, its backbone and its student.

    Corrected examples leave the training set; those with a label are trusted from then on.

    Args:
        job: The configuration.
        sources: Its examples.
        chosen: Where there is no trusted set: the files that a run that goes on has chosen in its
            place.
    """
    check_device(job.device)
    train, truth, trusted = sources.train, sources.truth, sources.trusted
    fair = 0 if trusted is None else len(trusted)
    checked = sources.checked
    if job.corrections:
        left, mended, corrected = _corrected(train, dict(job.corrections))
        checked = (*checked, *corrected)
        truth = None if truth is None else truth[left]
        train = train.rows(left)
        if len(mended):
            trusted = mended if trusted is None else joined(trusted, mended)
    pictures, test = train, sources.test
    if job.backbone is not None:
        train, trusted, test = _features(job, train, trusted, test)
    device = torch.device(job.device)
    train = train.to(device)
    student = student_for(train, job.student)
    if sources.trusted_from == "agreement":
        agreed = train.rows(_agreed(job, train, student, chosen))
        trusted = agreed if trusted is None else joined(agreed, trusted.to(device))
    assert trusted is not None  # every other kind has some
    task = Task(
        train,
        trusted.to(device),
        None if truth is None else truth.to(device),
        None if test is None else test.to(device),
    )
    return Prepared(task, student, pictures, fair, sources.trusted_from, checked, sources.skipped)


def settings_for(job: Job, train: LabelledImages) -> Settings:
    """The settings of a job with the learning rate of its network."""
    return replace(job.settings, lr=_lr_scale(job, train, job.student) * job.settings.lr)


def recipe_for(job: Job, train: LabelledImages, name: str | None = None) -> Recipe:
    """The recipe of a job with the learning rate of a network; its own unless there is a name."""
    return replace(job.recipe, lr=_lr_scale(job, train, name or job.student) * job.recipe.lr)


def _lr_scale(job: Job, train: LabelledImages, name: str | None) -> float:
    return job.lr_scale or rate_scale(train, name)


def splits(prepared: Prepared) -> dict[str, Any]:
    """The content of ``splits.json``: which examples were training, trusted and test."""
    task = prepared.task
    parts = {"train": task.train, "trusted": task.trusted, "test": task.test}
    return record(parts, skipped=prepared.skipped, trusted_from=prepared.trusted_from)


def joined(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """The examples of two sets of the same classes, one after the other."""
    return replace(
        first,
        x=torch.cat([first.x, second.x]),
        y=torch.cat([first.y, second.y]),
        files=(*first.names, *second.names),
    )


def _corrected(
    train: LabelledImages, corrections: dict[str, str]
) -> tuple[Tensor, LabelledImages, tuple[Checked, ...]]:
    """The rows that stay in the training set, and the examples that a person has labelled."""
    place = {name: row for row, name in enumerate(train.names)}
    unknown = [file for file in corrections if file not in place]
    if unknown:
        raise BadInput(
            f"The corrections name {unknown[0]!r}, which the training set lacks. Restore the data."
        )
    named = [(place[file], label) for file, label in corrections.items() if label]
    rows = torch.tensor([row for row, _ in named], dtype=torch.int64)
    labels = torch.tensor([train.classes.index(label) for _, label in named], dtype=torch.int64)
    gone = torch.tensor([place[file] for file in corrections], dtype=torch.int64)
    own = train.rows(rows)
    return without(gone, len(train)), replace(own, y=labels), checked_of(own, labels)


def _agreed(
    job: Job, train: LabelledImages, student: Student, chosen: Iterable[str] | None
) -> Tensor:
    """Positions of the training examples that stand in for trusted ones."""
    if chosen is None:
        return choose_trusted(train, student, seed=job.seed, recipe=recipe_for(job, train))
    place = {name: row for row, name in enumerate(train.names)}
    return torch.tensor([place[file] for file in chosen if file in place], dtype=torch.int64)


def _features(
    job: Job, train: LabelledImages, *others: LabelledImages | None
) -> list[LabelledImages]:
    """The sets as features of the job's backbone, centred and scaled by the training set."""
    assert job.backbone is not None
    assert job.backbone_weights is not None
    channels, size = train.x.shape[1:3]
    network = backbone(job.backbone, job.backbone_weights, channels=channels, size=size)
    network.to(job.device)
    found = embed(network, train.x)
    mean = found.mean(0)
    scale = FEATURE_NORM / (found - mean).square().sum(1).mean().sqrt().clamp_min(1e-6)
    sets: list[Any] = [replace(train, x=(found - mean) * scale)]
    for each in others:
        if each is not None:
            each = replace(each, x=(embed(network, each.x) - mean) * scale)
        sets.append(each)
    return sets
