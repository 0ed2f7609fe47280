"""How near implicit hypergradients of SAM students come to backpropagation through their training.

    python -m experiments.sam_fidelity                  # half an hour on 2 cores
    python -m experiments.sam_fidelity --preset smoke   # one short cell

A small CNN is trained on Fashion-MNIST with 30 % wrong labels by SAM, with a commentary that
weighs the examples by a linear function of image and label. At the point reached, K further steps
are unrolled, and a Neumann series of K summands with the same step size is taken instead, whose
Jacobian is that of SAM's gradient ("exact"), of this gradient with a fixed ε ("frozen"), or of the
plain gradient ("plain"). "cosine" is that between the two hypergradients, each the mean over
several draws of batches; "same batch" unrolls over K times the batch that the series sees. Every
(row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import nn

from commentaries import Batch, Bilevel, ExampleWeights, Student, taught
from commentaries import params as p
from commentaries.commentary import ImageNetwork, judged
from commentaries.curvature import Hessian
from commentaries.data import LabelledImages, corrupt, load, split
from commentaries.errors import NonFinite, NotConverged
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SAM, SGD, step
from commentaries.inner.sam import Jacobian
from commentaries.solvers import Neumann
from commentaries.training import order
from commentaries.training.students import student_for
from commentaries.types import Params

from .parallel import measure_all
from .store import Cell, Store

RHOS = (0.05, 0.2, 0.5)
TERMS = (1, 5, 20)
JACOBIANS: tuple[Jacobian, ...] = ("exact", "frozen", "plain")


class Row(NamedTuple):
    """What is measured for every number of summands and every Jacobian.

    Attributes:
        rho: Of SAM, while training and after.
        batch: Examples of each step.
        seed: Of all that is random.
        steps: Of training, before hypergradients are taken.
        draws: Of batches, over which hypergradients are averaged.
    """

    rho: float
    batch: int
    seed: int
    steps: int = 600
    draws: int = 4


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": all rows. "smoke": one, shortened.
        batches: Examples of each step.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
    """

    preset: Literal["paper", "smoke"] = "paper"
    batches: tuple[int, ...] = (32, 256)
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "sam_fidelity"
    workers: int = 2


def rows(arguments: Arguments) -> list[Row]:
    """The cells of a preset, every row of the first seed before the second seed."""
    if arguments.preset == "smoke":
        return [Row(0.05, 32, 0, steps=20, draws=1)]
    return [
        Row(rho, batch, seed)
        for seed in arguments.seeds
        for batch in arguments.batches
        for rho in RHOS
    ]


@dataclass(frozen=True)
class Point:
    """Where hypergradients are taken: a student trained by SAM for a while.

    Attributes:
        problem: Weighted training loss, plain validation loss.
        optimizer: SAM about plain SGD, whose step size is that of the series.
        theta: The student.
        phi: The commentary, drawn at random.
        train: Training examples with wrong labels.
        validation: Validation examples.
    """

    problem: Bilevel
    optimizer: SAM
    theta: Params
    phi: Params
    train: LabelledImages
    validation: LabelledImages

    def batches(self, count: int, size: int, *, seed: int) -> list[Batch]:
        """Batches of the training examples."""
        drawn = order(len(self.train), size, seed=seed)
        return [self._batch(self.train, drawn(i), i) for i in range(count)]

    def outer(self, *, seed: int) -> Batch:
        """One batch of the validation examples."""
        return self._batch(self.validation, order(len(self.validation), 500, seed=seed)(0), 0)

    @staticmethod
    def _batch(images: LabelledImages, index: torch.Tensor, number: int) -> Batch:
        return Batch(images.x[index], images.y[index], index, seed=number)


def point_of(row: Row) -> Point:
    """Trains a student by SAM under a random commentary."""
    images = load("fashion_mnist")
    parts = split(images.y, train=2_000, trusted=1_000, test=1_000, seed=row.seed)
    train, validation = images.rows(parts.train), images.rows(parts.trusted)
    wrong = corrupt(
        train.x, train.y, noise="uniform", rate=0.3, classes=train.classes, seed=row.seed
    )
    train = replace(train, y=wrong)
    student = student_for(train, "conv2")
    commentary = ExampleWeights(_linear(train))
    generator = torch.Generator().manual_seed(row.seed)
    phi = commentary.init(generator)
    phi = p.scale(p.random_like(phi, generator), 0.05)
    rate = 0.05
    optimizer = SAM(SGD(rate, weight_decay=5e-3), row.rho)
    point = Point(
        Bilevel(taught(student, commentary), judged(student)),
        optimizer,
        student.init(generator),
        phi,
        train,
        validation,
    )
    return replace(point, theta=_trained(point, student, row))


def _trained(point: Point, student: Student, row: Row) -> Params:
    theta, state = point.theta, point.optimizer.init(point.theta)
    with torch.no_grad():
        for batch in point.batches(row.steps, row.batch, seed=row.seed):
            grad_fn = Hessian()(point.problem.inner, point.phi, batch)
            theta, state, _ = step(point.optimizer, grad_fn, theta, state)
    return theta


def _linear(images: LabelledImages) -> ImageNetwork:
    """A linear score of an image and its label."""
    classes = len(images.classes)
    pixels = images.x[0, 0].numel()
    planes = images.x.shape[1] + classes
    return ImageNetwork(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(planes * pixels, 1)), classes=classes
    )


def measure(row: Row) -> list[Cell]:
    """The cosines of one row, for all numbers of summands, Jacobians and kinds of unrolling."""
    point = point_of(row)
    cells: list[Cell] = []
    for terms in TERMS:
        references = {
            name: _mean(point, row, terms, Unrolled(), same=name == "same batch")
            for name in ("its own batches", "same batch")
        }
        for jacobian in JACOBIANS:
            solver = Neumann(terms, step_size=0.05)
            optimizer = replace(point.optimizer, jacobian=jacobian)
            found = _mean(replace(point, optimizer=optimizer), row, terms, Implicit(solver))
            labels: dict[str, Any] = {
                "rho": row.rho,
                "batch": row.batch,
                "summands": terms,
                "jacobian": jacobian,
                "seed": row.seed,
            }
            cells.extend(
                labels | {"unrolled over": name} | _compared(found, reference)
                for name, reference in references.items()
            )
    return cells


def _mean(
    point: Point, row: Row, terms: int, method: Implicit | Unrolled, *, same: bool = False
) -> Params | None:
    """The mean hypergradient over the draws; None where a series diverges."""
    total: Params | None = None
    for draw in range(row.draws):
        batches = point.batches(terms, row.batch, seed=100 * row.seed + draw + 1)
        if same or isinstance(method, Implicit):
            batches = batches[:1]
        inner = batches * terms if same else batches
        try:
            value = method(
                point.problem,
                point.optimizer,
                point.theta,
                point.phi,
                inner=inner,
                outer=point.outer(seed=100 * row.seed + draw + 1),
            ).value
        except (NonFinite, NotConverged):
            return None
        total = value if total is None else p.add(total, value)
    return total


def _compared(found: Params | None, reference: Params | None) -> dict[str, float | None]:
    """The cosine, and how much longer the one is than the other; None where one is missing."""
    if found is None or reference is None:
        return {"cosine": None, "length": None}
    lengths = float(p.norm(found)), float(p.norm(reference))
    cosine = float(p.dot(found, reference)) / (lengths[0] * lengths[1])
    return {"cosine": cosine, "length": lengths[0] / lengths[1]}


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("unrolled over", "batch", "summands", "rho", "jacobian"),
        metrics=("cosine", "length"),
        preset=arguments.preset,
    )
    left = [row for row in rows(arguments) if not kept.has(row.seed, rho=row.rho, batch=row.batch)]
    measure_all(measure, left, kept, workers=arguments.workers)


if __name__ == "__main__":
    main()
