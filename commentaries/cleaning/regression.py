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
    svm_decisions,
    trusted_labels,
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
        cue_values(CUES, evidence.margin, evidence.trusted_votes, votes, log_probability),
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
    trusted_votes = evidence.graph.votes_of_others(trusted_labels(task))[task.size :]
    decisions = _out_of_fold_decisions(task)
    return cue_values(CUES, decisions, trusted_votes, votes, log_probability)


def _out_of_fold_decisions(task: Task) -> Tensor:
    """Decision values of support-vector machines that did not see the example, (t, classes)."""
    from sklearn.model_selection import StratifiedKFold

    x, y = task.trusted.x, task.trusted.y
    folds = min(5, int(task.trusted.y.bincount().min()))
    found = torch.zeros(len(y), task.classes)
    if folds < 2:  # one trusted example of a class: the cue says nothing
        return found
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    for kept, held in splitter.split(x.flatten(1).numpy(), y.numpy()):
        found[held] = svm_decisions(x[kept], y[kept], x[held], task.classes)
    return found
