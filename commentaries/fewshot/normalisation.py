"""Batch normalisation for tasks: fast in reverse mode, or by the support set's statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..primitives import Primitives, moments
from ..student import Student
from ..types import Inputs, Params


class NormalisedBy(Student):
    """Another student, module and all, whose training passes run in a given mode.

    Args:
        student: The student.
        primitives: How it normalises.
    """

    def __init__(self, student: Student, primitives: Primitives):
        self.__dict__.update(student.__dict__)
        self._primitives = primitives

    def __call__(
        self, theta: Params, x: Inputs, *, seed: int | None = None, buffers: Params | None = None
    ) -> Tensor:
        """As `Student`."""
        return self._forward(theta, x, seed, buffers, self._primitives)


class _Replaced(Primitives):
    """Primitives whose batch normalisation is the subclass's."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is functional.batch_norm:
            return self.batch_norm(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


class SupportStatistics(_Replaced):
    """Normalises every example by the statistics of the first ones of its batch.

    With the support set first, a query example is predicted from the support set and itself
    alone, and the statistics can be differentiated like the rest.

    Args:
        count: How many examples come first.
    """

    def __init__(self, count: int):
        super().__init__()
        self._count = count

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.batch_norm`; a frozen layer keeps its own statistics."""
        if training or running_mean is None or running_var is None:
            mean, variance = moments(x[: self._count], [0, *range(2, x.dim())])
            running_mean, running_var = mean.flatten(), variance.flatten()
        return super().batch_norm(x, running_mean, running_var, weight, bias, eps=eps)


class ReverseMode(_Replaced):
    """Batch normalisation by PyTorch's kernel, whose gradient is differentiable arithmetic.

    For any order of reverse mode; not for `torch.func`, nor for forward mode. A first gradient
    costs a quarter of that through primitives, a second three fifths.
    """

    def batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.batch_norm` that leaves the running statistics alone."""
        by_batch = training or running_mean is None or running_var is None
        if not by_batch or weight is None or bias is None:
            return super().batch_norm(
                x, running_mean, running_var, weight, bias, training, momentum, eps
            )
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
        if not torch.is_grad_enabled():  # nobody differentiates this gradient
            kernel = torch.ops.aten.native_batch_norm_backward
            found = kernel(
                gy, x, weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
            )
            return *found, None
        dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        n = x.numel() // x.shape[1]
        # The statistics anew, as functions of x.
        variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
        inverse, centred = (variance + ctx.eps).rsqrt(), x - mean
        to_bias = gy.sum(dims)
        to_weight = (gy * centred).sum(dims) * inverse.flatten()
        # With x̂ = centred · inverse: w · inverse · (gy - mean(gy) - x̂ · mean(gy · x̂))
        scale = weight.view(shape) * inverse
        slope = scale * inverse * to_weight.view(shape) / n
        shift = scale * to_bias.view(shape) / n
        return gy * scale - centred * slope - shift, to_weight, to_bias, None
