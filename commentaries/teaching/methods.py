"""How every method of a comparison ends: a student trained alike, and what it scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..data import LabelledImages
from ..student import Student
from ..training import Examples, Recipe, fit
from ..types import Params

OURS = "ours"
"""The method that uses what was learned."""


class Score(NamedTuple):
    """What a student scores on some examples.

    Attributes:
        accuracy: Share of right answers.
        loss: Mean cross-entropy.
    """

    accuracy: float
    loss: float


def score(opinion: Tensor, y: Tensor) -> Score:
    """What log-probabilities (n, classes) score on labels (n,)."""
    right = (opinion.argmax(1) == y).double().mean()
    return Score(float(right), -float(opinion.gather(1, y[:, None]).double().mean()))


def plain(student: Student, images: LabelledImages, recipe: Recipe, *, seed: int) -> Params:
    """A student without any commentary."""
    weight = torch.ones(len(images), device=images.x.device)
    return fit(student, Examples(images.x, images.y, weight), recipe, seed=seed)
