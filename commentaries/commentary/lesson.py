"""Lessons, and the inner loss of a student that is taught by a commentary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..problem import Composed
from ..student import Student
from ..types import Batch, Inputs, Params

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(outputs (n, ...), targets (n, ...)) -> losses (n,)."""

cross_entropy: Criterion = partial(functional.cross_entropy, reduction="none")
"""Per-example cross-entropy of logits (n, classes) with labels (n,) or soft labels (n, classes)."""


class Lesson(NamedTuple):
    """What the student is shown of a batch.

    Attributes:
        x: Inputs, (n, ...).
        target: (n,) labels, (n, classes) soft labels, or (n, ...) regression targets.
        weight: (n,) weight of each example in the mean, or a function from losses (n,) to that.
        penalty: A scalar that the commentary pays for the lesson: `judged` adds it to the outer
            loss, the student never sees it.
    """

    x: Inputs
    target: Tensor
    weight: Tensor | Callable[[Tensor], Tensor] | None = None
    penalty: Tensor | None = None


class Commentary(Protocol):
    """Weights, mixing and masks are one map, (φ, batch) -> lesson. A pure function."""

    def init(self, generator: torch.Generator) -> Params:
        """Initial φ, drawn from the generator alone."""
        ...

    def __call__(self, phi: Params, batch: Batch) -> Lesson:
        """The lesson for a batch; random only in ``batch.seed``."""
        ...


def taught(
    student: Student, commentary: Commentary, criterion: Criterion = cross_entropy
) -> Composed:
    """The inner loss of a student under a commentary: (1/n) Σ_i w_i ℓ(student(x_i), y_i).

    A weight that is a function of the loss is held constant while the student moves, as in
    Meta-Weight-Net (Shu et al. 2019), and its dependence on θ counts in the Hessian.
    """

    def outputs(theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Lesson]:
        lesson = commentary(phi, batch)
        return student(theta, lesson.x, seed=batch.seed), lesson

    def loss(z: Tensor, held: Tensor, lesson: Lesson) -> Tensor:
        losses = criterion(z, lesson.target)
        weight = lesson.weight
        if callable(weight) and not isinstance(weight, Tensor):
            weight = weight(criterion(held, lesson.target))
        return losses.mean() if weight is None else (weight * losses).mean()

    return Composed(outputs, loss)


def judged(
    student: Student, criterion: Criterion = cross_entropy, *, commentary: Commentary | None = None
) -> Composed:
    """The outer loss of a student: the plain mean over a batch.

    Args:
        student: The student.
        criterion: Its losses.
        commentary: What the student is shown the batch through, where that needs no labels
            (attention masks), with what this costs: see `Lesson.penalty`. None shows the batch
            itself. Weights, which say how much a training example counts, do not enter.
    """

    def outputs(theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Lesson]:
        lesson = Lesson(batch.x, batch.y) if commentary is None else commentary(phi, batch)
        return student(theta, lesson.x, seed=batch.seed), lesson

    def loss(z: Tensor, held: Tensor, lesson: Lesson) -> Tensor:
        value = criterion(z, lesson.target).mean()
        return value if lesson.penalty is None else value + lesson.penalty

    return Composed(outputs, loss)
