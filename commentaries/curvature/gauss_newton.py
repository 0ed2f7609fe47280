"""The Gauss–Newton derivative of ∇L: positive semi-definite for a convex loss of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import params as p
from ..errors import BadInput
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params
from .gradient import BatchGradient, output_gradient, pulled_back
from .linearised import linearise


@dataclass(frozen=True)
class GaussNewton:
    """∇L = Jᵀ∇_zℓ is exact; its derivative with respect to θ is Jᵀ(∇²_zℓ)J, J held fixed.

    The student is linearised: what bends in z(θ) is left out, what bends in the loss stays
    (Schraudolph 2002). With cross-entropy or squared error nothing negative is left, so a Neumann
    series with a small enough step converges. Derivatives with respect to φ are exact.

    Where the outputs do not depend on φ, a product is one J v by forward mode and one Jᵀ u through
    the kept forward pass (1⅓ gradients); where they do, J is kept as a graph (2 gradients).

    Raises:
        BadInput: The loss is not `Composed`, so its outputs cannot be told from its loss.
    """

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient function of a batch."""
        if not isinstance(inner, Composed):
            raise BadInput(
                "GaussNewton needs to see the student's outputs. Make the inner loss a "
                "commentaries.Composed(outputs, loss), as commentaries.taught(...) does, or use "
                "curvature.Hessian()."
            )
        return BatchGradient(inner, phi, batch, _gradient)


def _gradient(inner: Loss, theta: Params, phi: Params, batch: Batch) -> tuple[Params, Tensor]:
    assert isinstance(inner, Composed)
    point = linearise(inner, theta, phi, batch)
    weights, loss = output_gradient(inner, point.z, point.lesson)
    if not point.sees(phi):
        return pulled_back(point, weights, retain_graph=True), loss
    # The same outputs at a constant copy of θ: the graph of J, through which θ is not seen.
    fixed = p.live(theta)
    linear, _ = inner.outputs(fixed, phi, batch)
    return p.gradients(linear, fixed, weights, create_graph=True), loss
