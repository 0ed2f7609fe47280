"""A cue network learned on one data set and noise, applied to another without learning there.

    python -m experiments.reuse                  # seeds 0-2, about half an hour on 2 cores
    python -m experiments.reuse --preset smoke   # one cell

Beside it: the network learned there, and the cues with equal weights. All three teach the same
two students on the second set; only the first changes its commentary while they train. Every
(row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import tyro

from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import Job, make_learner
from commentaries.cleaning.learner import Learned, Learner, Settings
from commentaries.cleaning.methods import auroc, given_loss
from commentaries.cleaning.prepared import prepare, recipe_for
from commentaries.report.tables import text_table
from commentaries.types import Params

from .label_noise_images import Row, job_of
from .parallel import measure_all
from .store import Cell, Store


class Pair(NamedTuple):
    """Where the commentary is learned, where it is applied, and the seed."""

    source: Row
    target: Row
    seed: int
    smoke: bool = False


PAIRS = (
    (Row("fashion_mnist", "uniform", 0.4), Row("cifar10", "pair", 0.45)),
    (Row("cifar10", "pair", 0.45), Row("fashion_mnist", "block", 0.4)),
)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": all pairs. "smoke": one, with 1,000 images and a tenth of the steps.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
    """

    preset: Literal["paper", "smoke"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "reuse"
    workers: int = 2


def pairs(arguments: Arguments) -> list[Pair]:
    """The cells of a preset."""
    if arguments.preset == "smoke":
        return [Pair(*PAIRS[1], arguments.seeds[0], smoke=True)]
    return [Pair(*pair, seed) for seed in arguments.seeds for pair in PAIRS]


def measure(pair: Pair) -> list[Cell]:
    """Learns at the source, then teaches at the target in three ways."""
    source, target = (_job(row, pair) for row in (pair.source, pair.target))
    _, phi = _learned(_learner_of(source))
    there = _learner_of(target)
    recipe = recipe_for(target, there.task.train)
    ways: dict[str, Params | None] = {
        "learned there": None,
        "reused": phi,
        "equal cue weights": equal_weights(there.settings),
    }
    cells: list[Cell] = []
    for name, frozen in ways.items():
        learned, _ = _learned(there, frozen)
        verdict = conclude(there.evidence, there.student, learned, seed=pair.seed, recipe=recipe)
        labels = {"source": _name(pair.source), "target": _name(pair.target), "method": name}
        wrong = there.task.wrong
        students = given_loss(learned.log_probability, there.evidence.given)
        cells.append(
            labels
            | {"seed": pair.seed, "accuracy": verdict.outcome.accuracy}
            | {
                "auroc": verdict.outcome.auroc,
                "auroc of the weights": auroc(wrong, -learned.weight),
            }
            | {"auroc of the students' loss": auroc(wrong, students)}
        )
    return cells


def equal_weights(settings: Settings) -> Params:
    """A cue network whose logit is the sum of the cues, each counted towards trust."""
    sign = torch.tensor([-1.0 if name == "loss" else 1.0 for name in settings.cues])
    small = 1e-2  # tanh is linear there
    hidden = torch.zeros(settings.width, len(settings.cues))
    hidden[0] = small * sign
    out = torch.zeros(settings.width)
    out[0] = 1 / small
    return {
        "hidden.weight": hidden,
        "hidden.bias": torch.zeros(settings.width),
        "out.weight": out,
        "out.bias": torch.zeros(()),
    }


def _learner_of(job: Job) -> Learner:
    prepared = prepare(job)
    return make_learner(job, prepared.task, prepared.student)


def _learned(learner: Learner, frozen: Params | None = None) -> tuple[Learned, Params]:
    """What a learner finds, and its commentary; a given one does not change."""
    if frozen is not None:
        settings = replace(learner.settings, warm_up=learner.settings.steps)
        learner = Learner(
            learner.task, learner.student, settings, seed=learner.seed, evidence=learner.evidence
        )
    start = learner.start()
    state = learner.last(start if frozen is None else start._replace(phi=frozen))
    return learner.learned(state), state.phi


def _job(row: Row, pair: Pair) -> Job:
    job = job_of(row, pair.seed)
    if not pair.smoke:
        return job
    settings = replace(job.settings, steps=30, warm_up=5)
    return replace(job, train=1_000, settings=settings, recipe=replace(job.recipe, steps=40))


def _name(row: Row) -> str:
    return f"{row.data}, {row.noise} {row.rate:.0%}"


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("source", "target", "method"),
        metrics=("accuracy", "auroc", "auroc of the weights", "auroc of the students' loss"),
        preset=arguments.preset,
    )
    left = [
        pair
        for pair in pairs(arguments)
        if not kept.has(pair.seed, source=_name(pair.source), target=_name(pair.target))
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    columns = ("source", "target", "method", "metric", "value", "low", "high")
    print(text_table(columns, [[row[name] for name in columns] for row in kept.rows()]))


if __name__ == "__main__":
    main()
