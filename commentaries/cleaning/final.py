"""From learned weights to a final student, suggested labels and a ranking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..student import Student
from ..training import Recipe
from .cues import Evidence
from .learner import Learned
from .methods import Outcome, Plan, carry_out

RECIPE = Recipe(weight_decay=5e-3, share=0.25)


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
    """Trains the final student on the labels that the weighted votes favour."""
    task = evidence.task
    votes = evidence.weighted_votes(learned.weight)
    confidence, suggested = votes.max(1)
    agree = suggested == task.train.y
    weight = torch.where(agree, torch.ones_like(confidence), confidence)
    outcome = carry_out(task, student, Plan(suggested, weight, RECIPE), seed=seed + 7)
    return Verdict(outcome, outcome.suspicion, suggested, confidence)
