"""Learning from cues without a bilevel problem: trusted labels against random wrong ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .cues import (
    CUES,
    Evidence,
    cue_values,
    of_label,
    standardised,
)
from .task import Task

WRONG_LABELS = 3
"""Random wrong labels for each trusted example."""


def learned_from_cues(
    task: Task,
    evidence: Evidence,
    log_probability: Tensor,
    trusted_log_probability: Tensor,
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Cues of the given labels, and how probably right each is by a logistic regression.

    Args:
        task: The examples.
        evidence: Of the task.
        log_probability: (n, classes) of networks that did not see the training example.
        trusted_log_probability: (t, classes) of networks that did not see the trusted example.
        seed: Of the wrong labels.

    Returns:
        Standardised cues, (n, cues), and probabilities, (n,).
    """
    from sklearn.linear_model import LogisticRegression

    votes, trusted_votes = evidence.votes_everywhere(torch.full((task.size,), 0.5)).split(
        [task.size, len(task.trusted)]
    )
    raw = of_label(
        cue_values(
            CUES, evidence.margin, evidence.trusted_votes[: task.size], votes, log_probability
        ),
        task.train.y,
    )
    every = standardised(_trusted_cues(evidence, trusted_votes, trusted_log_probability), raw)
    right = of_label(every, task.trusted.y)
    generator = torch.Generator().manual_seed(seed)
    wrong = []
    for _ in range(min(WRONG_LABELS, task.classes - 1)):
        shift = torch.randint(1, task.classes, task.trusted.y.shape, generator=generator)
        wrong.append(of_label(every, (task.trusted.y + shift) % task.classes))
    shown = torch.cat([right, *wrong]).numpy()
    answer = torch.arange(len(shown)) < len(right)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(shown, answer.numpy())
    cues = standardised(raw, raw)
    probability = torch.from_numpy(model.predict_proba(cues.numpy())[:, 1]).float()
    return cues, probability


def _trusted_cues(evidence: Evidence, votes: Tensor, log_probability: Tensor) -> Tensor:
    """Cues of the trusted examples for every label, none from its own label, (t, classes, cues)."""
    task = evidence.task
    decisions, trusted_votes = evidence.decisions[task.size :], evidence.trusted_votes[task.size :]
    return cue_values(CUES, decisions, trusted_votes, votes, log_probability)
