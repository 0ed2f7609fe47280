"""Two-dimensional convolution whose gradient is differentiated by convolution kernels.

PyTorch's own derivative of a convolution's gradient passes the output's gradient as a kernel as
large as the image, for which no kernel library is made. Here each part of it is one of the three
convolutions of an ordinary training step: forward, to the input, to the weight.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

from .reverse_mode import reverse_only


class Shape(NamedTuple):
    """What a convolution has beside its input and weight, for each of the two dimensions."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, of which any order of reverse mode is exact and fast."""
    given = (input, weight) if bias is None else (input, weight, bias)
    if has_torch_function(given):
        more = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return handle_torch_function(conv2d, given, input, weight, bias, **more)
    if isinstance(padding, str) or input.dim() != 4 or not reverse_only(*given):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    shape = Shape(pair(stride), pair(padding), pair(dilation), groups)
    y = _Convolution.apply(input, weight, bias, shape)
    assert isinstance(y, Tensor)
    return y


def pair(value: int | tuple[int, int]) -> list[int]:
    """A setting for each of the two dimensions."""
    return [value, value] if isinstance(value, int) else list(value)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    stride, padding, dilation, groups = shape
    kernel = torch.ops.aten.convolution
    return kernel(x, weight, bias, stride, padding, dilation, False, [0, 0], groups)


class _Convolution(torch.autograd.Function):
    """y = x * weight + bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = shape
        return _convolved(x, weight, bias, shape)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor
    ) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[:3]
        return *_ConvolutionGradient.apply(gy, *ctx.saved_tensors, ctx.shape, wanted), None  # pyright: ignore[reportGeneralTypeIssues]


class _ConvolutionGradient(torch.autograd.Function):
    """The gradients of `_Convolution` with respect to x, weight and bias, those that are wanted.

    Each is linear in gy and in one of x and weight, so that their derivatives are convolutions
    again, and `_Convolution` and this class give every order of them.
    """

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, weight: Tensor, shape: Shape, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gy, x, weight)
        ctx.shape = shape
        return _pulled_back(gy, x, weight, shape, wanted)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, to_x: Tensor | None, to_weight: Tensor | None, to_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        gy, x, weight = ctx.saved_tensors
        shape = ctx.shape
        of_gy, of_x, of_weight = ctx.needs_input_grad[:3]
        a = b = c = None
        if of_gy and to_x is not None:
            a = _Convolution.apply(to_x, weight, None, shape)
        if of_gy and to_weight is not None:
            own = _Convolution.apply(x, to_weight, to_bias, shape)
            a = own if a is None else a + own
        elif of_gy and to_bias is not None:
            own = to_bias.view(1, -1, 1, 1).expand_as(gy)
            a = own if a is None else a + own
        if of_x and to_weight is not None:
            b, _, _ = _ConvolutionGradient.apply(gy, x, to_weight, shape, (True, False, False))
        if of_weight and to_x is not None:
            _, c, _ = _ConvolutionGradient.apply(gy, to_x, weight, shape, (False, True, False))
        return a, b, c, None, None


def _pulled_back(
    gy: Tensor, x: Tensor, weight: Tensor, shape: Shape, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    stride, padding, dilation, groups = shape
    to_x, to_weight, to_bias = wanted
    kernel = torch.ops.aten.convolution_backward
    settings = (None, stride, padding, dilation, False, [0, 0], groups)
    of_x, of_weight, _ = kernel(gy, x, weight, *settings, [to_x, to_weight, False])
    # the kernel's own sum over the images is several times slower
    return of_x, of_weight, gy.sum([0, 2, 3]) if to_bias else None
