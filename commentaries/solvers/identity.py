"""The inverse taken to be a multiple of the identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import params as p
from ..errors import check_positive
from ..types import Params, Product
from .solver import Solution


@dataclass(frozen=True)
class Identity:
    """x = scale · P b: the one-term series, free of products.

    With ``scale=1`` this is the "T1–T2" hypergradient (Luketina et al. 2016), up to the factor α
    the one-term Neumann series; preconditioned by Adam's step it is SAMA (Choe et al. 2023).
    A warm start is ignored: there is nothing to continue.

    Attributes:
        scale: Positive factor.
        measure_residual: Whether to take one product to measure the residual.
    """

    scale: float = 1.0
    measure_residual: bool = False

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`."""
        x = p.scale(b if precondition is None else precondition(b), self.scale)
        if not self.measure_residual:
            return Solution(x, None, 0, False)
        size = p.norm(b)
        rest = p.norm(p.subtract(product(x), b))
        residual = rest / size.clamp_min(torch.finfo(size.dtype).tiny)
        return Solution(x, residual, 1, bool(residual < 1e-6))
