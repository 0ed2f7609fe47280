"""Random changes of images that leave their labels right."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import BadInput, check_not_negative


def flip_crop(x: Tensor, *, seed: int, padding: int = 4) -> Tensor:
    """Mirrors half of the images and moves each by up to ``padding`` pixels, as is usual on CIFAR.

    Each image gets a black border, of which a random window of its size is cut out, and is
    mirrored left to right with probability one half (He et al. 2016, section 4.2).

    Args:
        x: (n, channels, h, w), with 0 for black.
        seed: Of what is drawn, on the CPU: the result does not depend on the device.
        padding: Width of the border in pixels.

    Returns:
        (n, channels, h, w), a new tensor.

    Raises:
        BadInput: x does not hold images.
    """
    if x.dim() != 4:
        raise BadInput(
            f"flip_crop needs images (n, channels, h, w), and these inputs have shape "
            f"{tuple(x.shape)}. Set augment to 'none'."
        )
    check_not_negative("padding", padding)
    n, channels, h, w = x.shape
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint(2 * padding + 1, (2, n, 1), generator=generator)
    mirrored = torch.randint(2, (n, 1), generator=generator).bool()
    row = top + torch.arange(h)
    column = left + torch.arange(w)
    column = torch.where(mirrored, column.flip(1), column)
    place = row[:, :, None] * (w + 2 * padding) + column[:, None, :]  # (n, h, w)
    place = place.reshape(n, 1, h * w).to(x.device).expand(-1, channels, -1)
    bordered = functional.pad(x, (padding,) * 4).flatten(2)
    return bordered.gather(2, place).reshape(x.shape)
