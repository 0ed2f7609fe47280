"""From learned weights to a final student, suggested labels and a ranking."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..student import Student
from ..training import Recipe
from .cues import Evidence, of_label
from .learner import Learned
from .methods import LIGHT, Outcome, Plan, auroc, carry_out
from .posterior import NoiseModel

PASSES = 2
"""Repetitions of the votes that the learned weights begin."""


@dataclass(frozen=True)
class Verdict:
    """What is said of every training example.

    Attributes:
        outcome: Of the final network.
        suspicion: (n,) higher for labels that are more likely wrong: -log q of the given one.
        suggested: (n,) the most likely label.
        confidence: (n,) its probability.
        trusted_suspicion: (trusted,) the same for the trusted examples, whose labels are right, by
            votes that have not seen them.
    """

    outcome: Outcome
    suspicion: Tensor
    suggested: Tensor
    confidence: Tensor
    trusted_suspicion: Tensor


def conclude(
    evidence: Evidence,
    student: Student,
    learned: Learned,
    *,
    seed: int,
    recipe: Recipe | None = None,
) -> Verdict:
    """Trains the final student on the posterior of the labels and ranks the given ones.

    The students have a say among the votes although they have seen the given labels, with their
    learned weights: where they have learned them by heart, that errs towards trusting a label.

    Args:
        evidence: Of the task.
        student: The final network.
        learned: The weights, with which the votes begin, and the students' opinion.
        seed: Of the training.
        recipe: Of the training, but for weight decay and share.
    """
    votes = evidence.self_trained_votes(learned.weight, PASSES, learned.probability)
    return by_votes(evidence, student, votes, seed=seed, recipe=recipe)


def by_votes(
    evidence: Evidence, student: Student, votes: Tensor, *, seed: int, recipe: Recipe | None = None
) -> Verdict:
    """Trains the final student on the posterior of the labels under some votes.

    Args:
        evidence: Of the task.
        student: The network.
        votes: (n + trusted, classes) shares of the votes of others.
        seed: Of the training.
        recipe: Of the training, but for weight decay and share.
    """
    task, given = evidence.task, evidence.given
    own, theirs = votes.split([task.size, len(task.trusted)])
    model = NoiseModel.estimate(own, given)
    log_q = model.log_posterior(own, given)
    label = evidence.trusted_label
    trusted_suspicion = -of_label(model.log_posterior(theirs, label), label)
    confidence, suggested = log_q.exp().max(1)
    plan = Plan(log_q.exp(), confidence, LIGHT)
    outcome = carry_out(task, student, plan, recipe or Recipe(), seed=seed + 7)
    suspicion = -of_label(log_q, given)
    outcome = outcome._replace(suspicion=suspicion, auroc=auroc(task.wrong, suspicion))
    return Verdict(outcome, suspicion, suggested, confidence, trusted_suspicion)
