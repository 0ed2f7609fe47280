"""A convolutional network small enough for two cores."""

from __future__ import annotations

from torch import nn

from .layers import check_images


def small_cnn(
    outputs: int, *, channels: int = 1, size: int = 8, width: int = 24, hidden: int = 64
) -> nn.Sequential:
    """A 5 x 5 convolution of stride 2 and two linear layers; no normalisation, no state.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images.
        width: Channels of the convolution.
        hidden: Units of the hidden linear layer.
    """
    check_images("small_cnn", size, 1, outputs=outputs, channels=channels, width=width)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * ((size + 1) // 2) ** 2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
