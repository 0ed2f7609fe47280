"""Weights for support examples from how their losses compare at the present step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..commentary.teacher import Teacher
from ..errors import check_positive
from ..types import Batch, Params

_CUES = 3
_SMALL = 1e-4


class SupportLosses:
    """A score for `ExampleWeights`: how an example's loss compares with those of the others.

    While a student adapts, examples whose labels agree with one another are learned first. A small
    network gets from an example

    - its loss, less the mean over the support set;
    - its loss, less the mean over the examples of its label;
    - the step, as ``batch.progress``;

    the first two divided by the standard deviation over the support set. The student's own pass
    supplies the losses, so that a weight costs next to nothing. As a function of the loss it is
    held constant while the student moves (Meta-Weight-Net, Shu et al. 2019) and needs tasks that
    are adapted to one after another. Every example counts the same before anything is learned.

    Args:
        width: Hidden tanh units.
    """

    def __init__(self, *, width: int = 32):
        check_positive("width", width)
        self._judge = Teacher(
            lambda: nn.Sequential(nn.Linear(_CUES, width), nn.Tanh(), nn.Linear(width, 1))
        )

    def init(self, generator: torch.Generator) -> Params:
        """Random hidden units; the last layer is zero."""
        return self._judge.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Callable[[Tensor], Tensor]:
        """A function from the losses (n,) of a support set to logits (n,)."""
        same = batch.y[:, None] == batch.y[None, :]
        progress = min(max(batch.progress, 0.0), 1.0)

        def logits(losses: Tensor) -> Tensor:
            alike = same.to(losses.dtype)
            own = alike @ losses / alike.sum(1)
            spread = (losses.var(correction=0) + _SMALL).rsqrt()
            step = torch.full_like(losses, progress)
            cues = [(losses - losses.mean()) * spread, (losses - own) * spread, step]
            return self._judge(phi, torch.stack(cues, dim=1)).squeeze(1)

        return logits
