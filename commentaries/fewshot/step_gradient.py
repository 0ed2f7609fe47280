"""The gradient of an adaptation step, as a curvature that the hypergradients differentiate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .. import params as p
from ..curvature import Curvature
from ..types import Batch, GradFn, Loss, Params
from .meta_parameters import RATE, START, TEACHER, part


@dataclass(frozen=True)
class StepGradient:
    """G = α_k ⊙ [∇L(θ) + λ (θ - θ_0)], with rates α and initialisation θ_0 from φ.

    Attributes:
        base: How ∇L is taken and differentiated; of φ it sees the commentary only.
        proximal: λ, the pull towards the initialisation (Rajeswaran et al. 2019, eq. 3).
        first_order: Take ∂G/∂θ as zero (Finn et al. 2017, section 5.2). What rates, commentary
            and θ_0 in the pull do to G still counts.
    """

    base: Curvature
    proximal: float = 0.0
    first_order: bool = False

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient function of a batch; ``batch.progress`` says which step's rates apply."""
        return _Gradient(
            self.base(inner, part(phi, TEACHER), batch),
            part(phi, START) if self.proximal else {},
            _at(part(phi, RATE), batch.progress),
            self.proximal,
            self.first_order,
        )


@dataclass(frozen=True)
class _Gradient:
    """A `GradFn` around another."""

    base: GradFn
    start: Params
    rates: Params
    proximal: float
    first_order: bool

    @property
    def size(self) -> int:
        return self.base.size

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        if self.first_order:
            params = p.detach(params)
        gradient, loss = self.base(params, rows)
        if self.start:
            gradient = p.add(gradient, p.subtract(params, self.start), self.proximal)
        if self.rates:
            gradient = {name: self.rates[name] * value for name, value in gradient.items()}
        return gradient, loss


def _at(rates: Params, progress: float) -> Params:
    """The rates of one step; those of the last also for later ones."""
    return {name: value[round(progress * (len(value) - 1))] for name, value in rates.items()}
