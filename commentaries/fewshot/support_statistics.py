"""Batch normalisation of query examples by the statistics of the support set."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from ..primitives import Primitives, moments


class SupportStatistics(Primitives):
    """Normalises every example by the statistics of the first ones of its batch.

    With the support set first, a query example is predicted from the support set and itself
    alone, and the statistics can be differentiated like the rest.

    Args:
        count: How many examples come first.
    """

    def __init__(self, count: int):
        super().__init__()
        self._count = count

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """As `Primitives`, batch normalisation apart."""
        if func is functional.batch_norm:
            return self.batch_norm(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)

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
