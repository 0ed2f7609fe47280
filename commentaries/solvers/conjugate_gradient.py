"""Conjugate gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import params as p
from ..errors import NotConverged, check_not_negative, check_positive
from ..types import Params, Product
from .solver import Solution, damped


@dataclass(frozen=True)
class ConjugateGradient:
    """Preconditioned conjugate gradients for symmetric positive definite A (Hestenes and Stiefel).

    Stops at the first direction d with dᵀA d ≤ 0 and returns what was found before it, flagged
    ``negative_curvature`` (as Steihaug 1983 does).

    Attributes:
        max_iterations: At most this many products, one more with a warm start.
        tolerance: Stop when ‖A x - b‖ ≤ tolerance · ‖b‖.
        damping: δ ≥ 0: solves with A + δI instead.
    """

    max_iterations: int = 20
    tolerance: float = 1e-6
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_positive("max_iterations", self.max_iterations)
        check_positive("tolerance", self.tolerance)
        check_not_negative("damping", self.damping)

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`; ``precondition`` must be symmetric positive definite.

        Raises:
            NotConverged: The very first direction has negative curvature, or a value is not
                finite.
        """
        apply = damped(product, self.damping)
        precondition = precondition or (lambda v: v)
        size = float(p.norm(b))
        if size == 0:
            return Solution(p.zeros_like(b), p.norm(b), 0, True)
        x = p.zeros_like(b) if x0 is None else x0
        r = b if x0 is None else p.subtract(b, apply(x0))
        products = 0 if x0 is None else 1
        length = float(p.norm(r))
        z = precondition(r)
        d = z
        rz = p.dot(r, z)
        negative = False
        for iteration in range(self.max_iterations):
            if length <= self.tolerance * size:
                break
            a_d = apply(d)
            products += 1
            curvature = p.dot(d, a_d)
            if float(curvature) <= 0:
                negative = True
                if iteration == 0:
                    raise NotConverged(
                        f"Conjugate gradients met negative curvature ({float(curvature):.3g}) in "
                        "the first direction, so there is no solution to approach. Add damping, "
                        "or use curvature.GaussNewton()."
                    )
                break
            rate = rz / curvature
            x = p.add(x, d, rate)
            r = p.add(r, a_d, -rate)
            length = float(p.norm(r))
            if not math.isfinite(length):
                raise NotConverged(
                    "Conjugate gradients met a value that is not finite. Lower the student's "
                    "learning rate, or add damping."
                )
            z = precondition(r)
            rz, last = p.dot(r, z), rz
            d = p.add(z, d, rz / last)
        converged = length <= self.tolerance * size
        return Solution(x, p.norm(r) / size, products, converged, negative)
