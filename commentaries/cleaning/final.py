"""From learned weights to a final student, suggested labels and a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..student import Student
from ..training import Recipe
from .cues import FLOOR, Evidence
from .learner import Learned
from .methods import Outcome, Plan, auroc, carry_out, given_loss
from .posterior import posterior

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

    Suspicion is the loss of the given label under the final student plus that under the averaged
    cross-fitted students, who saw other labels.
    """
    task = evidence.task
    votes = evidence.self_trained_votes(learned.weight, PASSES)
    confidence, suggested = posterior(votes, task.train.y).max(1)
    outcome = carry_out(task, student, Plan(suggested, confidence, RECIPE), seed=seed + 7)
    students = (-given_loss(learned.log_probability, task.train.y)).exp()
    suspicion = given_loss(outcome.log_probability, task.train.y) - (students + FLOOR).log()
    outcome = outcome._replace(suspicion=suspicion, auroc=auroc(task.wrong, suspicion))
    return Verdict(outcome, suspicion, suggested, confidence)
