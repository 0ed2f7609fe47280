"""The page of a run on few-shot learning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..teaching.few_shot import EQUAL, EVALUATION, OURS
from ..teaching.few_shot_options import FewShotJob
from ..training import RunFolder, checkpoint
from .figures import (
    BLUE,
    GREY,
    INK,
    SMALL,
    VERMILION,
    WIDTH,
    label_axes,
    new_figure,
    training_curves,
    weight_histogram,
)
from .page import Plot, Section, Table, write_page
from .tables import Cell, text_table

_COLUMNS = ("method", "steps", "accuracy", "±")


def few_shot_finding(job: FewShotJob, result: Mapping[str, Any]) -> str:
    """What a run found, in a sentence or two."""
    found = result["methods"][OURS]
    first, last, half = found["accuracy"][0], found["accuracy"][-1], found["interval"][-1]
    steps = len(found["accuracy"]) - 1
    within = "" if half is None else f" ± {half:.1%}"
    text = (
        f"After {steps} steps on {job.shot} example{'s' if job.shot > 1 else ''} of each of "
        f"{job.way} new classes, {last:.1%}{within} of the query examples are right; before the "
        f"first step {first:.1%}."
    )
    if EQUAL in result["methods"]:
        text += f" With equal weights it is {result['methods'][EQUAL]['accuracy'][-1]:.1%}."
    if found["wrong_weight"] is not None and job.wrong:
        text += (
            f" At the last step an example with a right label weighs "
            f"{found['clean_weight'][-1]:.2f} on average, one with a wrong label "
            f"{found['wrong_weight'][-1]:.2f}."
        )
    return text


def few_shot_text(job: FewShotJob, folder: RunFolder) -> str:
    """What a finished run found, for the terminal."""
    result = folder.read_json("result.json")
    return f"{text_table(_COLUMNS, _rows(result))}\n\n{few_shot_finding(job, result)}"


def write_few_shot_page(folder: RunFolder, job: FewShotJob) -> Path:
    """Writes ``report.html`` of a finished run from the files in its folder.

    Raises:
        BadRun: A file is missing or cannot be read, or the page cannot be written.
    """
    result = folder.read_json("result.json")
    kept: Any = checkpoint.load(folder.path / EVALUATION, None)  # like nothing: as it was saved
    sections: list[Section] = [
        Plot(
            "Accuracy against adaptation steps",
            f"Mean over {result['episodes']:,} tasks of new classes, with 95 % intervals.",
            accuracy_by_step(result["methods"]),
        )
    ]
    if "weights" in kept:
        sections += _weights(result, kept)
    sections += [
        Table("All methods", "Share of right query examples.", _COLUMNS, _rows(result)),
        Plot(
            "Training", "While the initialisation was learned.", training_curves(folder.metrics())
        ),
    ]
    summary = (
        f"{job.way}-way {job.shot}-shot, {result['train']:,} training and {result['test']:,} test "
        f"classes, {job.wrong:.0%} wrong support labels; seed {job.seed}."
    )
    return write_page(
        folder.path / "report.html",
        title=f"Few-shot learning on {Path(job.data).name if job.is_own else job.data}",
        summary=f"{summary}\n\n{few_shot_finding(job, result)}",
        sections=sections,
    )


def accuracy_by_step(methods: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One curve for each method, from before the first step on, with a band of its interval."""
    figure = new_figure(WIDTH * 0.75, 3.0)
    axes = figure.subplots()
    for colour, (name, found) in zip((BLUE, GREY, VERMILION), methods.items(), strict=False):
        mean = np.array(found["accuracy"], dtype=np.float64)
        half = np.nan_to_num(np.array(found["interval"], dtype=np.float64))
        steps = np.arange(len(mean))
        axes.plot(steps, mean, "-o", color=colour, markersize=4, linewidth=1.6, label=name)
        axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    if len(methods) > 1:
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="best")
    axes.locator_params(axis="x", integer=True)
    label_axes(axes, x="adaptation steps", y="accuracy")
    return figure


def weights_by_step(found: Mapping[str, Any]) -> Figure:
    """Mean weight of support examples with right and with wrong labels at each step."""
    figure = new_figure(WIDTH * 0.75, 2.6)
    axes = figure.subplots()
    for key, name, colour in (
        ("clean_weight", "right labels", BLUE),
        ("wrong_weight", "wrong labels", VERMILION),
    ):
        values = np.array(found[key], dtype=np.float64)
        if np.isfinite(values).any():
            steps = np.arange(1, len(values) + 1)
            axes.plot(steps, values, "-o", color=colour, markersize=4, linewidth=1.6, label=name)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="best")
    axes.locator_params(axis="x", integer=True)
    label_axes(axes, x="adaptation step", y="mean weight")
    return figure


def _weights(result: Mapping[str, Any], kept: Mapping[str, Any]) -> list[Section]:
    last, wrong = kept["weights"][:, -1].flatten().numpy(), kept["wrong"].flatten().numpy()
    return [
        Plot(
            "Weights at each step",
            "Of support examples, averaged over the test tasks; 1 where all count the same.",
            weights_by_step(result["methods"][OURS]),
        ),
        Plot(
            "Weights at the last step",
            "Of all support examples of the test tasks.",
            weight_histogram(last, wrong if wrong.any() else None),
        ),
    ]


def _rows(result: Mapping[str, Any]) -> list[list[Cell]]:
    return [
        [name, step, accuracy, half]
        for name, found in result["methods"].items()
        for step, (accuracy, half) in enumerate(
            zip(found["accuracy"], found["interval"], strict=True)
        )
        if step in (0, 1, len(found["accuracy"]) - 1)
    ]
