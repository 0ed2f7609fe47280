"""A small U-Net: one number, or several, for every pixel of an image."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import BadInput, check_positive
from .layers import Convolution


class UNet(nn.Module):
    """Convolutions down to a small image and up again, each stage beside its equal on the way.

    The shape of Ronneberger, Fischer and Brox 2015, figure 1, made for a CPU. Nothing runs at the
    image's full size: the way down is convolutions of stride 2, the way up repeats pixels, and the
    last convolution gives the four pixels of each 2 x 2 square as channels (Shi et al. 2016).

    Args:
        outputs: Numbers for each pixel.
        channels: Channels of the images.
        width: Channels after the first halving; each further one doubles them.
        depth: How often the image is halved.
    """

    def __init__(self, outputs: int, channels: int, width: int, depth: int):
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.channels = channels
        self.stride = 2**depth
        self.down = nn.ModuleList(
            _stage(above, below, 2)
            for above, below in zip([channels, *widths], widths, strict=False)
        )
        self.bottom = _stage(widths[-1], widths[-1])
        self.up = nn.ModuleList(
            _stage(above + below, above) for above, below in reversed([*pairwise(widths)])
        )
        self.last = Convolution(width, 4 * outputs, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, outputs, h, w).

        Raises:
            BadInput: Another number of channels, or images smaller than the stride.
        """
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise BadInput(
                f"The U-Net takes images (n, {self.channels}, h, w), and these are "
                f"{tuple(x.shape)}. Build it with the number of channels that the images have."
            )
        height, width = x.shape[2:]
        if min(height, width) < self.stride:
            raise BadInput(
                f"The U-Net takes images of at least {self.stride} x {self.stride} pixels, and "
                f"these are {height} x {width}. Resize them, or lower depth."
            )
        beside = []
        for stage in self.down:
            x = stage(x)
            beside.append(x)
        x = self.bottom(beside.pop())
        for stage in self.up:
            skip = beside.pop()
            x = stage(torch.cat([functional.interpolate(x, size=skip.shape[2:]), skip], dim=1))
        # images of odd size were rounded up
        return functional.pixel_shuffle(self.last(x), 2)[:, :, :height, :width]


def unet(outputs: int = 1, *, channels: int, width: int = 8, depth: int = 3) -> UNet:
    """A U-Net from images to numbers for each of their pixels.

    It is smooth (SiLU) and normalises each stage over the channels and pixels of one image, so
    that no output depends on the rest of the batch. With the defaults it has 24 thousand
    parameters for colour images and makes 1.3 million multiplications for one of 32 x 32 pixels;
    `conv2` makes 1.8 million.

    Args:
        outputs: Numbers for each pixel.
        channels: Channels of the images (n, channels, h, w).
        width: Channels after the first halving; each further one doubles them.
        depth: How often the image is halved: h and w are at least 2^depth, and need not be
            multiples of it.

    Raises:
        BadInput: A count that is not positive.
    """
    counts = {"outputs": outputs, "channels": channels, "width": width, "depth": depth}
    for name, value in counts.items():
        check_positive(name, value)
    return UNet(outputs, channels, width, depth)


def _stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A convolution, a normalisation over each image, and a smooth unit."""
    return nn.Sequential(
        Convolution(inputs, outputs, 3, stride=stride), nn.GroupNorm(1, outputs), nn.SiLU()
    )
