"""Weights for support examples from how their losses compare at the present step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..commentary.teacher import Teacher, images
from ..errors import check_positive
from ..types import Batch, Params
from .agreement import agreement

_SMALL = 1e-4


class SupportLosses:
    """A score for `ExampleWeights`: how an example's loss compares with those of the others.

    While a student adapts, examples whose labels agree with one another are learned first. A small
    network gets from an example

    - its loss, less the mean over the support set;
    - its loss, less the mean over the examples of its label;
    - with ``features``, how they fit its label, less the mean over the support set, and how much
      better they fit it than the best other label, less the mean (`agreement`);
    - the step, as ``batch.progress``;

    all but the last divided by their standard deviation over the support set. The student's own
    pass supplies the losses, so that a weight costs next to nothing. As a function of the loss it
    is held constant while the student moves (Meta-Weight-Net, Shu et al. 2019) and needs tasks
    that are adapted to one after another. Every example counts the same before anything is learned.

    Args:
        features: A module from images (n, channels, h, w) to features (n, d) of which nothing is
            learned, such as `networks.backbone` gives. It says something before the student's
            losses do. It is put in evaluation mode and moved to the device and the precision of
            the images.
        width: Hidden tanh units.
    """

    def __init__(self, features: nn.Module | None = None, *, width: int = 32):
        check_positive("width", width)
        self._features = None if features is None else features.eval()
        cues = 3 if features is None else 5
        self._judge = Teacher(
            lambda: nn.Sequential(nn.Linear(cues, width), nn.Tanh(), nn.Linear(width, 1))
        )

    def init(self, generator: torch.Generator) -> Params:
        """Random hidden units; the last layer is zero."""
        return self._judge.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Callable[[Tensor], Tensor]:
        """A function from the losses (n,) of a support set to logits (n,)."""
        same = batch.y[:, None] == batch.y[None, :]
        progress = min(max(batch.progress, 0.0), 1.0)
        seen = self._seen(batch)

        def logits(losses: Tensor) -> Tensor:
            alike = same.to(losses.dtype)
            own = alike @ losses / alike.sum(1)
            spread = _spread(losses)
            step = torch.full_like(losses, progress)
            cues = [(losses - losses.mean()) * spread, (losses - own) * spread, *seen, step]
            return self._judge(phi, torch.stack(cues, dim=1)).squeeze(1)

        return logits

    @torch.no_grad()
    def _seen(self, batch: Batch) -> list[Tensor]:
        """What the features say of each example, (n,) each; nothing without features."""
        if self._features is None:
            return []
        x = images(batch.x)
        found = agreement(self._features.to(x)(x).flatten(1), batch.y)
        cues = (found.own, found.own - found.other)
        return [(cue - cue.mean()) * _spread(cue) for cue in cues]


def _spread(values: Tensor) -> Tensor:
    """By what values are multiplied to have a standard deviation of one."""
    return (values.var(correction=0) + _SMALL).rsqrt()
