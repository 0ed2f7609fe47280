"""What every curvature shares: when a gradient is differentiable, and the first-order gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params
from .linearised import Linearised, linearise


class Curvature(Protocol):
    """Builds the gradient function of a batch, and decides how that function is differentiated."""

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient of ``inner`` with respect to θ, at a given φ and batch."""
        ...


Differentiable = Callable[[Loss, Params, Params, Batch], tuple[Params, Tensor]]
"""(inner, θ, φ, batch) -> ∇_θ L with a graph, and L; every θ requires grad."""


@dataclass(frozen=True)
class BatchGradient:
    """A `GradFn` made of a first-order pass and a differentiable one.

    Where φ alone asks for a derivative and the student's outputs do not depend on it (example
    weights), the gradient is first-order, and its derivative is one forward-mode product.
    """

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
        of_theta = p.requires_grad(params)
        if not (torch.is_grad_enabled() and (of_theta or p.requires_grad(self.phi))):
            return plain_gradient(self.inner, params, p.detach(self.phi), batch)
        if not of_theta and isinstance(self.inner, Composed):
            return _gradient_of_phi(self.inner, params, self.phi, batch)
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


def pulled_back(point: Linearised, weights: Tensor, *, retain_graph: bool) -> Params:
    """Jᵀw as a function of w alone; its derivative is one push-forward, v -> J v."""
    values = _PulledBack.apply(weights, point, retain_graph)
    return dict(zip(point.theta, values, strict=True))


class _PulledBack(torch.autograd.Function):
    """Linear in w: what J depends on is not seen."""

    @staticmethod
    def forward(
        ctx: Any, weights: Tensor, point: Linearised, retain_graph: bool
    ) -> tuple[Tensor, ...]:
        ctx.point = point.without_graph()
        found = p.gradients(point.z, point.theta, weights, retain_graph=retain_graph)
        return tuple(found.values())

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *cotangents: Tensor
    ) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise BadInput(
                "A product taken by forward mode cannot be differentiated again, as "
                "SAM(second_order=True) asks. Use curvature.Hessian()."
            )
        v = dict(zip(ctx.point.theta, cotangents, strict=True))
        return ctx.point.push_forward(v), None, None


def _gradient_of_phi(
    inner: Composed, theta: Params, phi: Params, batch: Batch
) -> tuple[Params, Tensor]:
    """∇_θ L at a constant θ, differentiable in φ."""
    point = linearise(inner, p.live(theta), phi, batch)
    if point.sees(phi):
        weights, loss = output_gradient(inner, point.z, point.lesson)
        return p.gradients(point.z, point.theta, weights, create_graph=True), loss.detach()
    z = point.z.detach().requires_grad_()
    weights, loss = output_gradient(inner, z, point.lesson)
    return pulled_back(point, weights, retain_graph=False), loss.detach()
