"""From learned weights to a final student, suggested labels and a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..student import Student
from ..training import Recipe
from .cues import FLOOR, Evidence, of_label
from .learner import Learned
from .methods import Outcome, Plan, auroc, carry_out, given_loss
from .posterior import posterior
from .task import Task

RECIPE = Recipe(weight_decay=2e-3, share=0.25)

PASSES = 2
"""Repetitions of the votes that the learned weights begin."""


@dataclass(frozen=True)
class Verdict:
    """What is said of every training example.

    Attributes:
        outcome: Of the final network.
        suspicion: (n,) higher for labels that are more likely wrong.
        suggested: (n,) the most likely label.
        confidence: (n,) its probability.
    """

    outcome: Outcome
    suspicion: Tensor
    suggested: Tensor
    confidence: Tensor


def conclude(evidence: Evidence, student: Student, learned: Learned, *, seed: int) -> Verdict:
    """Trains the final student on the most likely labels and ranks the given ones.

    The second opinion of the ranking is that of the averaged cross-fitted students, who saw other
    labels.
    """
    votes = evidence.self_trained_votes(learned.weight, PASSES)
    second = of_label(learned.log_probability, evidence.task.train.y).exp()
    return by_votes(evidence.task, student, votes, second=second, seed=seed)


def by_votes(
    task: Task, student: Student, votes: Tensor, *, second: Tensor | None = None, seed: int
) -> Verdict:
    """Trains the final student on the most likely labels under some votes.

    Suspicion is the loss of the given label under the final student plus that under a second
    opinion.

    Args:
        task: The examples.
        student: The network.
        votes: (n, classes) shares of the votes of others.
        second: (n,) probability of the given label in the second opinion; the posterior's own
            unless given.
        seed: Of the training.
    """
    q = posterior(votes, task.train.y)
    confidence, suggested = q.max(1)
    if second is None:
        second = of_label(q, task.train.y)
    outcome = carry_out(task, student, Plan(suggested, confidence, RECIPE), seed=seed + 7)
    suspicion = given_loss(outcome.log_probability, task.train.y) - (second + FLOOR).log()
    outcome = outcome._replace(suspicion=suspicion, auroc=auroc(task.wrong, suspicion))
    return Verdict(outcome, suspicion, suggested, confidence)
