"""The 2-block network with which the paper learns its commentaries."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from .layers import check_images


def cbr(
    outputs: int,
    *,
    channels: int = 3,
    size: int = 32,
    norm: Literal["batch", "group"] = "batch",
    width: int = 32,
) -> nn.Sequential:
    """Two blocks of convolution, normalisation, ReLU and pooling (Raghu et al. 2021, appendix).

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images.
        norm: "batch" for a student; "group" for a teacher, whose weights must not depend on the
            rest of the batch.
        width: Channels of the first block, a multiple of 8 with norm="group"; the second doubles
            them.
    """
    check_images("cbr", size, 1, outputs=outputs, channels=channels, width=width)

    def block(inputs: int, outs: int, kernel: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outs, kernel, stride=2, padding=kernel // 2),
            nn.BatchNorm2d(outs) if norm == "batch" else nn.GroupNorm(8, outs),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]

    return nn.Sequential(
        *block(channels, width, 5),
        *block(width, 2 * width, 3),
        nn.Flatten(),
        nn.Linear(2 * width * math.ceil(size / 16) ** 2, outputs),
    )
