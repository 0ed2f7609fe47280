"""Weights for support examples from what a network makes of the image, its label and the step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..commentary.teacher import Teacher, images
from ..errors import BadInput, check_positive
from ..student import Student
from ..types import Batch, Params
from .agreement import agreement
from .meta_parameters import part, under

_CUES = 3


class SupportNetwork:
    """A score for `ExampleWeights`: how well an example's label agrees with the other examples.

    The numbers of an episode's classes mean nothing from one episode to the next, so a label says
    something only beside those of the other examples. A network maps each image to features, and
    a small second one gets from an example

    - its features, of length one;
    - how they fit the other examples of its label, and those of the best other label
      (`agreement`);
    - the step, as ``batch.progress``.

    Renumbering the classes changes nothing. Every example counts the same before anything is
    learned. To see the number of the label itself, use `ImageNetwork`.

    Args:
        module: A module, or a function that builds one, from images (n, channels, h, w) to
            (n, features).
        features: How many.
        width: Hidden tanh units of the second network.

    Raises:
        BadInput: The module uses batch statistics.
    """

    def __init__(
        self, module: nn.Module | Callable[[], nn.Module], features: int, *, width: int = 32
    ):
        check_positive("features", features)
        check_positive("width", width)
        self._network = Student(module)
        if self._network.uses_batch_statistics:
            raise BadInput(
                "A network with batch normalisation gives features that depend on the rest of the "
                "batch. Use group normalisation in it, or none."
            )
        self._judge = Teacher(
            lambda: nn.Sequential(
                nn.Linear(features + _CUES, width), nn.Tanh(), nn.Linear(width, 1)
            )
        )

    def init(self, generator: torch.Generator) -> Params:
        """Both networks' initial parameters; the last layer is zero."""
        network = under("network.", self._network.init(generator))
        return network | under("judge.", self._judge.init(generator))

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Logits (n,) of a support set."""
        found = self._network(part(phi, "network."), images(batch.x), buffers={})
        e = torch.nn.functional.normalize(found, dim=1)
        fit = agreement(found, batch.y)
        step = torch.full_like(fit.own, min(max(batch.progress, 0.0), 1.0))
        seen = torch.cat([e, torch.stack([*fit, step], dim=1)], dim=1)
        return self._judge(part(phi, "judge."), seen).squeeze(1)
