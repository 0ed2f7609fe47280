"""The truncated Neumann series."""

from __future__ import annotations

from dataclasses import dataclass

from .. import params as p
from ..errors import NotConverged, check_not_negative, check_positive
from ..types import Params, Product
from .power import largest_eigenvalue
from .solver import Solution, damped

GROWTH_LIMIT = 10.0
"""How far the remainder b - A x may grow before a solver counts as divergent."""

SAFETY = 1.25
"""An automatic step size is 1 / (SAFETY · λ): the series converges if λ ≥ 0.4 max λ."""


@dataclass(frozen=True)
class Neumann:
    """x = α Σ_{i<K} (I - αA)^i b, K = ``terms`` summands exactly (Lorraine et al. 2020, eq. 5).

    Converges as K grows iff 0 < α λ < 2 for every eigenvalue λ of A. With a preconditioner P the
    series is Σ_i P(I - αAP)^i αb, which for the P of an optimiser's step is what K unrolled steps
    compute. α is a property of A, not the student's learning rate.

    Attributes:
        terms: K ≥ 1. Costs K - 1 products, one more with a warm start, one more for the residual.
        step_size: α > 0. None: 1 / (1.25 λ) with λ the largest eigenvalue of AP (in size) that
            ``power_iterations`` products from the first remainder find. What they do not find the
            remainder has little of.
        damping: δ ≥ 0: solves with A + δI instead, which bounds the effect of small or slightly
            negative eigenvalues.
        measure_residual: Whether to take the last product, which only the residual needs. None:
            where there are more terms than one; a single term then costs no product at all.
        power_iterations: Products that an automatic step size costs, at every call.
    """

    terms: int
    step_size: float | None = None
    damping: float = 0.0
    measure_residual: bool | None = None
    power_iterations: int = 5

    def __post_init__(self) -> None:
        check_positive("terms", self.terms)
        if self.step_size is not None:
            check_positive("step_size", self.step_size)
        check_not_negative("damping", self.damping)
        check_positive("power_iterations", self.power_iterations)

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`.

        Raises:
            NotConverged: The remainder b - A x is not finite or grew tenfold; or the step size is
                automatic and the eigenvalue that dominates is zero or negative.
        """
        apply = damped(product, self.damping)
        precondition = precondition or (lambda v: v)
        # Invariant: rest = b - A x, and the next summand is α P rest.
        rest = dict(b) if x0 is None else p.subtract(b, apply(x0))
        products = 0 if x0 is None else 1
        size, length = float(p.norm(b)), float(p.norm(rest))
        # a warm start may be far off: what must not grow is the remainder it leaves
        scale = max(size, length)
        step_size = self.step_size
        if step_size is None:
            if length == 0:
                return Solution(p.zeros_like(b) if x0 is None else x0, p.norm(rest), products, True)
            step_size = self._step_size(lambda v: apply(precondition(v)), rest)
            products += self.power_iterations
        measured = self.terms > 1 if self.measure_residual is None else self.measure_residual
        negative = False
        x = None if x0 is None else dict(x0)
        for term in range(self.terms):
            direction = dict(precondition(rest))
            change: Params | None = None
            if term < self.terms - 1 or measured:
                change = dict(apply(direction))
                products += 1
                negative |= float(p.dot(direction, change)) < 0
            # only after the product, which needs the most memory, and holding nothing twice
            x = (
                p.scale(direction, step_size)
                if x is None
                else p.add_emptying(x, direction, step_size)
            )
            if change is None:
                return Solution(x, None, products, False, negative)
            rest = p.add_emptying(rest, change, -step_size)
            self._check(float(p.norm(rest)), scale, term, step_size)
        assert x is not None
        residual = p.norm(rest) / size if size else p.norm(rest)
        return Solution(x, residual, products, bool(residual < 1e-6), negative)

    def _step_size(self, product: Product, rest: Params) -> float:
        largest = largest_eigenvalue(product, rest, self.power_iterations)
        if largest.curvature < 0:
            raise NotConverged(
                f"The eigenvalue that dominates the series is negative (about "
                f"{largest.curvature:.3g}), so it diverges with any step size. Add damping, use "
                "curvature.GaussNewton(), or give a step_size to few terms."
            )
        return 1 / (SAFETY * largest.value)

    def _check(self, length: float, scale: float, term: int, step_size: float) -> None:
        if length <= GROWTH_LIMIT * scale:
            return
        raise NotConverged(
            f"The Neumann series diverges: after {term + 1} of {self.terms} summands the remainder "
            f"is {length / max(scale, 1e-300):.3g} times what it was at first. Its step size "
            f"{step_size:g} is above 2 over the largest eigenvalue, or the curvature is "
            "negative. Lower step_size, add damping, use curvature.GaussNewton(), or use "
            "solvers.ConjugateGradient."
        )
