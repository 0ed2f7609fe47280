"""Every method ends the same way: labels and weights, one network trained with them, two scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..student import Student
from ..training import Examples, Recipe, fit, log_probabilities
from .cues import of_label
from .task import Task


class Tuning(NamedTuple):
    """What of a recipe was tuned for each method.

    Attributes:
        weight_decay: See `Recipe`.
        share: Of the loss, that the trusted examples have together.
    """

    weight_decay: float
    share: float

    def of(self, recipe: Recipe) -> Recipe:
        """A recipe that is so tuned."""
        return replace(recipe, weight_decay=self.weight_decay, share=self.share)


LIGHT = Tuning(2e-3, 0.25)
DEFAULT = Tuning(5e-3, 0.25)
MIDDLE = Tuning(5e-3, 0.5)
STRONG = Tuning(1e-2, 0.5)


@dataclass(frozen=True)
class Plan:
    """What the final network of a method is trained with.

    Attributes:
        target: (n,) labels of the training examples, or (n, classes) probabilities.
        weight: (n,) their weights; the trusted examples come on top.
        tuning: Of the training.
        suspicion: (n,) the method's own ranking, higher for likely wrong labels; None without.
    """

    target: Tensor
    weight: Tensor
    tuning: Tuning
    suspicion: Tensor | None = None


class Outcome(NamedTuple):
    """What a method achieved.

    Attributes:
        log_probability: (n, classes) of the final network on the training examples.
        suspicion: (n,) the method's own ranking; without one, the loss of the given label.
        accuracy: On the test set; None without one.
        auroc: Of ``suspicion`` for the wrong labels; None where the truth is not known.
        auroc_rescored: Of the given label's loss under the final network.
    """

    log_probability: Tensor
    suspicion: Tensor
    accuracy: float | None
    auroc: float | None
    auroc_rescored: float | None


def carry_out(task: Task, student: Student, plan: Plan, recipe: Recipe, *, seed: int) -> Outcome:
    """Trains a plan's network by a recipe, tuned as planned, and scores it."""
    anchors = Examples(task.trusted.x, task.trusted.y, torch.ones(len(task.trusted)))
    examples = Examples(task.train.x, plan.target, plan.weight)
    theta = fit(student, examples, plan.tuning.of(recipe), seed=seed, anchors=anchors)
    return score(task, student, theta, plan.suspicion)


def score(task: Task, student: Student, theta: dict[str, Tensor], own: Tensor | None) -> Outcome:
    """The outcome of a network however it was trained."""
    opinion = log_probabilities(student, theta, task.train.x, seen=task.x).cpu()
    loss = given_loss(opinion, task.train.y.cpu())
    accuracy = None
    if task.test is not None:
        found = log_probabilities(student, theta, task.test.x, seen=task.x).argmax(1)
        accuracy = float((found == task.test.y).double().mean())
    suspicion = loss if own is None else own
    return Outcome(
        opinion, suspicion, accuracy, auroc(task.wrong, suspicion), auroc(task.wrong, loss)
    )


def given_loss(log_probability: Tensor, given: Tensor) -> Tensor:
    """-log p(given label), (n,)."""
    return -of_label(log_probability, given)


def auroc(wrong: Tensor | None, suspicion: Tensor) -> float | None:
    """Area under the ROC curve of a ranking for the wrong labels; None if there is no contrast."""
    from sklearn.metrics import roc_auc_score

    if wrong is None or not wrong.any() or wrong.all():
        return None
    return float(roc_auc_score(wrong.cpu().numpy(), suspicion.cpu().numpy()))
