"""A person's corrections to the labels of a finished run, and a new run that begins where it ended.

Nothing of the finished run changes. The examples that a person has looked at leave the doubtful
training set: those with a label are trusted from then on, the others are dropped. The new run
carries all corrections so far in its configuration. Its students and its commentary start as the
old ones ended, with fresh optimisers, so that it takes a quarter of the steps.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..data import LabelledImages
from ..errors import BadInput, BadRun
from ..training import RunFolder, TrainState
from .job import make_learner, prepare_again
from .options import Job
from .prepared import Prepared, assemble
from .sources import gather
from .trusted_list import labels_of

REVIEW = "review.json"

DROP = ("", "-")
"""What stands in place of a label for an image to be dropped."""

SHORTER = 4
"""A review takes the steps of the first run divided by this."""


class Review(NamedTuple):
    """A run that is ready to go on, and what it begins with.

    Attributes:
        job: Its configuration.
        prepared: Its examples.
        state: Where the old run ended, as a first state.
        counts: How many labels the person confirmed, changed and dropped.
    """

    job: Job
    prepared: Prepared
    state: TrainState
    counts: dict[str, int]


def review(job: Job, folder: RunFolder, accepted: Path) -> Review:
    """The run that follows a finished one, with the labels of a file.

    Args:
        job: The configuration of the finished run.
        folder: Its folder, which is only read.
        accepted: A CSV with the columns file and label: the right label of each image that a
            person has looked at; - or nothing for an image to be dropped. Other columns are left
            out: an edited ``weights.csv`` without the lines that nobody looked at will do.

    Raises:
        BadInput: The file cannot be read, or names unknown images or labels.
        BadRun: The run is not finished, or its data have changed.
    """
    if not (folder.path / "result.json").exists():
        raise BadRun(f"The run {folder.path} is not finished. Resume it to its end first.")
    sources = gather(job)
    before = prepare_again(job, folder, sources)
    new, counts = corrections(accepted, sources.train)
    corrected = {**dict(job.corrections), **new}
    if len(corrected) == len(sources.train):
        raise BadInput(
            f"With {accepted} all {len(corrected)} training images are named, so that none is left "
            "to learn from. Keep only the lines of the images that you have looked at."
        )
    settings = job.settings
    if not job.corrections:
        settings = replace(settings, steps=-(-settings.steps // SHORTER), warm_up=0)
    following = replace(job, corrections=tuple(corrected.items()), settings=settings)
    prepared = assemble(following, sources)
    old = folder.load_checkpoint(make_learner(job, before.task, before.student).start())
    fresh = make_learner(following, prepared.task, prepared.student).start()
    return Review(following, prepared, warm(fresh, old), counts)


def begin(found: Review, old: RunFolder, path: Path | None) -> RunFolder:
    """Makes the folder of a review, from which it can be resumed."""
    folder = RunFolder.create(path or free_path(old.path), found.job, device=found.job.device)
    result = old.read_json("result.json")
    before = {"of": str(old.path.resolve()), "accuracy": result["accuracy"]["ours"]}
    folder.write_json(REVIEW, {**before, **found.counts})
    folder.save_checkpoint(found.state)
    return folder


def corrections(accepted: Path, train: LabelledImages) -> tuple[dict[str, str], dict[str, int]]:
    """What a person says of training examples: the label of each, "" for those to be dropped.

    Args:
        accepted: The person's file.
        train: All examples before corrections: what was said earlier can be said anew.

    Returns:
        The labels, and how many were confirmed, changed and dropped.

    Raises:
        BadInput: See `review`.
    """
    rows = {name: row for row, name in enumerate(train.names)}
    also = () if set(DROP) & set(train.classes) else DROP
    found = labels_of(accepted, rows, train.classes, also=also)
    found = {file: "" if label in also else label for file, label in found.items()}
    given = {file: train.classes[int(train.y[rows[file]])] for file in found}
    counts = {
        "confirmed": sum(label == given[file] for file, label in found.items()),
        "changed": sum(label not in ("", given[file]) for file, label in found.items()),
        "dropped": sum(label == "" for label in found.values()),
    }
    return found, counts


def warm(fresh: TrainState, old: TrainState) -> TrainState:
    """A first state with the students and the commentary of another run.

    A commentary that belongs to the examples themselves (a table) does not fit other examples:
    it starts anew.
    """
    students = tuple(
        new._replace(theta=was.theta, average=was.average)
        for new, was in zip(fresh.students, old.students, strict=True)
    )
    return fresh._replace(
        phi=old.phi if _shapes(old.phi) == _shapes(fresh.phi) else fresh.phi, students=students
    )


def free_path(path: Path) -> Path:
    """``RUN-review``, or ``RUN-review-2`` and so on, whichever does not exist yet."""
    path = path if path.name not in ("", "..") else path.resolve()
    stem = re.sub(r"-review(-\d+)?$", "", path.name)
    following = path.with_name(f"{stem}-review")
    count = 1
    while os.path.lexists(following):
        count += 1
        following = path.with_name(f"{stem}-review-{count}")
    return following


def sentence(written: Mapping[str, Any], accuracy: float | None) -> str:
    """What a review changed, from its ``review.json`` and the accuracy afterwards."""
    text = (
        f"Reviewed: {written['confirmed']:,} labels confirmed, {written['changed']:,} changed, "
        f"{written['dropped']:,} images dropped."
    )
    if accuracy is None or written["accuracy"] is None:
        return text
    return f"{text} Test accuracy {written['accuracy']:.1%} before, {accuracy:.1%} after."


def _shapes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.shape for name, value in values.items()}
