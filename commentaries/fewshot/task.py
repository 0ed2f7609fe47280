"""The losses of one task, and of several tasks at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from ..commentary.lesson import Commentary, Criterion, Lesson, judged, taught
from ..errors import BadInput
from ..problem import Composed
from ..student import Student
from ..types import Batch, Inputs, Loss, Params
from .episodes import Episode
from .normalisation import NormalisedBy, SupportStatistics


@dataclass(frozen=True)
class Task:
    """What a student adapts to and is judged on.

    Several tasks (`stacked`) are one problem whose θ has a first dimension (tasks, ...) and whose
    losses are the *sums* over the tasks: the gradient of a sum is each task's own. Only the losses
    run under `vmap`, with normalisation from primitives (`Student`); every derivative of them is
    taken outside, as for one task. All derivatives are of reverse mode.

    Attributes:
        student: The network.
        commentary: What it is shown of the support set; None for the support set itself.
        criterion: Its losses.
        by_support: Whether the query examples are normalised by the support set's statistics.
        episode: The task, or the tasks of `stacked`.
    """

    student: Student
    commentary: Commentary | None
    criterion: Criterion
    by_support: bool
    episode: Episode

    @property
    def many(self) -> bool:
        """Whether these are stacked tasks."""
        return self.episode.support.index.dim() > 1

    def start(self, start: Params) -> Params:
        """θ before the first step: the initialisation, one for each of many tasks."""
        if not self.many:
            return start
        tasks = len(self.episode.support.index)
        return {name: value.expand(tasks, *value.shape) for name, value in start.items()}

    def summed(self, adjoint: Params) -> Params:
        """A gradient with respect to `start`, given the one with respect to θ."""
        if not self.many:
            return adjoint
        return {name: value.sum(0) for name, value in adjoint.items()}

    @property
    def inner(self) -> Loss:
        """The loss of the support set, as the commentary shows it."""
        if self.commentary is None:
            one = judged(self.student, self.criterion)
        else:
            one = taught(self.student, self.commentary, self.criterion)
        return _summed(one) if self.many else one

    def outer(self, theta: Params, phi: Params, query: Batch) -> Tensor:
        """The loss of the query set."""
        z = self.outputs(theta, query)
        if not self.many:
            return self.criterion(z, query.y).mean()
        return vmap(self.criterion)(z, query.y).mean(1).sum()

    def outputs(self, theta: Params, query: Batch) -> Tensor:
        """The student's outputs for the query set, (way · query, ...); of many (tasks, ...)."""
        support = self.episode.support

        def one(theta: Params, shown: Inputs, asked: Inputs) -> Tensor:
            if not self.by_support:
                return self.student(theta, asked, seed=query.seed)
            first = support.index.shape[-1]
            student = NormalisedBy(self.student, SupportStatistics(first))
            return student(theta, _joined(shown, asked), seed=query.seed)[first:]

        if not self.many:
            return one(theta, support.x, query.x)
        return vmap(one, randomness="different")(theta, support.x, query.x)

    def weights(self, theta: Params, teacher: Params, batch: Batch) -> Tensor | None:
        """(way · shot,) weights that the commentary gives a support set; of many (tasks, ...).

        None where there is no commentary, or one without weights.
        """
        commentary = self.commentary
        if commentary is None or commentary(teacher, _first(batch, self.many)).weight is None:
            return None

        def one(theta: Params, x: Inputs, y: Tensor, index: Tensor) -> Tensor:
            lesson = commentary(teacher, batch._replace(x=x, y=y, index=index))
            if isinstance(lesson.weight, Tensor):
                return lesson.weight
            assert lesson.weight is not None
            z = self.student(theta, lesson.x, seed=batch.seed)
            return lesson.weight(self.criterion(z, lesson.target))

        inputs = (theta, batch.x, batch.y, batch.index)
        return vmap(one, randomness="different")(*inputs) if self.many else one(*inputs)


def _summed(one: Composed) -> Loss:
    """The sum of a loss over stacked tasks that share φ."""

    def inner(theta: Params, phi: Params, batch: Batch) -> Tensor:
        def loss(theta: Params, x: Inputs, y: Tensor, index: Tensor) -> Tensor:
            z, lesson = one.outputs(theta, phi, batch._replace(x=x, y=y, index=index))
            if isinstance(lesson, Lesson) and callable(lesson.weight):
                raise BadInput(
                    "A weight that is a function of the loss cannot be taken for all tasks at "
                    "once. Choose batched=False."
                )
            return one.loss(z, z, lesson)

        losses = vmap(loss, randomness="different")(theta, batch.x, batch.y, batch.index)
        return losses.sum()

    return inner


def _joined(first: Inputs, second: Inputs) -> Inputs:
    if isinstance(first, dict) and isinstance(second, dict):
        return {name: torch.cat([value, second[name]]) for name, value in first.items()}
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return torch.cat([first, second])


def _first(batch: Batch, many: bool) -> Batch:
    """One support set, of stacked ones the first."""
    if not many:
        return batch
    x = {k: v[0] for k, v in batch.x.items()} if isinstance(batch.x, dict) else batch.x[0]
    return batch._replace(x=x, y=batch.y[0], index=batch.index[0])
