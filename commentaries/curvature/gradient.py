"""What every curvature shares: when a gradient is differentiable, and the first-order gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import params as p
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params


class Curvature(Protocol):
    """Builds the gradient function of a batch, and decides how that function is differentiated."""

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient of ``inner`` with respect to θ, at a given φ and batch."""
        ...


Differentiable = Callable[[Loss, Params, Params, Batch], tuple[Params, Tensor]]
"""(inner, θ, φ, batch) -> ∇_θ L with a graph, and L; every θ requires grad."""


@dataclass(frozen=True)
class BatchGradient:
    """A `GradFn` made of a first-order pass and a differentiable one."""

    inner: Loss
    phi: Params
    batch: Batch
    differentiable: Differentiable

    @property
    def size(self) -> int:
        """Number of examples in the batch."""
        return self.batch.size

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        """∇L(θ) and the detached L(θ); with a graph when anything asks for one."""
        batch = self.batch if rows is None else self.batch.rows(rows)
        wanted = p.requires_grad(params) or p.requires_grad(self.phi)
        if not (torch.is_grad_enabled() and wanted):
            return plain_gradient(self.inner, params, p.detach(self.phi), batch)
        theta = {
            name: value if value.requires_grad else value.detach().requires_grad_()
            for name, value in params.items()
        }
        gradient, loss = self.differentiable(self.inner, theta, self.phi, batch)
        return gradient, loss.detach()


def plain_gradient(inner: Loss, params: Params, phi: Params, batch: Batch) -> tuple[Params, Tensor]:
    """∇_θ L and L without a graph: one forward and one backward pass."""
    with torch.enable_grad():
        theta = p.live(params)
        loss = inner(theta, phi, batch)
        return p.gradients(loss, theta), loss.detach()


def output_gradient(inner: Composed, z: Tensor, lesson: object) -> tuple[Tensor, Tensor]:
    """∇_z of a composed loss, live to everything its value depends on, and the loss.

    The gradient is taken with respect to an alias of z, so that ``held`` (z itself) counts as a
    constant to it and yet stays connected to θ.
    """
    alias = z.view_as(z)
    loss = inner.loss(alias, z, lesson)
    (gradient,) = torch.autograd.grad(loss, alias, create_graph=True)
    return gradient, loss
