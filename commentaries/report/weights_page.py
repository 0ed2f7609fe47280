"""The page of the main job: which labels to distrust, and how well that was found out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..cleaning.job import Job
from ..cleaning.task import Task
from ..cleaning.weights_table import Line, most_distrusted, read_weights
from ..training import RunFolder
from .figures import method_comparison, training_curves, weight_histogram
from .page import Gallery, GalleryItem, Plot, Section, Table, write_page
from .tables import Cell

COLUMNS = ("method", "test accuracy", "AUROC", "AUROC by final loss")
SHOWN = 48

Scores = Mapping[str, Any]
"""Of ``result.json`` or ``teach-*.json``: score -> method -> value."""


def method_rows(scores: Scores) -> list[list[Cell]]:
    """One row of `COLUMNS` for each method, ours first, then in the order in which they ran."""
    return [
        [name, scores["accuracy"][name], scores["auroc"][name], scores["auroc_rescored"][name]]
        for name in scores["accuracy"]
    ]


def finding(result: Mapping[str, Any]) -> str:
    """How many labels are probably wrong, in a sentence."""
    count, size = result["suggested_differs"], result["examples"]
    return (
        f"{count:,} of {size:,} labels ({count / size:.0%}) are probably wrong: another label is "
        "more likely."
    )


def write_weights_page(folder: RunFolder, job: Job, task: Task) -> Path:
    """Writes ``report.html`` of a finished run from the files in its folder.

    Args:
        folder: Of the run.
        job: Its configuration.
        task: Its examples, for their images and, where it is known, the truth.

    Raises:
        BadRun: A file is missing or cannot be read, or the page cannot be written.
    """
    result, lines = folder.read_json("result.json"), read_weights(folder)
    wrong = None if task.wrong is None else task.wrong.numpy()
    weights = np.array([line.weight for line in lines])
    sections: list[Section] = [
        *_comparisons(result),
        Plot(
            "Learned weights",
            "How much each given label counts, from 0 to 1."
            + ("" if wrong is None else " The wrong labels are known, for they were made wrong."),
            weight_histogram(weights, wrong),
        ),
        Plot(
            "Training",
            "Means over the two students. The effective sample size is a share of the batch.",
            training_curves(folder.metrics()),
        ),
        Table(
            "All methods",
            "AUROC: how well a method's own ranking puts wrong labels before right ones. By final "
            "loss: the same for the loss of the given label under the method's final network.",
            COLUMNS,
            method_rows(result),
        ),
        _gallery(task, lines),
    ]
    return write_page(
        folder.path / "report.html",
        title=f"Which labels of {job.data} to trust",
        summary=_summary(job, task, result),
        sections=sections,
    )


def _summary(job: Job, task: Task, result: Mapping[str, Any]) -> str:
    made = ""
    if task.wrong is not None and job.noise != "none":
        count = int(task.wrong.sum())
        made = f", {count:,} of them ({count / task.size:.0%}) made wrong by {job.noise} noise"
    text = (
        f"{task.size:,} training examples{made}; {len(task.trusted):,} trusted examples; "
        f"{job.test:,} test examples; seed {job.seed}.\n\n{finding(result)}"
    )
    accuracy, auroc = result["accuracy"]["ours"], result["auroc"]["ours"]
    if accuracy is not None:
        text += f" The final student is right on {accuracy:.1%} of the test examples."
    if auroc is not None:
        text += f" Its ranking of the labels has an AUROC of {auroc:.3f}."
    return text


def _comparisons(result: Mapping[str, Any]) -> list[Section]:
    figures = (
        ("accuracy", "Test accuracy", "Of each method's final network, on right labels."),
        ("auroc", "Wrong labels found (AUROC)", "0.5 is chance, 1 puts every wrong label first."),
    )
    return [
        Plot(title, caption, method_comparison(values, label=title))
        for key, title, caption in figures
        if (values := {name: v for name, v in result[key].items() if v is not None})
    ]


def _gallery(task: Task, lines: list[Line]) -> Gallery:
    names = task.train.classes
    items = [
        GalleryItem(
            task.train.x[row].numpy(),
            lines[row].label,
            lines[row].suggested,
            _share(lines[row].suspicion),
            lines[row].file
            if task.truth is None
            else f"{lines[row].file}\ntrue label: {names[int(task.truth[row])]}",
        )
        for row in most_distrusted(lines, SHOWN)
    ]
    return Gallery(
        "Most distrusted labels",
        f"The {len(items)} training examples whose given label has the highest suspicion.",
        items,
    )


def _share(suspicion: float) -> float:
    """1 - the mean (geometric) of the given label's probability under the two kinds of student."""
    return -math.expm1(-max(suspicion, 0.0) / 2)  # suspicion is the sum of their losses
