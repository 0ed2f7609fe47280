"""Two-dimensional max-pooling of which only the places of the maxima are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .layout import empty_as, is_channels_last, laid_out_as


class Windows(NamedTuple):
    """Which windows the maximum is taken over, for each of the two dimensions."""

    size: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    ceil_mode: bool


def max_pool2d(x: Tensor, windows: Windows) -> Tensor:
    """The maximum of each window of x, (n, channels, height, width), by PyTorch's kernel.

    Any order of reverse mode is exact.
    """
    y = _MaxPool.apply(x, windows)
    assert isinstance(y, Tensor)
    return y


def found_maxima(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    """The maxima of x, without a graph, and their places in half the memory of PyTorch's."""
    maxima, index = torch.ops.aten.max_pool2d_with_indices(x, *windows)
    return maxima, index.int()


def gathered(x: Tensor, index: Tensor) -> Tensor:
    """The values of x at one place for each window of a channel; any order of reverse mode."""
    y = _Gather.apply(x, index)
    assert isinstance(y, Tensor)
    return y


def scatter_(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """Adds values y of windows to x at their places: the transpose of `gathered`, in place.

    x has no gaps, and no graph.
    """
    for rows in _blocks(index):
        places, dim = _flat(index[rows].long(), x[rows])
        _flat(x[rows], x[rows])[0].scatter_add_(dim, places, _flat(y[rows], x[rows])[0])
        del places
    return x


class _MaxPool(torch.autograd.Function):
    """What stands where the maxima are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, windows: Windows) -> Tensor:
        y, index = found_maxima(x, windows)
        ctx.save_for_backward(index)
        ctx.size = x.shape[2:]
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor
    ) -> tuple[Tensor | None, None]:
        return _Scatter.apply(gy, *ctx.saved_tensors, ctx.size), None  # pyright: ignore[reportReturnType]


class _Scatter(torch.autograd.Function):
    """Zeros of a size, with values of windows added: the transpose of `_Gather`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, index: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(index)
        return scatter_(empty_as(index, y.dtype, size).zero_(), y, index)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor
    ) -> tuple[Tensor | None, None, None]:
        return _Gather.apply(a, *ctx.saved_tensors), None, None  # pyright: ignore[reportReturnType]


class _Gather(torch.autograd.Function):
    """Values at places: linear, so that this class and `_Scatter` give every derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = x.shape[2:]
        y = empty_as(x, x.dtype, index.shape[2:])
        for rows in _blocks(index):
            places, dim = _flat(index[rows].long(), x[rows])
            torch.gather(_flat(x[rows], x[rows])[0], dim, places, out=_flat(y[rows], x[rows])[0])
            del places
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor
    ) -> tuple[Tensor | None, None]:
        return _Scatter.apply(a, *ctx.saved_tensors, ctx.size), None  # pyright: ignore[reportReturnType]


def _blocks(index: Tensor, most: int = 2**17) -> Iterator[slice]:
    """A few images at a time: the kernels take places as int64, twice the memory of those kept."""
    each = max(1, most // max(1, index[:1].numel()))
    return (slice(first, first + each) for first in range(0, len(index), each))


def _flat(y: Tensor, x: Tensor) -> tuple[Tensor, int]:
    """y in the layout of x with the places of an image in one dimension, and which that is."""
    y = laid_out_as(x, y)
    if is_channels_last(x):
        return y.permute(0, 2, 3, 1).flatten(1, 2), 1
    return y.flatten(2), 2
