"""The contract of a linear solver and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .. import params as p
from ..types import Params, Product


@dataclass(frozen=True)
class Solution:
    """An approximate x with A x ≈ b, and how far to trust it.

    Attributes:
        value: x.
        relative_residual: ‖A x - b‖ / ‖b‖, a scalar; None where measuring it would have cost a
            product that was not asked for.
        products: Products with A that were taken.
        converged: Whether the solver's own tolerance was met (a truncated series by design never
            claims so beyond what its residual shows).
        negative_curvature: Whether a direction d with dᵀA d ≤ 0 was met.
    """

    value: Params
    relative_residual: Tensor | None
    products: int
    converged: bool
    negative_curvature: bool = False


class LinearSolver(Protocol):
    """Solves A x = b."""

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """Returns x.

        Args:
            product: v -> A v.
            b: The right-hand side.
            x0: Where to start (a warm start); zero by default.
            precondition: v -> P v with P ≈ A⁻¹ up to scale.

        Raises:
            NotConverged: The result would mean nothing; the message names the remedy.
        """
        ...


def damped(product: Product, damping: float) -> Product:
    """v -> (A + damping · I) v."""
    if not damping:
        return product
    return lambda v: p.add(product(v), v, damping)
