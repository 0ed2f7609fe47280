"""The 2-block network with which the paper learns its commentaries."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn


def cbr(
    outputs: int,
    *,
    channels: int = 3,
    size: int = 32,
    norm: Literal["batch", "group"] = "batch",
) -> nn.Sequential:
    """Two blocks of convolution, normalisation, ReLU and pooling (Raghu et al. 2021, appendix).

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images.
        norm: "batch" for a student; "group" for a teacher, whose weights must not depend on the
            rest of the batch.
    """

    def block(inputs: int, width: int, kernel: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, width, kernel, stride=2, padding=kernel // 2),
            nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]

    return nn.Sequential(
        *block(channels, 32, 5),
        *block(32, 64, 3),
        nn.Flatten(),
        nn.Linear(64 * math.ceil(size / 16) ** 2, outputs),
    )
