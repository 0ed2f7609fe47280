"""A control: what remains of learned weights when they no longer tell examples apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..commentary.lesson import Commentary, Lesson
from ..types import Batch, Params


@dataclass(frozen=True)
class MeanWeights:
    """Another commentary, with every weight replaced by the mean over the support set.

    The mean of a step only says how long the step is. With weights that are divided by their sum
    it is one, and the student adapts as without a commentary.

    Attributes:
        commentary: Gives the weights.
    """

    commentary: Commentary

    def init(self, generator: torch.Generator) -> Params:
        """The commentary's."""
        return self.commentary.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Lesson:
        """The commentary's lesson with equal weights."""
        lesson = self.commentary(phi, batch)
        weight = lesson.weight
        if weight is None:
            return lesson
        if isinstance(weight, Tensor):
            return lesson._replace(weight=weight.mean().expand_as(weight))
        given = weight  # a function of the losses
        return lesson._replace(weight=lambda losses: given(losses).mean().expand_as(losses))
