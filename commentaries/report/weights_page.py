"""The page of the main job: which labels to distrust, and how well that was found out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..cleaning.options import Job
from ..cleaning.prepared import Prepared
from ..cleaning.weights_table import Line, most_distrusted, read_weights
from ..training import RunFolder
from .figures import (
    method_comparison,
    precision_curve,
    training_curves,
    weight_histogram,
    weights_over_training,
)
from .page import Gallery, GalleryItem, Plot, Section, Table, write_page
from .tables import Cell

COLUMNS = ("method", "test accuracy", "AUROC", "AUROC by final loss")

SHOWN = 48
"""Images in the gallery before a label is chosen, and the most of one label."""

ALL_SHOWN = 1000
"""Images in the gallery, shared out among the labels, but at least eight of each."""

GIVEN_UP = (
    "No trusted examples were given, so those stood in for them on whose given labels networks "
    "agree most. What that gives up: labels that are wrong in a systematic way, a whole class or "
    "batch, can look right; accuracy cannot be checked against labels that are known to be right; "
    "and how many of the most suspicious labels are wrong is not estimated."
)

Scores = Mapping[str, Any]
"""Of ``result.json`` or ``teach-*.json``: score -> method -> value."""


def method_rows(scores: Scores) -> list[list[Cell]]:
    """One row of `COLUMNS` for each method, ours first, then in the order in which they ran."""
    return [
        [name, scores["accuracy"][name], scores["auroc"][name], scores["auroc_rescored"][name]]
        for name in scores["accuracy"]
    ]


def has_scores(scores: Scores) -> bool:
    """Whether there was anything to score the methods by."""
    return any(value is not None for row in method_rows(scores) for value in row[1:])


def finding(result: Mapping[str, Any]) -> str:
    """How many labels are probably wrong, how many to look at, and what is not known."""
    count, size = result["suggested_differs"], result["examples"]
    text = (
        f"{count:,} of {size:,} labels ({count / size:.0%}) are probably wrong: another label is "
        "more likely."
    )
    if result["look_at"] is not None:
        text += f" {_advice(result['look_at'], result['trusted'])}"
    return text + (f" {GIVEN_UP}" if result["trusted_from"] == "agreement" else "")


def _advice(look_at: Mapping[str, Any], trusted: int) -> str:
    wrong, first, precision = look_at["wrong"], look_at["first"], look_at["precision"]
    every = (
        f"Judged by the trusted examples, about {wrong['value']:,.0f} are wrong in all "
        f"(95 % interval {wrong['low']:,.0f} to {wrong['high']:,.0f})."
    )
    if not first:
        return (
            f"{every} The {trusted:,} trusted examples are too few, or the wrong labels too rare, "
            "to say how many to look at: begin with the most suspicious."
        )
    return (
        f"{every} Look at the first {first:,}: about {precision['value']:.0%} of them are wrong "
        f"(95 % interval {precision['low']:.0%} to {precision['high']:.0%})."
    )


def write_weights_page(folder: RunFolder, job: Job, prepared: Prepared) -> Path:
    """Writes ``report.html`` of a finished run from the files in its folder.

    Args:
        folder: Of the run.
        job: Its configuration.
        prepared: Its examples, for their images and, where it is known, the truth.

    Raises:
        BadRun: A file is missing or cannot be read, or the page cannot be written.
    """
    result, lines, metrics = folder.read_json("result.json"), read_weights(folder), folder.metrics()
    wrong = None if prepared.task.wrong is None else prepared.task.wrong.cpu().numpy()
    sections: list[Section] = [
        *_precision(result, lines, wrong),
        _gallery(prepared, lines),
        *_comparisons(result),
        *_weights(lines, metrics, wrong),
        Plot(
            "Training",
            "Means over the two students. The effective sample size is a share of the batch.",
            training_curves(metrics),
        ),
    ]
    return write_page(
        folder.path / "report.html",
        title=f"Which labels of {Path(job.data).name if job.is_own else job.data} to trust",
        summary=_summary(job, prepared, result),
        sections=sections,
    )


def _summary(job: Job, prepared: Prepared, result: Mapping[str, Any]) -> str:
    task, made = prepared.task, ""
    if task.wrong is not None and job.noise_kind != "none":
        count = int(task.wrong.sum())
        made = f", {count:,} of them ({count / task.size:.0%}) made wrong by {job.noise_kind} noise"
    tests = "no" if task.test is None else f"{len(task.test):,}"
    text = (
        f"{task.size:,} training examples{made}; {len(task.trusted):,} trusted examples; "
        f"{tests} test examples; seed {job.seed}."
    )
    if prepared.skipped:
        text += f" {len(prepared.skipped):,} images were left out: splits.json names them."
    text += f"\n\n{finding(result)}"
    accuracy, auroc = result["accuracy"]["ours"], result["auroc"]["ours"]
    if accuracy is not None:
        text += f" The final student is right on {accuracy:.1%} of the test examples."
    if auroc is not None:
        text += f" Its ranking of the labels has an AUROC of {auroc:.3f}."
    return text


def _precision(
    result: Mapping[str, Any], lines: list[Line], wrong: np.ndarray | None
) -> list[Section]:
    look_at = result["look_at"]
    if look_at is None:
        return []
    known = None if wrong is None else wrong[most_distrusted(lines)]
    return [
        Plot(
            "How many to look at",
            "Share of wrong labels among the most suspicious, estimated from the suspicion of the "
            "trusted examples, with its 95 % interval.",
            precision_curve(look_at["curve"], first=look_at["first"], wrong=known),
        )
    ]


def _comparisons(result: Mapping[str, Any]) -> list[Section]:
    if not has_scores(result):
        return []
    figures = (
        ("accuracy", "Test accuracy", "Of each method's final network, on right labels."),
        ("auroc", "Wrong labels found (AUROC)", "0.5 is chance, 1 puts every wrong label first."),
    )
    return [
        *(
            Plot(title, caption, method_comparison(values, label=title))
            for key, title, caption in figures
            if len(values := {name: v for name, v in result[key].items() if v is not None}) > 1
        ),
        Table(
            "All methods",
            "AUROC: how well a method's own ranking puts wrong labels before right ones. By final "
            "loss: the same for the loss of the given label under the method's final network.",
            COLUMNS,
            method_rows(result),
        ),
    ]


def _weights(
    lines: list[Line], metrics: list[dict[str, Any]], wrong: np.ndarray | None
) -> list[Section]:
    known = "" if wrong is None else " The wrong labels are known, for they were made wrong."
    histogram = weight_histogram(np.array([line.weight for line in lines]), wrong)
    sections: list[Section] = [
        Plot(
            "Learned weights",
            f"How much each given label counts, from 0 to 1.{known}",
            histogram,
        )
    ]
    figure = weights_over_training(metrics)
    if figure is not None:
        caption = (
            "Median, and the bands that hold 50 and 90 % of the examples, whenever the cues were "
            "made anew."
        )
        sections.append(Plot("Weights over training", caption, figure))
    return sections


def _gallery(prepared: Prepared, lines: list[Line]) -> Gallery:
    """The most suspicious examples, and the most suspicious of each given label."""
    order = most_distrusted(lines)
    doubtful = Counter(line.label for line in lines if line.label != line.suggested)
    present = {line.label for line in lines}
    classes = [name for name in prepared.task.train.classes if name in present]
    each = max(8, min(SHOWN, ALL_SHOWN // len(classes)))
    taken: Counter[str] = Counter()
    items = []
    for place, row in enumerate(order):
        label = lines[row].label
        taken[label] += 1
        if place < SHOWN or taken[label] <= each:
            items.append(_item(prepared, lines[row], row, first=place < SHOWN))
    caption = "The training examples whose given label has the highest suspicion."
    if len(items) < len(lines):
        caption += (
            f" The first {min(SHOWN, len(lines)):,} of all are shown, or of one label up to "
            f"{each:,}; weights.csv has all {len(lines):,}."
        )
    choices = {name: doubtful[name] for name in classes}
    return Gallery("Most distrusted labels", caption, items, choices)


def _item(prepared: Prepared, line: Line, row: int, *, first: bool) -> GalleryItem:
    note = line.file
    if prepared.task.truth is not None:
        note += f"\ntrue label: {prepared.pictures.classes[int(prepared.task.truth[row])]}"
    image = prepared.pictures.x[row].cpu().numpy()
    return GalleryItem(image, line.label, line.suggested, _share(line.suspicion), note, first)


def _share(suspicion: float) -> float:
    """The probability that the given label is wrong, of which suspicion is -log(1 - it)."""
    return -math.expm1(-max(suspicion, 0.0))
