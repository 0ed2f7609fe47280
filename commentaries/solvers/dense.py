"""The exact solution by a dense factorisation: the reference for small problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import params as p
from ..errors import BadInput, NotConverged, check_not_negative
from ..types import Params, Product
from .solver import Solution, damped


@dataclass(frozen=True)
class Dense:
    """Builds A column by column and factorises it (n products, n² memory, n³ operations).

    Attributes:
        damping: δ ≥ 0: solves with A + δI instead.
        limit: The largest n that is accepted.
    """

    damping: float = 0.0
    limit: int = 20_000

    def __post_init__(self) -> None:
        check_not_negative("damping", self.damping)

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`; a warm start and a preconditioner have no use here.

        Raises:
            BadInput: More than ``limit`` unknowns.
            NotConverged: A is singular.
        """
        right = p.flatten(b)
        n = right.numel()
        if n > self.limit:
            raise BadInput(
                f"Dense would build a matrix of {n} x {n}. Use solvers.ConjugateGradient, or raise "
                f"limit (now {self.limit})."
            )
        apply = damped(product, self.damping)
        identity = torch.eye(n, dtype=right.dtype, device=right.device)
        columns = [p.flatten(apply(p.unflatten(row, b))) for row in identity]
        matrix = torch.stack(columns, dim=1)
        solution, info = torch.linalg.solve_ex(matrix, right)
        tiny = torch.finfo(right.dtype).tiny
        residual = (matrix @ solution - right).norm() / right.norm().clamp_min(tiny)
        if int(info) != 0 or not bool(residual < 1e-3):
            raise NotConverged(
                "The matrix is singular to working precision, so the system has no unique "
                "solution. Add damping, or weight decay to the student."
            )
        negative = bool(torch.linalg.eigvalsh((matrix + matrix.mT) / 2)[0] <= 0)
        return Solution(p.unflatten(solution, b), residual, n, True, negative)
