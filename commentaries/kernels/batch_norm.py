"""Batch normalisation by PyTorch's kernel, whose gradient is differentiable arithmetic.

Of each layer's large arrays only x and the gradient are kept; primitives keep several more. The
second derivative is a few passes over those two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import params as p
from .layout import laid_out_as


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """weight · (x - mean) / √(variance + eps) + bias over all but x's second dimension.

    Any order of reverse mode is exact.
    """
    y = _BatchNorm.apply(x, weight, bias, eps)
    assert isinstance(y, Tensor)
    return y


class _BatchNorm(torch.autograd.Function):
    """Normalisation by batch statistics, with a scale and a shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gy: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        return *_BatchNormGradient.apply(gy, x, weight, mean, inverse, ctx.eps), None  # pyright: ignore[reportGeneralTypeIssues]


class _BatchNormGradient(torch.autograd.Function):
    """The gradients of `_BatchNorm` with respect to x, weight and bias.

    With h = (x - mean) · inverse, and means taken over all but the channels, the first is
    weight · inverse · (gy - mean(gy) - h · mean(gy · h)), the others are Σ gy · h and Σ gy.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gy: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        inverse: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = gradient_kernel(gy, x, weight, mean, inverse, eps)
        ctx.save_for_backward(gy, x, weight, mean, inverse, *found[1:])
        ctx.eps = eps
        return found

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, a: Tensor, b: Tensor, c: Tensor
    ) -> tuple[Tensor | None, ...]:
        gy, x, weight, mean, inverse, to_weight, to_bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative: all of it as arithmetic on gy, x, weight
            # gy may itself depend on x and weight: aliases, so that each is taken for itself
            gy, x, weight = (value.view_as(value) for value in (gy, x, weight))
            inputs = {"gy": gy, "x": x, "weight": weight}
            live = {name: value for name, value in inputs.items() if value.requires_grad}
            found = _arithmetic(gy, x, weight, ctx.eps)
            pulled = p.gradients(found, live, [a, b, c], create_graph=True)
            return *(pulled.get(name) for name in inputs), None, None, None
        shape = [1, -1] + [1] * (x.dim() - 2)
        n = x.numel() // x.shape[1]
        r = inverse
        a, gy = laid_out_as(x, a), laid_out_as(x, gy)
        _, ah, a_sum = gradient_kernel(a, x, weight, mean, r, ctx.eps, to_x=False)
        a_mean, pa, g_mean, pg = a_sum / n, ah / n, to_bias / n, to_weight / n
        both = (a * gy).sum([0, *range(2, x.dim())]) / n
        s = both - a_mean * g_mean - pa * pg
        # to gy: weight r (a - a_mean - h pa) + b h + c, and h is affine in x
        of_a, of_h = weight * r, b - weight * r * pa
        constant = c - of_a * a_mean - of_h * r * mean
        to_gy = _combined(constant, [(a, of_a), (x, of_h * r)], shape)
        # to x: the share of h, v = (b - weight r pa) gy - weight r pg a, as in the first gradient;
        # and that of r, -weight r² s h
        of_a, of_g = -weight * r * pg, of_h
        v_mean, vh = of_a * a_mean + of_g * g_mean, of_a * pa + of_g * pg
        of_h = -r * (vh + weight * r * s)
        constant = -of_h * r * mean - r * v_mean
        to_x = _combined(constant, [(a, r * of_a), (gy, r * of_g), (x, of_h * r)], shape)
        return to_gy, to_x, n * r * s, None, None, None


def gradient_kernel(
    gy: Tensor,
    x: Tensor,
    weight: Tensor,
    mean: Tensor,
    inverse: Tensor,
    eps: float,
    *,
    to_x: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a normalisation by PyTorch's kernel, without a graph.

    With respect to x (not computed unless ``to_x``), to the scale and to the shift.
    """
    kernel = torch.ops.aten.native_batch_norm_backward
    gy = laid_out_as(x, gy)  # three times faster than to have the kernel read two layouts
    return kernel(gy, x, weight, None, None, mean, inverse, True, eps, [to_x, True, True])


def _combined(constant: Tensor, terms: list[tuple[Tensor, Tensor]], shape: list[int]) -> Tensor:
    """constant + Σ factor · value for each channel, in one pass for each value."""
    (first, factor), *rest = terms
    total = torch.addcmul(constant.view(shape), first, factor.view(shape))
    for value, factor in rest:
        total.addcmul_(value, factor.view(shape))
    return total


def _arithmetic(gy: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """`_BatchNormGradient` with statistics that are functions of x."""
    dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
    n = x.numel() // x.shape[1]
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    inverse, centred = (variance + eps).rsqrt(), x - mean
    to_bias = gy.sum(dims)
    to_weight = (gy * centred).sum(dims) * inverse.flatten()
    scale = weight.view(shape) * inverse
    slope = scale * inverse * to_weight.view(shape) / n
    shift = scale * to_bias.view(shape) / n
    return gy * scale - centred * slope - shift, to_weight, to_bias
