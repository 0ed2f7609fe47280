"""Batch normalisation followed by max-pooling, with nothing of the input's size but the input.

Normalisation is increasing where the scale is positive and decreasing where it is negative, so the
maxima can be found before it, and only they need be normalised. What the two layers would keep
beside it, the normalised input and its gradient (zero but at the maxima), is never made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

from .batch_norm import gradient_kernel
from .layout import laid_out_as
from .max_pooling import Windows, found_maxima, gathered, scatter_

WINDOWS = Windows([2, 2], [2, 2], [0, 0], [1, 1], False)


def pooled_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`functional.batch_norm`, then the maxima of 2 x 2 windows.

    It is a function of its own so that a mode can put `normalised_maxima` in its place.
    """
    given = (x, weight, bias)
    if has_torch_function(given):
        more = (running_mean, running_var, weight, bias, training, momentum, eps)
        return handle_torch_function(pooled_batch_norm, given, x, *more)
    y = functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return functional.max_pool2d(y, 2)


def normalised_maxima(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The maxima over 2 x 2 windows of x, (n, channels, height, width), normalised as all of x.

    Any order of reverse mode is exact.
    """
    x = laid_out_as(x, x)
    maxima, mean, inverse = _Maxima.apply(x, weight.detach(), eps)  # pyright: ignore[reportGeneralTypeIssues]
    y = _Scaled.apply(maxima, mean, weight * inverse, bias)
    assert isinstance(y, Tensor)
    return y


class _Maxima(torch.autograd.Function):
    """What stands in x where the normalised maxima are; mean and 1 / √(variance + eps) of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        if bool((weight > 0).all()):
            maxima, index = found_maxima(x, WINDOWS)
        else:
            _, index = found_maxima(x * _each(weight.sign()), WINDOWS)
            maxima = gathered(x, index)
        mean, variance = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, index, mean, inverse)
        return maxima, mean, inverse

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, to_maxima: Tensor, to_mean: Tensor, to_inverse: Tensor
    ) -> tuple[Tensor | None, ...]:
        gx = _MaximaGradient.apply(to_maxima, to_mean, to_inverse, *ctx.saved_tensors)
        return gx, None, None  # pyright: ignore[reportReturnType]


class _MaximaGradient(torch.autograd.Function):
    """The gradient of `_Maxima`.

    (to_mean - to_inverse · inverse³ · (x - mean)) / n, with to_maxima added where the maxima are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        to_maxima: Tensor,
        to_mean: Tensor,
        to_inverse: Tensor,
        x: Tensor,
        index: Tensor,
        mean: Tensor,
        inverse: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(to_inverse, x, index, mean, inverse)
        slope = to_inverse * inverse**3 / -_count(x)
        shift = to_mean / _count(x) - slope * mean
        return scatter_(torch.addcmul(_each(shift), x, _each(slope)), to_maxima, index)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor
    ) -> tuple[Tensor | None, ...]:
        to_inverse, x, index, mean, inverse = ctx.saved_tensors
        n = _count(x)
        product, total = _sums(a, x, mean)
        factor = inverse**3 / -n
        slope = to_inverse * factor
        to_gradients = gathered(a, index), total / n, product * factor
        to_statistics = -slope * total, 3 * slope * product / inverse
        return *to_gradients, a * _each(slope), None, *to_statistics


class _Scaled(torch.autograd.Function):
    """(x - mean) · scale + bias for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mean: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, mean, scale)
        return torch.addcmul(_each(bias - mean * scale), x, _each(scale))

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor
    ) -> tuple[Tensor | None, ...]:
        return _ScaledGradient.apply(gy, *ctx.saved_tensors)  # pyright: ignore[reportReturnType]


class _ScaledGradient(torch.autograd.Function):
    """The gradient of `_Scaled`: scale · gy, -scale · Σ gy, Σ gy · (x - mean) and Σ gy."""

    @staticmethod
    def forward(
        ctx: Any, gy: Tensor, x: Tensor, mean: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        to_scale, to_bias = _sums(gy, x, mean)
        ctx.save_for_backward(gy, x, mean, scale, to_bias)
        return gy * _each(scale), -scale * to_bias, to_scale, to_bias

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor, b: Tensor, c: Tensor, d: Tensor
    ) -> tuple[Tensor | None, ...]:
        gy, x, mean, scale, total = ctx.saved_tensors
        to_gy = torch.addcmul(_each(d - scale * b - mean * c), a, _each(scale))
        to_gy = torch.addcmul(to_gy, x, _each(c))
        to_scale = (a * gy).sum([0, 2, 3]) - b * total
        return to_gy, gy * _each(c), -c * total, to_scale


def _sums(a: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Σ a · (x - mean) and Σ a for each channel."""
    if torch.is_grad_enabled():
        return (a * (x - _each(mean))).sum([0, 2, 3]), a.sum([0, 2, 3])
    one = torch.ones_like(mean)
    return gradient_kernel(a, x, one, mean, one, 0.0, to_x=False)[1:]  # both in one pass


def _count(x: Tensor) -> int:
    """Values of each channel."""
    return x.numel() // x.shape[1]


def _each(value: Tensor) -> Tensor:
    """One value for each channel, to be broadcast over images."""
    return value.view(1, -1, 1, 1)
