"""The pages of learned mixing and learned masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..teaching.job import Prepared, learned, student_of
from ..teaching.masking import Masking
from ..teaching.methods import OURS
from ..teaching.mixing import Mixing, Taught, mean_table
from ..teaching.options import LessonJob, MasksJob, MixupJob
from ..teaching.saliency import grad_cam, saliency
from ..training import RunFolder
from ..training.recorded import history
from ..types import Batch, Params
from .figures import method_comparison, training_curves
from .lesson_figures import commentary_curves, image_grid, mixed_pairs, ratio_map
from .page import Plot, Section, Table, write_page
from .tables import Cell

SHOWN = 8
"""Images of a figure."""

MIXED = 128
"""Examples among which those of a figure find their partners."""

PAIRS = 10
"""Most and least mixed pairs of classes in a table."""

_PAIR = ("example", "mixed with", "share")

_METRICS = {
    "accuracy": "test accuracy",
    "shifted": "cue shifted",
    "worst_group": "worst group",
    "validation": "validation",
    "loss": "test loss",
    "mass": "mass in box",
    "pointing": "pointing",
    "alpha": "α",
}
_MEANINGS = {
    "shifted": "Cue shifted: accuracy on the test examples where the cue misleads.",
    "worst_group": "Worst group: the least accuracy among the groups of class and cue.",
    "validation": "Validation: accuracy on the examples by which the commentary was judged.",
    "mass": "Mass in box: share of the mask that lies in the box.",
    "pointing": "Pointing: share of the images whose mask is greatest in the box.",
    "alpha": "α: of the Beta distribution that did best on validation.",
}
"""What stands under the table of all methods, of its columns that need it."""

Methods = Mapping[str, Mapping[str, Any]]
"""Of ``result.json`` or ``teach-*.json``: method -> score -> value."""


def method_table(methods: Methods) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of the scores of all methods, without those that none has."""
    keys = [key for key in _METRICS if any(key in found for found in methods.values())]
    rows: list[list[Cell]] = [
        [name, *(found.get(key) for key in keys)] for name, found in methods.items()
    ]
    return ["method", *(_METRICS[key] for key in keys)], rows


def lesson_finding(job: LessonJob, result: Mapping[str, Any]) -> str:
    """What a run found, in a sentence or two."""
    methods = result["methods"]
    ours = methods[OURS]["accuracy"]
    text = f"The student that was taught is right on {ours:.1%} of the test examples"
    others = {name: found["accuracy"] for name, found in methods.items() if name != OURS}
    if others:
        best = max(others, key=lambda name: others[name])
        text += f"; the best control, {best}, on {others[best]:.1%}"
    text += "."
    if isinstance(job, MixupJob):
        ratios = [value for row in result["ratios"] for value in row if value is not None]
        mean = sum(ratios) / len(ratios)
        text += (
            f" The learned share of an example itself is {mean:.2f} on average and runs from "
            f"{min(ratios):.2f} to {max(ratios):.2f}."
        )
    else:
        text += f" The masks let {result['area']:.0%} of the test images through."
        if "mass" in methods[OURS]:
            where = "what the label is about" if result["inside"] == "label" else "what misleads"
            text += (
                f" {methods[OURS]['mass']:.0%} of that lies in the boxes of {where}, which are "
                f"{result['box_area']:.0%} of the images."
            )
    return text


def write_lesson_page(folder: RunFolder, job: LessonJob, prepared: Prepared) -> Path:
    """Writes ``report.html`` of a finished run from the files in its folder.

    Args:
        folder: Of the run.
        job: Its configuration.
        prepared: Its examples.

    Raises:
        BadRun: A file is missing or cannot be read, or the page cannot be written.
    """
    result, metrics = folder.read_json("result.json"), folder.metrics()
    phi = learned(job, folder, prepared).phi
    topic = prepared.topic
    own: list[Section]
    if isinstance(topic, Mixing):
        assert isinstance(job, MixupJob)
        own, what = _mixing(job, result, metrics, topic, phi, prepared), "How to mix"
    else:
        assert isinstance(topic, Masking)
        own, what = _masking(folder, job, metrics, topic, phi, prepared), "Where to look in"
    training = Plot("Training", "While the commentary was learned.", training_curves(metrics))
    parts = prepared.parts
    summary = (
        f"{len(parts.train):,} training, {len(parts.validation):,} validation and "
        f"{len(parts.test):,} test examples; seed {job.seed}."
    )
    if parts.skipped:
        summary += f" {len(parts.skipped):,} images were left out: splits.json names them."
    return write_page(
        folder.path / "report.html",
        title=f"{what} {Path(job.data).name if job.is_own else job.data}",
        summary=f"{summary}\n\n{lesson_finding(job, result)}",
        sections=[*own, *_comparisons(result["methods"]), training],
    )


def _mixing(
    job: MixupJob,
    result: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    topic: Mixing,
    phi: Params,
    prepared: Prepared,
) -> list[Section]:
    classes = result["classes"]
    ratios = np.array(result["ratios"], dtype=np.float64)
    sections: list[Section] = [
        Plot(
            "What is mixed with what",
            "Learned share of an example itself, by its class (row) and that of its partner "
            "(column), at the end of training. The rest is the partner.",
            ratio_map(ratios, classes, low=job.low, high=job.high),
        ),
        Table(
            "The most and the least mixed pairs",
            "Of two different classes, by the share of the example itself: the smallest on the "
            "left, the greatest on the right.",
            [*_PAIR, "", *_PAIR],
            _extremes(ratios, classes, symmetric=job.ratio == "symmetric"),
        ),
        Plot(
            "Examples",
            "Training examples as the student sees them at the end of training.",
            _pairs(topic, phi, prepared),
        ),
    ]
    keys = {"ratio": "mean", "least": "least", "greatest": "greatest"}
    figure = commentary_curves(metrics, keys, title="share of the example")
    if figure is not None:
        sections.append(
            Plot("Ratios over training", "While they were learned; equal at the start.", figure)
        )
    if job.knots > 1:
        middle = mean_table(Taught(topic.commentary, phi), prepared.parts.train, progress=0.0)
        sections.append(
            Plot(
                "At the start of a student's training",
                "The same ratios at progress 0.",
                ratio_map(middle.numpy(), classes, low=job.low, high=job.high),
            )
        )
    return sections


def _extremes(ratios: np.ndarray, classes: Sequence[str], *, symmetric: bool) -> list[list[Cell]]:
    """Beside each other the pairs of the least and of the greatest ratios."""
    pairs: list[list[Cell]] = []
    for (row, column), value in np.ndenumerate(ratios):
        if np.isfinite(value) and (row < column or (row > column and not symmetric)):
            pairs.append([str(classes[row]), str(classes[column]), float(value)])
    pairs.sort(key=lambda pair: float(pair[2] or 0.0))
    count = min(PAIRS, -(-len(pairs) // 2))
    return [[*low, "", *high] for low, high in zip(pairs[:count], pairs[::-1][:count], strict=True)]


@torch.no_grad()
def _pairs(topic: Mixing, phi: Params, prepared: Prepared) -> Any:
    train = prepared.parts.train
    index = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))[:MIXED]
    batch = Batch(train.x[index], train.y[index], index, seed=1)
    partners = topic.commentary.partners(batch)
    ratios = topic.commentary.ratios(phi, batch)
    lesson = topic.commentary(phi, batch)
    assert isinstance(lesson.x, Tensor)
    assert isinstance(batch.x, Tensor)
    names = [train.classes[label] for label in batch.y.tolist()]
    titles = [
        (name, names[other], f"{ratio:.2f} / {1 - ratio:.2f}")
        for name, other, ratio in zip(names, partners.tolist(), ratios.tolist(), strict=True)
    ]
    stacks = (batch.x, batch.x[partners], lesson.x)
    own, other, mixed = (stack[:SHOWN].clamp(0, 1).cpu().numpy() for stack in stacks)
    return mixed_pairs(own, other, mixed, titles[:SHOWN])


def _masking(
    folder: RunFolder,
    job: LessonJob,
    metrics: Sequence[Mapping[str, Any]],
    topic: Masking,
    phi: Params,
    prepared: Prepared,
) -> list[Section]:
    assert isinstance(job, MasksJob)
    test = prepared.parts.test
    rows = torch.randperm(len(test), generator=torch.Generator().manual_seed(1))[:SHOWN]
    x = test.rows(rows).x
    masks = topic.masks(phi, x)
    seen = x * (masks + job.background * (1 - masks))
    lines = [("image", x), ("mask", masks[:, 0]), ("as seen", seen)]
    unmasked = student_of(folder, "no mask", prepared)
    caption = "Test images and their learned masks, from 0 (black) to 1 (bright)."
    if unmasked is not None:
        basis = prepared.parts.train.x
        for name, attribute in (("saliency", saliency), ("Grad-CAM", grad_cam)):
            maps = attribute(prepared.student, unmasked, x, seen=basis)[:, 0]
            lines.append((name, maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)))
        caption += (
            " Below them, where a student without a mask looks: the gradient of its answer, and "
            "Grad-CAM at its last convolution, each as a share of its greatest value."
        )
    marked = None if topic.marks is None else topic.marks.test
    boxes = [] if marked is None else marked.box[rows.to(marked.box.device)].tolist()
    if marked is not None:
        what = "what the label is about" if marked.inside == "label" else "what misleads"
        caption += f" The box is around {what}."
    sections: list[Section] = [
        Plot(
            "Masks",
            caption,
            image_grid(
                [[_shown(image) for image in stack] for _, stack in lines],
                rows=[name for name, _ in lines],
                columns=[test.classes[label] for label in test.y[rows.to(test.y.device)].tolist()],
                boxes=boxes,
            ),
        )
    ]
    states = history(folder, learned(job, folder, prepared))
    if states:
        over_time = [[_shown(mask) for mask in topic.masks(state.phi, x)[:, 0]] for state in states]
        sections.append(
            Plot(
                "Masks over training",
                "Of the same images, while the masks were learned.",
                image_grid(
                    [[_shown(image) for image in x], *over_time],
                    rows=["image", *(f"step {state.step:,}" for state in states)],
                    boxes=boxes,
                ),
            )
        )
    keys = {"area": "mean mask", "mass": "mass in the box", "pointing": "points to the box"}
    figure = commentary_curves(metrics, keys, title="share")
    if figure is not None:
        what = "Area over training" if marked is None else "Area and place over training"
        sections.append(Plot(what, "Of training images.", figure))
    return sections


def _shown(image: Tensor) -> np.ndarray:
    return image.detach().clamp(0, 1).cpu().numpy()


def _comparisons(methods: Methods) -> list[Section]:
    columns, rows = method_table(methods)
    sections: list[Section] = []
    for key, caption in (
        ("accuracy", "Of each method's student."),
        ("worst_group", "The least accuracy of each method's student among the groups."),
    ):
        values = {name: found[key] for name, found in methods.items() if key in found}
        if len(values) > 1:
            title = _METRICS[key].capitalize()
            sections.append(Plot(title, caption, method_comparison(values, label="accuracy")))
    known = [text for key, text in _MEANINGS.items() if _METRICS[key] in columns]
    caption = " ".join(["Students of one network, trained alike.", *known])
    sections.append(Table("All methods", caption, columns, rows))
    return sections
