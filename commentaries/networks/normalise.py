"""A first layer that turns pixels in [0, 1] into what a network expects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import BadInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(x - mean) / std of each channel, by constants that no training moves.

    Grey images (n, 1, h, w) with three means become colour ones, (n, 3, h, w): each channel is
    the grey one, normalised by its own mean and deviation.

    Args:
        mean: One for each channel.
        std: One for each channel, positive.

    Raises:
        BadInput: Not as many deviations as means, none at all, or a deviation not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        numbers = torch.tensor([*mean, *std])
        if not len(mean) or len(mean) != len(std):
            raise BadInput(
                f"mean has {len(mean)} values and std {len(std)}. Give one of each for every "
                "channel."
            )
        if not bool(torch.isfinite(numbers).all()) or min(std) <= 0:
            raise BadInput(
                f"mean is {tuple(mean)} and std {tuple(std)}, but all must be finite and each std "
                "positive. Leave out channels that are constant, or give them a std of 1."
            )
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same shape."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
