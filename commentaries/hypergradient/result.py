"""The contract of a hypergradient and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput, NonFinite
from ..inner.optimizer import InnerOptimizer
from ..problem import Bilevel
from ..types import Batch, Params

Optimizer = InnerOptimizer[Any] | Callable[[Params], InnerOptimizer[Any]]
"""How the student steps; a function of φ where φ holds hyper-parameters of it (a rate, ρ)."""

Diagnostics = dict[str, Tensor | float | int | bool | None]


@dataclass(frozen=True)
class HypergradientResult:
    """What one outer step learns, and the student one stretch of training further.

    Attributes:
        value: dL_V/dφ, detached.
        outer_loss: L_V, a detached scalar.
        theta: The student after all inner steps.
        state: Its optimiser's state.
        adjoint: Implicit: the solution of the linear system, to warm-start the next.
            Unrolled: dL_V/dθ at the first inner step.
        diagnostics: ``inner_loss`` (first pass of the last step); for Implicit also
            ``stationarity`` ‖F‖, ``relative_residual`` (None if not measured), ``products``,
            ``converged``, ``negative_curvature``.
    """

    value: Params
    outer_loss: Tensor
    theta: Params
    state: Any
    adjoint: Params
    diagnostics: Diagnostics


class Hypergradient(Protocol):
    """Trains the student along ``inner`` and says how φ changes L_V at the end."""

    def __call__(
        self,
        problem: Bilevel,
        optimizer: Optimizer,
        theta: Params,
        phi: Params,
        *,
        inner: Sequence[Batch],
        outer: Batch,
        state: Any = None,
        adjoint: Params | None = None,
    ) -> HypergradientResult:
        """θ and φ are detached on entry; no graph survives the call.

        Args:
            problem: The inner and the outer loss.
            optimizer: How the student steps: an inner optimiser, or a function from φ to one.
            theta: Student parameters.
            phi: Commentary parameters.
            inner: One batch a training step.
            outer: The validation batch.
            state: The optimiser's state; fresh by default.
            adjoint: Of the last call, where the method can use it.
        """
        ...


def optimizer_at(optimizer: Optimizer, phi: Params) -> InnerOptimizer[Any]:
    """The optimiser that φ stands for, where it is a function of φ."""
    return optimizer(phi) if callable(optimizer) else optimizer


def check_inputs(inner: Sequence[Batch], phi: Params) -> None:
    """Refuses calls that have nothing to differentiate."""
    if not inner:
        raise BadInput("inner holds no batch, so the student would not train. Pass at least one.")
    if not phi:
        raise BadInput("phi is empty, so there is nothing to learn. Pass the commentary's init().")


def check_finite(value: Params, outer_loss: Tensor) -> None:
    """Refuses a result that is not finite."""
    if bool(torch.isfinite(outer_loss)) and p.is_finite(value):
        return
    raise NonFinite(
        f"The hypergradient is not finite (outer loss {float(outer_loss.detach()):.3g}). Lower the "
        "student's learning rate, or resume from the last checkpoint with a smaller one."
    )
