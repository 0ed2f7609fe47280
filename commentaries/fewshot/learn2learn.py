"""Task sets and models of learn2learn, as they are used here; learn2learn itself is not needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..inner import SGD
from ..student import Student
from ..types import Batch
from .episodes import Episode
from .maml import MAML


class TaskSet(Protocol):
    """As `learn2learn.data.Taskset`: tasks drawn at random, each one batch of examples."""

    def sample(self) -> Sequence[Any]:
        """Inputs (n, ...) and labels (n,) of a task."""
        ...


class TaskSetEpisodes:
    """The tasks of a learn2learn task set as episodes.

    learn2learn draws tasks from Python's global random state, so an episode is what is drawn when
    it is asked for, whatever its number: such a training cannot be resumed bitwise. Use
    `Episodes` where that matters.

    Args:
        tasks: Made with ``NWays(way)``, ``KShots(shot + query)``, ``LoadData``, ``RemapLabels``
            and ``ConsecutiveLabels``.
        shot: Support examples of each class; all others are query examples.
        device: Where episodes are put; where the task set has them by default.
    """

    def __init__(self, tasks: TaskSet, *, shot: int, device: torch.device | str | None = None):
        self._tasks, self._shot, self._device = tasks, shot, device

    def __call__(self, number: int) -> Episode:
        """The next task."""
        x, y = self._tasks.sample()
        return episode_of(x.to(self._device), y.to(self._device), shot=self._shot)


def episode_of(x: Tensor, y: Tensor, *, shot: int) -> Episode:
    """A task as learn2learn gives it, its first examples of each class as the support set.

    Args:
        x: (n, ...) inputs.
        y: (n,) labels, any whole numbers; they are renumbered from 0 in their order.
        shot: Support examples of each class.

    Raises:
        BadInput: Labels that are not whole numbers or do not fit, classes of unequal size, or
            with no example left for the query set.
    """
    if y.is_floating_point() or y.dim() != 1 or len(x) != len(y):
        raise BadInput(
            f"The task has inputs of shape {tuple(x.shape)} and {y.dtype} labels of shape "
            f"{tuple(y.shape)}. Give one whole number for each example, (n,)."
        )
    classes, numbers, counts = torch.unique(y, return_inverse=True, return_counts=True)
    least, most = int(counts.min()), int(counts.max())
    if least != most or least <= shot:
        raise BadInput(
            f"The classes of the task have {least} to {most} examples, and shot is {shot}. Give "
            "each class equally many, more than shot."
        )
    by_class = torch.argsort(numbers, stable=True).view(len(classes), most)

    def batch(rows: Tensor) -> Batch:
        flat = rows.flatten()
        return Batch(x[flat], numbers[flat], flat)

    support = batch(by_class[:, :shot])
    return Episode(support, batch(by_class[:, shot:]), support.y, classes)


def from_learn2learn(wrapped: nn.Module, *, steps: int, **options: Any) -> MAML:
    """A model wrapped in learn2learn's `MAML`, with its learning rate and order, as one of ours.

    It is read and never changed; its present parameters are ``maml.student.parameters()``.

    Args:
        wrapped: A ``learn2learn.algorithms.MAML``.
        steps: Adaptation steps, which learn2learn leaves to the training loop.
        options: More of `MAML`, such as ``commentary`` or ``learn_rates``.

    Raises:
        BadInput: Not such a model.
    """
    module, lr = getattr(wrapped, "module", None), getattr(wrapped, "lr", None)
    first_order = getattr(wrapped, "first_order", None)
    if not isinstance(module, nn.Module) or lr is None or first_order is None:
        raise BadInput(
            f"{type(wrapped).__name__} has no module, lr and first_order. Give a model wrapped in "
            "learn2learn.algorithms.MAML."
        )
    given: dict[str, Any] = {"first_order": bool(first_order)} | options
    return MAML(Student(module), SGD(float(lr)), steps=steps, **given)
