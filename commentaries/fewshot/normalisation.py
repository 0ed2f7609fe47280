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

    def given_statistics(
        self, x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Those of the first examples; a frozen layer keeps its own."""
        given = super().given_statistics(x, running_mean, running_var, training)
        if given is not None:
            return given
        mean, variance = moments(x[: self._count], [0, *range(2, x.dim())])
        return mean.flatten(), variance.flatten()
