"""What the commands do with each kind of run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cleaning import job as cleaning
from ..cleaning.prepared import prepare
from ..cleaning.teach import teach
from ..cleaning.weights_table import most_distrusted, read_weights
from ..report import text_table
from ..report.few_shot_page import few_shot_text, write_few_shot_page
from ..report.lesson_page import write_lesson_page
from ..report.terminal import (
    describe,
    describe_few_shot,
    describe_lesson,
    lesson_table,
    lesson_text,
    result_text,
    scores_table,
)
from ..report.weights_page import write_weights_page
from ..teaching import few_shot
from ..teaching import job as lessons
from ..training import RunFolder


@dataclass(frozen=True)
class Kind:
    """A kind of run, as the commands see it.

    Attributes:
        prepare: From the job, what its run needs; refuses what cannot work.
        prepare_again: The same from the job and the folder of a run.
        skipped: A sentence for each image that was left out of what was prepared.
        run: Goes on with a run to its result.
        write_page: Writes the report of a finished run.
        steps: How many steps the run takes.
        describe: What a run works on, in a line.
        result: What a finished run found.
        files: Where the rest of it is.
        details: What `inspect` adds to the result.
        teach: Trains a new student and says how it did; None where there is nothing to teach with.
    """

    prepare: Callable[[Any], Any]
    prepare_again: Callable[[Any, RunFolder], Any]
    skipped: Callable[[Any], Sequence[str]]
    run: Callable[..., Any]
    write_page: Callable[[RunFolder, Any, Any], Path]
    steps: Callable[[Any], int]
    describe: Callable[[Any, RunFolder], str]
    result: Callable[[Any, RunFolder], str]
    files: Callable[[RunFolder], str] = lambda folder: ""
    details: Callable[[RunFolder], str] = lambda folder: ""
    teach: Callable[..., str] | None = None


def _distrusted(folder: RunFolder) -> str:
    lines = read_weights(folder)
    rows = [lines[row] for row in most_distrusted(lines, 10)]
    return f"The most distrusted:\n\n{text_table(rows[0]._fields, rows)}"


def _weights_files(folder: RunFolder) -> str:
    path = folder.path
    return f"All weights: {path / 'weights.csv'}. Images to keep: {path / 'cleaned.txt'}. "


WEIGHTS = Kind(
    prepare=prepare,
    prepare_again=cleaning.prepare_again,
    skipped=lambda prepared: prepared.skipped,
    run=cleaning.run,
    write_page=write_weights_page,
    steps=lambda job: job.settings.steps,
    describe=describe,
    result=lambda job, folder: result_text(folder),
    files=_weights_files,
    details=_distrusted,
    teach=lambda *given, **options: scores_table(teach(*given, **options)),
)
LESSON = Kind(
    prepare=lessons.prepare,
    prepare_again=lessons.prepare_again,
    skipped=lambda prepared: prepared.parts.skipped,
    run=lessons.run,
    write_page=write_lesson_page,
    steps=lambda job: job.settings.steps,
    describe=describe_lesson,
    result=lesson_text,
    teach=lambda *given, **options: lesson_table(lessons.teach(*given, **options)["methods"]),
)
FEW_SHOT = Kind(
    prepare=few_shot.prepare,
    prepare_again=few_shot.prepare_again,
    skipped=lambda prepared: (),
    run=few_shot.run,
    write_page=lambda folder, job, prepared: write_few_shot_page(folder, job),
    steps=lambda job: job.meta_steps,
    describe=lambda job, folder: describe_few_shot(job),
    result=few_shot_text,
)
KINDS = {"weights": WEIGHTS, "mixup": LESSON, "masks": LESSON, "fewshot": FEW_SHOT}
"""By the ``kind`` of a job."""
