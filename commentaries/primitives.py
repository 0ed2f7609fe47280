"""Layers that can be differentiated any number of times, in any mode.

PyTorch's own kernels for batch, layer, group and instance normalisation return wrong numbers,
without an error, under some compositions of forward and reverse mode and under `torch.func.vmap`.
While `Primitives` is active, a module's normalisation layers run as means and products instead.
Where reverse mode is all that is asked, batch normalisation, convolution and pooling run by
`commentaries.kernels`, whose second derivatives are fast. The module itself is unchanged, and so
are its running statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .kernels.batch_norm import batch_norm
from .kernels.convolution import conv2d, pair
from .kernels.max_pooling import Windows, max_pool2d
from .kernels.pooled_norm import normalised_maxima, pooled_batch_norm
from .kernels.reverse_mode import reverse_only


def standardise(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """(x - mean) / √(variance + eps)."""
    return (x - mean) * (variance + eps).rsqrt()


def moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over some dimensions, which are kept."""
    mean = x.mean(dims, keepdim=True)
    return mean, (x - mean).square().mean(dims, keepdim=True)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int]) -> Tensor:
    if weight is not None:
        x = x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _channels(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.dim() - 2)


class Primitives(TorchFunctionMode):
    """Replaces layers by such as can be differentiated, attention by the back end that can be.

    Args:
        record: Called with (running_mean, mean, biased variance, values per channel) at each
            batch normalisation that uses batch statistics.
    """

    def __init__(self, record: Callable[[Tensor | None, Tensor, Tensor, int], None] | None = None):
        super().__init__()
        self._record = record

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replaces the functions named in the table below."""
        kwargs = kwargs or {}
        if func in _REPLACEMENTS:
            return getattr(self, _REPLACEMENTS[func])(*args, **kwargs)
        return func(*args, **kwargs)

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
        if self._by_kernel(x, running_mean, running_var, weight, bias, training):
            assert weight is not None
            assert bias is not None
            return batch_norm(x, weight, bias, eps)
        shape = _channels(x)
        given = self.given_statistics(x, running_mean, running_var, training)
        if given is None:
            mean, variance = moments(x, [0, *range(2, x.dim())])
            if self._record is not None:
                self._record(running_mean, mean.flatten(), variance.flatten(), x[:, 0].numel())
        else:
            mean, variance = (value.reshape(shape) for value in given)
        return _affine(standardise(x, mean, variance, eps), weight, bias, shape)

    def given_statistics(
        self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, training: bool
    ) -> tuple[Tensor, Tensor] | None:
        """Mean and variance that batch normalisation is to use; None for those of its batch."""
        if training or running_mean is None or running_var is None:
            return None
        return running_mean, running_var

    def _by_kernel(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        training: bool,
    ) -> bool:
        if weight is None or bias is None or self._record is not None:
            return False
        given = self.given_statistics(x, running_mean, running_var, training)
        return given is None and reverse_only(x, weight, bias)

    def pooled_batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> Tensor:
        """`commentaries.kernels.pooled_norm.pooled_batch_norm`."""
        statistics = (running_mean, running_var)
        if x.device.type == "cpu" and self._by_kernel(x, *statistics, weight, bias, training):
            return normalised_maxima(x, weight, bias, eps)
        y = self.batch_norm(x, *statistics, weight, bias, training, momentum, eps)
        return self.max_pool2d(y, 2)

    def layer_norm(
        self,
        x: Tensor,
        normalized_shape: list[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.layer_norm`."""
        dims = list(range(x.dim() - len(normalized_shape), x.dim()))
        return _affine(standardise(x, *moments(x, dims), eps), weight, bias, list(normalized_shape))

    def group_norm(
        self,
        x: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.group_norm`."""
        grouped = x.reshape(x.shape[0], num_groups, -1)
        grouped = standardise(grouped, *moments(grouped, [2]), eps)
        return _affine(grouped.reshape(x.shape), weight, bias, _channels(x))

    def instance_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.instance_norm` that leaves the running statistics alone."""
        shape = _channels(x)
        if use_input_stats or running_mean is None or running_var is None:
            mean, variance = moments(x, list(range(2, x.dim())))
        else:
            mean, variance = running_mean.reshape(shape), running_var.reshape(shape)
        return _affine(standardise(x, mean, variance, eps), weight, bias, shape)

    def conv2d(self, *args: Any, **kwargs: Any) -> Tensor:
        """`commentaries.convolution.conv2d`."""
        return conv2d(*args, **kwargs)

    def max_pool2d(
        self,
        x: Tensor,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        """`torch.nn.functional.max_pool2d`."""
        stride = kernel_size if stride is None else stride
        served = x.device.type == "cpu" and x.dim() == 4 and reverse_only(x)
        if served and not return_indices:
            sides = pair(kernel_size), pair(stride), pair(padding), pair(dilation)
            return max_pool2d(x, Windows(*sides, ceil_mode))
        given: Any = (kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return functional.max_pool2d(x, *given)

    def attention(self, *args: Any, **kwargs: Any) -> Tensor:
        """`scaled_dot_product_attention` by the back end that has double backward."""
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional.scaled_dot_product_attention(*args, **kwargs)

    def multi_head_attention(self, *args: Any, **kwargs: Any) -> Any:
        """`multi_head_attention_forward`, whose own calls this mode does not see."""
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional.multi_head_attention_forward(*args, **kwargs)


_REPLACEMENTS: dict[Any, str] = {
    functional.batch_norm: "batch_norm",
    pooled_batch_norm: "pooled_batch_norm",
    functional.layer_norm: "layer_norm",
    functional.group_norm: "group_norm",
    functional.instance_norm: "instance_norm",
    functional.conv2d: "conv2d",
    functional.max_pool2d: "max_pool2d",
    functional.scaled_dot_product_attention: "attention",
    functional.multi_head_attention_forward: "multi_head_attention",
}
