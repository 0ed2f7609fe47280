"""Two convolutions that learn to tell small photographs apart in seconds on one core."""

from __future__ import annotations

import math

from torch import nn


def conv2(outputs: int, *, channels: int = 3, size: int = 32, width: int = 32) -> nn.Sequential:
    """A 5 x 5 convolution of stride 2, a 3 x 3 one, max-pooling after each, and a linear layer.

    It has no normalisation: on one core that is as dear as the convolutions, and without it the
    network keeps no state.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images.
        width: Channels of the first convolution; the second has twice as many.
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Flatten(),
        nn.Linear(2 * width * math.ceil(size / 8) ** 2, outputs),
    )
