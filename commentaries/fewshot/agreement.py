"""How well the labels of a support set agree with what its examples look like."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SHARPNESS = 10.0
_SMALL = 1e-6


class Agreement(NamedTuple):
    """Mean cosines of each example with others, (n,) each, in [-1, 1].

    Attributes:
        own: With the other examples of its label; 0 where there are none.
        other: With the examples of the label, among the others, that fits it best; -1 where all
            examples have one label.
    """

    own: Tensor
    other: Tensor


def agreement(features: Tensor, y: Tensor, *, rounds: int = 3) -> Agreement:
    """How each example fits its own label and the best of the others.

    The numbers of the classes do not matter. Means are taken again so many times, with each
    example weighing as much as it fitted its label in the round before: exp(10 s) of its label
    over the sum of those of all labels.

    Args:
        features: (n, d), of which the mean over the support set is subtracted.
        y: (n,) labels.
        rounds: How often the means are taken again.
    """
    e = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    same = y[:, None] == y[None, :]
    alike = same.to(e.dtype)
    apart = 1 - torch.eye(len(y), dtype=e.dtype, device=e.device)
    cosine = (e @ e.mT) * apart

    def means(weight: Tensor) -> Tensor:
        """Of the cosines of example i with the label of j, at [i, j]."""
        return ((cosine * weight) @ alike) / ((apart * weight) @ alike).clamp_min(_SMALL)

    found = means(torch.ones_like(cosine[0]))
    for _ in range(rounds):
        labels = (_SHARPNESS * found - alike.sum(0).log()).logsumexp(1)
        found = means((_SHARPNESS * found.diagonal() - labels).exp())
    return Agreement(found.diagonal(), found.masked_fill(same, -1.0).amax(1))
