"""The exact derivative of ∇L, by reverse mode over reverse mode."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import params as p
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params
from .gradient import BatchGradient, output_gradient


@dataclass(frozen=True)
class Hessian:
    """∇L keeps its graph; a product with H is one backward pass through it.

    The graph is built once for every product taken through the same gradient (1 gradient, then
    2 gradients a product). H may be indefinite: see `GaussNewton`.
    """

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient function of a batch."""
        return BatchGradient(inner, phi, batch, _gradient)


def _gradient(inner: Loss, theta: Params, phi: Params, batch: Batch) -> tuple[Params, Tensor]:
    if not isinstance(inner, Composed):
        loss = inner(theta, phi, batch)
        return p.gradients(loss, theta, create_graph=True), loss
    z, lesson = inner.outputs(theta, phi, batch)
    weights, loss = output_gradient(inner, z, lesson)
    return p.gradients(z, theta, weights, create_graph=True), loss
