"""What the comparisons of learned mixing and of learned masks share: measuring and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from commentaries.report.tables import mean_interval, text_table
from commentaries.teaching.job import make_learner, prepare, recipe_for
from commentaries.teaching.methods import OURS
from commentaries.teaching.options import LessonJob
from commentaries.training.students import student_for

from .parallel import measure_all
from .store import Cell, Store


class Lessons(NamedTuple):
    """A row and a seed to measure.

    Attributes:
        job: What is learned, and how students are trained.
        labels: What the row is called.
        taught: Students that are taught by what was learned: the job's own, and others.
        methods: Those of the comparison; ours first.
    """

    job: LessonJob
    labels: dict[str, Any]
    taught: tuple[str, ...]
    methods: tuple[str, ...]


def measure(lessons: Lessons) -> list[Cell]:
    """Learns a commentary once, then trains every student with it and with each control."""
    job = lessons.job
    prepared = prepare(job)
    phi = make_learner(job, prepared).last().phi
    known = prepared.topic.metrics(phi, 1.0)
    cells: list[Cell] = []
    for name in lessons.taught:
        found = prepared.topic.compare(
            phi,
            student_for(prepared.parts.train, name),
            recipe_for(job, prepared, name),
            seed=job.seed,
            names=lessons.methods,
        )
        found[OURS] = {**known, **found[OURS]}  # a mask's place on test images, not on training
        cells.extend(
            lessons.labels | {"taught": name, "seed": job.seed, "method": method} | scores
            for method, scores in found.items()
        )
    return cells


def compare(
    cells: Sequence[Lessons], kept: Store, *, workers: int, metric: str = "accuracy"
) -> None:
    """Measures what the file does not hold yet, and prints the verdict."""
    left = []
    for each in cells:
        taught = tuple(
            name for name in each.taught if not kept.has(each.job.seed, **each.labels, taught=name)
        )
        if taught:
            left.append(each._replace(taught=taught))
    measure_all(measure, left, kept, workers=workers)
    print_verdict(kept, metric)


def print_verdict(kept: Store, metric: str) -> None:
    """Ours minus every control on each row, seed by seed, with the 95 % interval of the mean."""
    names = [name for name in kept.labels if name != "method"]
    values: dict[tuple, dict[str, dict[int, float]]] = {}
    for cell in kept.cells:
        if cell.get(metric) is not None:
            row = values.setdefault(tuple(cell[name] for name in names), {})
            row.setdefault(cell["method"], {})[cell["seed"]] = cell[metric]
    lines = []
    for labels, methods in sorted(values.items(), key=str):
        ours = methods.pop(OURS)
        for method, found in methods.items():
            ahead = mean_interval([ours[seed] - found[seed] for seed in sorted(found)])
            mean = sum(found.values()) / len(found)
            half = ahead.high - ahead.mean if len(found) > 1 else None
            lines.append([*labels, method, mean, ahead.mean, half])
        lines.append([*labels, OURS, sum(ours.values()) / len(ours), None, None])
    print(f"\n{metric}\n{text_table([*names, 'method', metric, 'ours ahead', '±'], lines)}")


def shortened(job: LessonJob) -> LessonJob:
    """The same with so few examples and steps that it takes seconds."""
    settings = replace(job.settings, steps=20, warm_up=5)
    recipe = replace(job.recipe, steps=20)
    return replace(job, train=500, validation=200, test=500, settings=settings, recipe=recipe)
