"""Conjugate gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .. import params as p
from ..errors import NotConverged, check_not_negative, check_positive
from ..types import Params, Product
from .solver import Solution, damped

BLOW_UP = 100.0
"""How far the remainder may end above b: regular systems stay well below (17 at condition 1e7)."""


@dataclass(frozen=True)
class ConjugateGradient:
    """Preconditioned conjugate gradients for symmetric positive definite A (Hestenes and Stiefel).

    Stops at the first direction d with dᵀA d ≤ 0, or zero to working precision where A is
    singular, and returns what was found before it, flagged ``negative_curvature`` (as Steihaug
    1983 does).

    Attributes:
        max_iterations: At most this many products, one more with a warm start.
        tolerance: Stop when ‖A x - b‖ ≤ tolerance · ‖b‖.
        damping: δ ≥ 0: solves with A + δI instead.
        measure_residual: Whether to take one product more to measure the residual that is
            returned. Otherwise it is the one that the iterations carry along, which in single
            precision goes on falling where the true one cannot.
    """

    max_iterations: int = 20
    tolerance: float = 1e-6
    damping: float = 0.0
    measure_residual: bool = False

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
            NotConverged: The first direction has no positive curvature and there is no warm start
                that is better than zero to return; the remainder b - A x ends a hundredfold, as
                where A is singular and b outside its range; the preconditioner is not positive
                definite; or a value is not finite.
        """
        apply = damped(product, self.damping)
        precondition = precondition or (lambda v: v)
        size = float(p.norm(b))
        if size == 0:
            return Solution(p.zeros_like(b), p.norm(b), 0, True)
        x = p.zeros_like(b) if x0 is None else x0
        r = b if x0 is None else p.subtract(b, apply(x0))
        products = 0 if x0 is None else 1
        start = length = float(p.norm(r))
        d, rz, largest = r, p.dot(r, r), 0.0
        negative = False
        for iteration in range(self.max_iterations):
            if length <= self.tolerance * size:
                break
            z = precondition(r)
            rz, last = p.dot(r, z), rz
            if float(rz) <= 0:
                raise NotConverged(
                    f"The preconditioner is not positive definite: rᵀP r is {float(rz):.3g}. Use a "
                    "symmetric positive definite one, or solvers.Neumann."
                )
            d = z if iteration == 0 else p.add(z, d, rz / last)
            a_d = apply(d)
            products += 1
            curvature = p.dot(d, a_d)
            # dᵀA d / dᵀd, against the largest that was met: below rounding it counts as zero
            quotient = float(curvature / p.dot(d, d))
            largest = max(largest, quotient)
            if quotient <= torch.finfo(curvature.dtype).eps * largest:
                negative = True
                if iteration == 0 and start >= size:
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
        if length > BLOW_UP * max(size, start):
            raise NotConverged(
                f"Conjugate gradients blew up: after {products} products the remainder is "
                f"{length / size:.3g} times b, so the matrix is singular or not symmetric. Add "
                "damping, or weight decay to the student."
            )
        if self.measure_residual:
            r = p.subtract(b, apply(x))
            products += 1
            length = float(p.norm(r))
        converged = length <= self.tolerance * size
        return Solution(x, p.norm(r) / size, products, converged, negative)
