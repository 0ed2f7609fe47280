"""A solver that is helped by another's approximation of the same matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import BadInput
from ..types import Params, Product
from .nystrom import Nystrom
from .solver import LinearSolver, Solution


@dataclass(frozen=True)
class Preconditioned:
    """A solver, preconditioned by Nyström's approximation (Frangella, Tropp and Udell 2023).

    Worth its products where a few eigenvalues are far above the others.

    Attributes:
        solver: What solves, `ConjugateGradient` most of all; its damping is its own.
        nystrom: What is approximated at every call; its damping should be the smallest
            eigenvalue of what is solved with: the solver's damping and the student's weight decay.
    """

    solver: LinearSolver
    nystrom: Nystrom

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`; the products of the approximation are counted.

        Raises:
            BadInput: Another preconditioner is given.
            NotConverged: The approximation or the solver failed.
        """
        if precondition is not None:
            raise BadInput(
                "Preconditioned has a preconditioner of its own, and another was given. Use its "
                "solver alone, or leave precondition out."
            )
        low_rank = self.nystrom.approximate(product, b)
        solution = self.solver(product, b, x0, low_rank.preconditioner())
        return replace(
            solution,
            products=solution.products + self.nystrom.rank,
            negative_curvature=solution.negative_curvature or low_rank.negative_curvature,
        )
