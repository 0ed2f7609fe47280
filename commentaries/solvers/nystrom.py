"""Nyström's approximation: a matrix from its products with a few directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput, NotConverged, check_positive
from ..types import Params, Product
from .neumann import GROWTH_LIMIT
from .solver import Solution, damped


@dataclass(frozen=True)
class LowRank:
    """U Λ Uᵀ ≈ A, of as many dimensions as products were taken.

    Attributes:
        vectors: U, (n, rank), orthonormal columns.
        values: Λ, (rank,), not negative, descending.
        damping: δ > 0.
        negative_curvature: Whether a direction d with dᵀA d < 0 was met.
    """

    vectors: Tensor
    values: Tensor
    damping: float
    negative_curvature: bool

    def inverse(self) -> Product:
        """v -> (U Λ Uᵀ + δI)⁻¹ v."""
        return self._product(1 / (self.values + self.damping), 1 / self.damping)

    def preconditioner(self) -> Product:
        """v -> P v, with A + δI of about one size everywhere after it (Frangella et al. 2023).

        What the approximation did not see stays as it is, and what it saw is divided down to the
        smallest eigenvalue that it has: P = U (λ_r + δ)(Λ + δ)⁻¹ Uᵀ + (I - U Uᵀ).
        """
        return self._product((self.values[-1] + self.damping) / (self.values + self.damping), 1.0)

    def _product(self, within: Tensor, outside: float) -> Product:
        def apply(v: Params) -> Params:
            vector = p.flatten(v)
            seen = self.vectors.mT @ vector
            # Two terms, not one with the difference of the factors: that would cancel.
            rest = vector - self.vectors @ seen
            return p.unflatten(self.vectors @ (within * seen) + outside * rest, v)

        return apply


@dataclass(frozen=True)
class Nystrom:
    """x = (AΩ (ΩᵀAΩ)⁻¹ (AΩ)ᵀ + δI)⁻¹ b for positive semi-definite A (Hataya and Yamada 2023).

    The inverse is Woodbury's identity, taken in the eigenvectors of the approximation, which a
    shift by the rounding error makes safe in single precision (Tropp et al. 2017; Frangella,
    Tropp and Udell 2023, algorithm 2.1). What no column of Ω saw is divided by δ alone, so that x
    is only right where the eigenvalues left out are small beside δ; as a preconditioner of
    conjugate gradients (`Preconditioned`) it need not be.

    Attributes:
        rank: Columns of Ω, and products.
        damping: δ > 0: solves with A + δI.
        test: Ω: "gaussian" directions, or random "columns" of A.
        seed: Of Ω.
        measure_residual: Whether to take one product more to measure the residual.
    """

    rank: int
    damping: float
    test: Literal["gaussian", "columns"] = "gaussian"
    seed: int = 0
    measure_residual: bool = True

    def __post_init__(self) -> None:
        check_positive("rank", self.rank)
        check_positive("damping", self.damping)
        if self.test not in ("gaussian", "columns"):
            raise BadInput(f"There is no test {self.test!r}. Choose 'gaussian' or 'columns'.")

    def __call__(
        self,
        product: Product,
        b: Params,
        x0: Params | None = None,
        precondition: Product | None = None,
    ) -> Solution:
        """See `LinearSolver`; a warm start is improved once, for one product more.

        A preconditioner has no use here.

        Raises:
            BadInput: More columns than unknowns.
            NotConverged: A has an eigenvalue below -δ, is not finite, or the remainder b - A x
                grew tenfold because the rank is too small for the damping.
        """
        low_rank = self.approximate(product, b)
        apply = damped(product, self.damping)
        products = self.rank
        rest = b
        if x0 is not None:
            rest = p.subtract(b, apply(x0))
            products += 1
        x = low_rank.inverse()(rest)
        x = x if x0 is None else p.add(x0, x)
        negative = low_rank.negative_curvature
        if not self.measure_residual:
            return Solution(x, None, products, False, negative)
        size = p.norm(b)
        length = p.norm(p.subtract(apply(x), b))
        if not bool(length <= GROWTH_LIMIT * torch.maximum(size, p.norm(rest))):
            raise NotConverged(
                f"Nyström's solution of rank {self.rank} leaves a remainder of {float(length):.3g} "
                f"where b has {float(size):.3g}: eigenvalues far above its damping "
                f"{self.damping:g} are left out. Raise rank or damping, or use it in "
                "solvers.Preconditioned."
            )
        residual = length / size.clamp_min(torch.finfo(size.dtype).tiny)
        return Solution(x, residual, products + 1, bool(residual < 1e-6), negative)

    def approximate(self, product: Product, like: Params) -> LowRank:
        """The approximation of A, for ``rank`` products.

        Args:
            product: v -> A v, without the damping.
            like: Names and shapes of v.

        Raises:
            BadInput: More columns than unknowns.
            NotConverged: A has an eigenvalue below -δ, or is not finite.
        """
        test = self._test_matrix(p.flatten(like))
        images = [p.flatten(product(p.unflatten(column, like))) for column in test.unbind(1)]
        sketch = torch.stack(images, dim=1)
        core = test.mT @ sketch
        values, vectors = _eigenvalues((core + core.mT) / 2)
        rounding = torch.finfo(sketch.dtype).eps * len(sketch) ** 0.5 * float(sketch.norm())
        lowest = float(values[0])
        negative = lowest < -rounding
        if negative and lowest <= -self.damping:
            raise NotConverged(
                f"Nyström met negative curvature ({lowest:.3g}) beyond its damping "
                f"{self.damping:g}. Add damping, or use curvature.GaussNewton()."
            )
        # of A + shift · I, whose core is positive; the shift is taken off the eigenvalues again
        shift = self.damping if negative else 2 * rounding
        shifted = sketch + shift * test
        root = shifted @ (vectors / (values + shift).clamp_min(1e-30).sqrt())
        Q, R = torch.linalg.qr(root)
        U, sizes, _ = torch.linalg.svd(R)
        return LowRank(Q @ U, (sizes.square() - shift).clamp_min(0), self.damping, negative)

    def _test_matrix(self, like: Tensor) -> Tensor:
        """Ω of shape (n, rank), orthonormal columns."""
        n = len(like)
        if self.rank > n:
            raise BadInput(
                f"Nystrom's rank is {self.rank}, but there are {n} unknowns. Choose rank <= {n}."
            )
        generator = torch.Generator().manual_seed(self.seed)
        if self.test == "gaussian":
            drawn = torch.randn(n, self.rank, generator=generator, dtype=like.dtype)
            return torch.linalg.qr(drawn.to(like.device))[0]
        chosen = torch.randperm(n, generator=generator)[: self.rank]
        test = like.new_zeros(n, self.rank)
        test[chosen.to(like.device), torch.arange(self.rank, device=like.device)] = 1
        return test


def _eigenvalues(core: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(torch.isfinite(core).all()):
        raise NotConverged(
            "A product is not finite. Lower the student's learning rate, or add damping."
        )
    values, vectors = torch.linalg.eigh(core)
    return values, vectors
