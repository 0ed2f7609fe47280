"""The truncated Neumann series."""

from __future__ import annotations

from dataclasses import dataclass

from .. import params as p
from ..errors import NotConverged, check_not_negative, check_positive
from ..types import Params, Product
from .solver import Solution, damped

GROWTH_LIMIT = 10.0
"""How far the remainder b - A x may grow before the series counts as divergent."""


@dataclass(frozen=True)
class Neumann:
    """x = α Σ_{i<K} (I - αA)^i b, K = ``terms`` summands exactly (Lorraine et al. 2020, eq. 5).

    Converges as K grows iff 0 < α λ < 2 for every eigenvalue λ of A. With a preconditioner P the
    series is Σ_i P(I - αAP)^i αb, which for the P of an optimiser's step is what K unrolled steps
    compute. α is a property of A, not the student's learning rate.

    Attributes:
        terms: K ≥ 1. Costs K - 1 products, one more with a warm start, one more for the residual.
        step_size: α > 0.
        damping: δ ≥ 0: solves with A + δI instead, which bounds the effect of small or slightly
            negative eigenvalues.
        measure_residual: Whether to take the last product that the residual needs.
    """

    terms: int
    step_size: float
    damping: float = 0.0
    measure_residual: bool = True

    def __post_init__(self) -> None:
        check_positive("terms", self.terms)
        check_positive("step_size", self.step_size)
        check_not_negative("damping", self.damping)

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`.

        Raises:
            NotConverged: The remainder b - A x is not finite or grew tenfold.
        """
        apply = damped(product, self.damping)
        precondition = precondition or (lambda v: v)
        x = p.zeros_like(b) if x0 is None else x0
        # Invariant: rest = b - A x, and the next summand is α P rest.
        rest = b if x0 is None else p.subtract(b, apply(x0))
        products = 0 if x0 is None else 1
        size = float(p.norm(b))
        # a warm start may be far off: what must not grow is the remainder it leaves
        scale = size if x0 is None else max(size, float(p.norm(rest)))
        negative = False
        for term in range(self.terms):
            summand = p.scale(precondition(rest), self.step_size)
            x = p.add(x, summand)
            if term == self.terms - 1 and not self.measure_residual:
                return Solution(x, None, products, False, negative)
            a_summand = apply(summand)
            products += 1
            negative |= float(p.dot(summand, a_summand)) < 0
            rest = p.subtract(rest, a_summand)
            self._check(float(p.norm(rest)), scale, term)
        residual = p.norm(rest) / size if size else p.norm(rest)
        return Solution(x, residual, products, bool(residual < 1e-6), negative)

    def _check(self, length: float, scale: float, term: int) -> None:
        if length <= GROWTH_LIMIT * scale:
            return
        raise NotConverged(
            f"The Neumann series diverges: after {term + 1} of {self.terms} summands the remainder "
            f"is {length / max(scale, 1e-300):.3g} times what it was at first. Its step size "
            f"{self.step_size:g} is above 2 over the largest eigenvalue, or the curvature is "
            "negative. Lower step_size, add damping, use curvature.GaussNewton(), or use "
            "solvers.ConjugateGradient."
        )
