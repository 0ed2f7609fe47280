"""The four-block network of few-shot learning."""

from __future__ import annotations

from torch import nn

from .layers import Convolution, GlobalAverage, PooledBatchNorm2d, check_images


def conv4(outputs: int, *, channels: int = 3, size: int = 32, width: int = 64) -> nn.Sequential:
    """Four blocks of 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max-pooling.

    The embedding of matching networks (Vinyals et al. 2016, section 4.1), with a linear layer on
    the global average. Images below 16 pixels are not pooled once they are a single pixel.

    Args:
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images, at least 8.
        width: Channels of each block.
    """
    check_images("conv4", size, 8, outputs=outputs, channels=channels, width=width)
    layers: list[nn.Module] = []
    for inputs in (channels, width, width, width):
        layers += [
            Convolution(inputs, width, 3, bias=True),
            PooledBatchNorm2d(width) if size > 1 else nn.BatchNorm2d(width),
            nn.ReLU(),  # after pooling: the same number, for a quarter of the work and memory
        ]
        size //= 2
    return nn.Sequential(*layers, GlobalAverage(), nn.Linear(width, outputs))
