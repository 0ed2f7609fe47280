"""Batch normalisation of a task's queries by the statistics of its support set."""

from __future__ import annotations

from torch import Tensor

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
