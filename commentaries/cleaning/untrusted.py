"""What stands in for trusted examples where a user has none."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import LabelledImages
from ..student import Student
from ..training import Examples, Recipe, fit, log_probabilities
from .cues import of_label

FOLDS = 2
SHARE = 0.1
LEAST = 5


def choose_trusted(
    train: LabelledImages, student: Student, *, seed: int, recipe: Recipe | None = None
) -> Tensor:
    """Positions of the examples whose given label networks agree with most, in order.

    The examples are divided in two. A network is fitted to each half with the given labels and
    asked for the probability of the given labels of the other half. Of each class the tenth with
    the highest probability is chosen, at least five examples (all of a smaller class).

    A wrong label that looks right to both networks, because a whole class or batch is mislabelled
    in the same way, can be among them.

    Args:
        train: The examples with their given labels.
        student: The network.
        seed: Of the division and the training.
        recipe: Of the training.
    """
    generator = torch.Generator().manual_seed(seed)
    given = train.y.cpu()
    fold = torch.empty(len(train), dtype=torch.int64)
    for label in given.unique():
        own = (given == label).nonzero().flatten()
        fold[own[torch.randperm(len(own), generator=generator)]] = torch.arange(len(own)) % FOLDS
    agreement = torch.empty(len(train))
    for k in range(FOLDS):
        seen = train.rows(fold != k)
        examples = Examples(seen.x, seen.y, torch.ones(len(seen)))
        theta = fit(student, examples, recipe or Recipe(), seed=seed + k)
        asked = train.rows(fold == k)
        found = log_probabilities(student, theta, asked.x, seen=seen.x)
        agreement[fold == k] = of_label(found, asked.y).cpu()
    chosen = []
    for label in given.unique():
        own = (given == label).nonzero().flatten()
        best = agreement[own].argsort(descending=True, stable=True)
        chosen.append(own[best[: max(LEAST, round(SHARE * len(own)))]])
    return torch.cat(chosen).sort().values
