"""How images lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """Images (n, channels, height, width) whose channels vary fastest, copied if they are not so.

    A single channel lies both ways; the strides then say which is meant, and kernels go by them.
    """
    if x.shape[1] == 1 and x.stride(1) != 1:
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)
    return x.contiguous(memory_format=torch.channels_last)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels vary fastest; False where that is the same as the ordinary layout."""
    return x.dim() == 4 and not x.is_contiguous()


def laid_out_as(x: Tensor, other: Tensor) -> Tensor:
    """Another tensor in the layout of x; copied if it is laid out otherwise."""
    return channels_last(other) if is_channels_last(x) else other.contiguous()


def empty_as(x: Tensor, dtype: torch.dtype, size: torch.Size) -> Tensor:
    """Room for images (n, channels, *size) in the layout of x, which has as many and channels."""
    layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    shape = (*x.shape[:2], *size)
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)
