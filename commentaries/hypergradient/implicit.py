"""The implicit function theorem, on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import params as p
from .. import tree
from ..curvature import Curvature, Hessian
from ..inner.optimizer import InnerOptimizer, step
from ..problem import Bilevel
from ..solvers import LinearSolver, Neumann
from ..types import Batch, Loss, Params, Product
from .residual import Residual
from .result import HypergradientResult, Optimizer, check_finite, check_inputs, optimizer_at

Preconditioner = Callable[[Loss, Params, Params, Batch], Product]
"""(inner loss, θ, φ, batch) -> v -> P v with P ≈ H⁻¹ up to scale; `curvature.Kept` is one."""


@dataclass(frozen=True)
class Implicit:
    """dL_V/dφ = ∂L_V/∂φ - (∂F/∂φ)ᵀ x, where Hᵀ x = ∂L_V/∂θ and H = ∂F/∂θ.

    F(θ, φ) is the stationarity residual of the student's optimiser; the theorem holds where
    F = 0, and ‖F‖ is reported because training stops before that (Lorraine, Vicol, Duvenaud 2020,
    theorem 1; Raghu et al. 2021, algorithm 2).

    The student takes plain steps on ``inner[:-1]``. At the point reached, F and L_V are
    differentiated, F on ``inner[-1]``; then that batch's step is taken with the same gradient.
    A graph of that gradient is built only if the solver takes a product (see `Residual`): with one
    summand and no residual to measure, memory stays that of training.

    Attributes:
        solver: How Hᵀ x = b is solved.
        curvature: How ∇L is differentiated.
        precondition: What the solver gets as P. True: -∂(update)/∂G, the derivative of the
            optimiser's own step: with `solvers.Identity` SAMA; with ``Neumann(K, 1)`` what K
            unrolled steps give. A function builds P from the inner problem:
            ``curvature.Kept(curvature.KFAC(damping), every=10)``; with `solvers.Identity` the
            K-FAC hypergradient, with `solvers.ConjugateGradient` its bias goes and few products
            are needed. What the optimiser adds to the gradient P knows by its damping alone.
    """

    solver: LinearSolver = field(default_factory=lambda: Neumann(terms=1, step_size=1.0))
    curvature: Curvature = field(default_factory=Hessian)
    precondition: bool | Preconditioner = False

    def __call__(
        self,
        problem: Bilevel,
        optimizer: Optimizer,
        theta: Params,
        phi: Params,
        *,
        inner: Sequence[Batch],
        outer: Batch,
        state: Any = None,
        adjoint: Params | None = None,
    ) -> HypergradientResult:
        """See `Hypergradient`; ``adjoint`` warm-starts the solver.

        Raises:
            BadInput: No inner batch, or no φ.
            NotConverged: The solver's result would mean nothing.
            NonFinite: The hypergradient is not finite.
        """
        check_inputs(inner, phi)
        theta, phi = p.detach(theta), p.detach(phi)
        moving = optimizer_at(optimizer, phi)
        state = moving.init(theta) if state is None else tree.detach(state)
        for batch in inner[:-1]:
            grad_fn = self.curvature(problem.inner, phi, batch)
            theta, state, _ = step(moving, grad_fn, theta, state)

        theta, phi = p.live(theta), p.live(phi)
        with torch.enable_grad():
            outer_loss = problem.outer(theta, phi, outer)
        b, direct = p.joint_gradients(outer_loss, theta, phi)  # ∂L_V/∂θ, ∂L_V/∂φ

        theta = p.detach(theta)
        F = Residual(self.curvature, problem.inner, optimizer, theta, phi, inner[-1], state)
        precondition: Product | None = None
        if callable(self.precondition):
            precondition = self.precondition(problem.inner, theta, p.detach(phi), inner[-1])
        elif self.precondition:
            precondition = self._step_derivative(moving, theta, F)
        solution = self.solver(
            F.product,  # v -> Hᵀ v
            b,
            adjoint,
            precondition,
        )
        mixed = F.mixed_product(solution.value)  # (∂F/∂φ)ᵀ x
        value = p.subtract(direct, mixed)
        check_finite(value, outer_loss)

        gradient, state, inner_loss = F.step
        moved, state = moving.update(gradient, theta, state)
        return HypergradientResult(
            value=value,
            outer_loss=outer_loss.detach(),
            theta=p.detach(moved),
            state=tree.detach(state),
            adjoint=solution.value,
            diagnostics={
                "inner_loss": inner_loss,
                "stationarity": p.norm(F.value),
                "relative_residual": solution.relative_residual,
                "products": solution.products,
                "converged": solution.converged,
                "negative_curvature": solution.negative_curvature,
            },
        )

    def _step_derivative(
        self, optimizer: InnerOptimizer[Any], theta: Params, F: Residual
    ) -> Product:
        """v -> Pᵀ v with P = -∂(update)/∂G at the present gradient."""
        gradient, state, _ = F.step
        G = p.live(gradient)
        with torch.enable_grad():
            moved, _ = optimizer.update(G, theta, state)
        return lambda v: p.scale(p.pull_back(moved, v, G), -1.0)
