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
    maxima, mean, variance = _Maxima.apply(x, weight.detach())  # pyright: ignore[reportGeneralTypeIssues]
    scale = weight * (variance + eps).rsqrt()
    return torch.addcmul(_each(bias), maxima - _each(mean), _each(scale))


class _Maxima(torch.autograd.Function):
    """What stands in x where the normalised maxima are; mean and biased variance of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if bool((weight > 0).all()):
            maxima, index = found_maxima(x, WINDOWS)
        else:
            _, index = found_maxima(x * _each(weight.sign()), WINDOWS)
            maxima = gathered(x, index)
        mean, variance = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
        ctx.save_for_backward(x, index, mean)
        return maxima, mean, variance

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, to_maxima: Tensor, to_mean: Tensor, to_variance: Tensor
    ) -> tuple[Tensor | None, None]:
        gx = _MaximaGradient.apply(to_maxima, to_mean, to_variance, *ctx.saved_tensors)
        return gx, None  # pyright: ignore[reportReturnType]


class _MaximaGradient(torch.autograd.Function):
    """The gradient of `_Maxima`.

    (to_mean + 2 to_variance (x - mean)) / n, with to_maxima added where the maxima are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        to_maxima: Tensor,
        to_mean: Tensor,
        to_variance: Tensor,
        x: Tensor,
        index: Tensor,
        mean: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(to_variance, x, index, mean)
        slope = 2 * to_variance / _count(x)
        shift = to_mean / _count(x) - slope * mean
        return scatter_(torch.addcmul(_each(shift), x, _each(slope)), to_maxima, index)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor
    ) -> tuple[Tensor | None, ...]:
        to_variance, x, index, mean = ctx.saved_tensors
        n = _count(x)
        slope = _each(2 * to_variance / n)
        if torch.is_grad_enabled():  # a third derivative
            a_sum = a.sum([0, 2, 3])
            centred = a - _each(a_sum / n)
            # the mean moves with x, but it is multiplied by what sums to zero
            a_x, to_x = (centred * (x - _each(mean))).sum([0, 2, 3]), slope * centred
        else:
            # Σ a (x - mean) and Σ a, in one pass
            kernel = torch.ops.aten.native_batch_norm_backward
            one, wanted = torch.ones_like(mean), [False, True, True]
            a = laid_out_as(x, a)
            _, a_x, a_sum = kernel(a, x, one, None, None, mean, one, True, 0.0, wanted)
            to_x = torch.addcmul(-slope * _each(a_sum / n), a, slope)
        return gathered(a, index), a_sum / n, 2 * a_x / n, to_x, None, None


def _count(x: Tensor) -> int:
    """Values of each channel."""
    return x.numel() // x.shape[1]


def _each(value: Tensor) -> Tensor:
    """One value for each channel, to be broadcast over images."""
    return value.view(1, -1, 1, 1)
