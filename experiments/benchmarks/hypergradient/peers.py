"""The public ways of taking an implicit hypergradient, on one plain problem.

Each is a function of the problem, the products with the system's matrix that it may take, and a
step size for the series; it returns dL_V/dφ, (n,). Loops are written from the published algorithms;
packages are called as they are. What a package lacks for these problems is said beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .plain import Plain

Peer = Callable[[Plain, int, float], Tensor]


def implicit_hyper_opt(plain: Plain, products: int, step_size: float) -> Tensor:
    """Lorraine, Vicol and Duvenaud 2020, algorithm 3: α Σ (I - αH)^i b."""
    v = plain.outer_gradient()
    F = plain.residual()
    total = v
    for _ in range(products):
        product = torch.autograd.grad(F, plain.theta, v, retain_graph=True)
        v = _axpy(v, product, -step_size)
        total = _axpy(total, v, 1.0)
    (mixed,) = torch.autograd.grad(F, plain.logits, total)
    return -step_size * mixed


def hypertorch_fixed_point(plain: Plain, products: int, step_size: float) -> Tensor:
    """Grazzi et al. 2020, algorithm 2: v ← (∂Φ/∂θ)ᵀ v + b, from zero, with Φ = θ - αF."""
    b = plain.outer_gradient()
    moved = _axpy(plain.theta, plain.residual(), -step_size)
    v = [torch.zeros_like(value) for value in b]
    for _ in range(products):
        product = torch.autograd.grad(moved, plain.theta, v, retain_graph=True)
        v = _axpy(product, b, 1.0)
    return torch.autograd.grad(moved, plain.logits, v)[0]


def hypertorch_conjugate_gradients(plain: Plain, products: int, step_size: float) -> Tensor:
    """Grazzi et al. 2020, algorithm 2 with conjugate gradients on (I - ∂Φ/∂θ) v = b."""
    b = plain.outer_gradient()
    moved = _axpy(plain.theta, plain.residual(), -step_size)
    v = [torch.zeros_like(value) for value in b]
    r = d = b
    rr = _dot(r, r)
    for _ in range(products):
        product = _axpy(d, torch.autograd.grad(moved, plain.theta, d, retain_graph=True), -1.0)
        alpha = rr / _dot(d, product)
        v, r = _axpy(v, d, alpha), _axpy(r, product, -alpha)
        rr, last = _dot(r, r), rr
        d = _axpy(r, d, rr / last)
    return torch.autograd.grad(moved, plain.logits, v)[0]


def betty_neumann(plain: Plain, products: int, step_size: float) -> Tensor:
    """betty-ml's ``neumann``, without its engine around it."""
    from betty.hypergradient.neumann import neumann

    config = SimpleNamespace(neumann_iterations=products, neumann_alpha=step_size)
    found: Any = neumann(plain.outer_gradient(), *_levels(plain, config))
    return found[0]


def betty_conjugate_gradients(plain: Plain, products: int, step_size: float) -> Tensor:
    """betty-ml's ``cg``, without its engine around it.

    Its next direction is made from the remainder before the step, not after it, so the iterations
    are not those of conjugate gradients.
    """
    from betty.hypergradient.cg import cg

    config = SimpleNamespace(cg_iterations=products, cg_alpha=1.0)
    found: Any = cg(plain.outer_gradient(), *_levels(plain, config))
    return found[0]


def torchopt_neumann(plain: Plain, products: int, step_size: float) -> Tensor:
    """TorchOpt's ``custom_root`` with its Neumann series."""
    from torchopt import linear_solve

    return _torchopt(plain, linear_solve.solve_inv(ns=True, maxiter=products, alpha=step_size))


def torchopt_conjugate_gradients(plain: Plain, products: int, step_size: float) -> Tensor:
    """TorchOpt's ``custom_root`` with its conjugate gradients, the first product of zeros."""
    from torchopt import linear_solve

    return _torchopt(plain, linear_solve.solve_cg(maxiter=max(products - 1, 1), rtol=1e-12))


def curvlinops_kfac(plain: Plain, products: int, step_size: float) -> Tensor:
    """curvlinops' K-FAC inverse for the solve (Liao, Dangel and Yu 2026); no product.

    curvlinops knows no weighted loss, so the factors are those of the unweighted one. It takes the
    exact factors, of one pass for each output.
    """
    from curvlinops import KFACInverseLinearOperator, KFACLinearOperator
    from torch import nn

    b = plain.outer_gradient()
    F = plain.residual()
    factors = KFACLinearOperator(
        plain.network,
        nn.CrossEntropyLoss(),
        list(plain.network.parameters()),
        [(plain.x, plain.y)],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    inverse = KFACInverseLinearOperator(factors, damping=plain.decay, use_exact_damping=True)
    found: Any = inverse @ [value.detach() for value in b]
    return -torch.autograd.grad(F, plain.logits, found)[0]


SERIES: dict[str, Peer] = {
    "implicit-hyper-opt": implicit_hyper_opt,
    "hypertorch, fixed point": hypertorch_fixed_point,
    "betty, neumann": betty_neumann,
    "TorchOpt, ns": torchopt_neumann,
}
"""Those that take the Neumann series; a fixed point spends its first product on zeros."""

CONJUGATE: dict[str, Peer] = {
    "hypertorch, CG": hypertorch_conjugate_gradients,
    "betty, cg": betty_conjugate_gradients,
    "TorchOpt, CG": torchopt_conjugate_gradients,
}


def _torchopt(plain: Plain, solve: Any) -> Tensor:
    from torchopt.diff.implicit import custom_root

    def optimality(theta: tuple[Tensor, ...], logits: Tensor) -> tuple[Tensor, ...]:
        return plain.functional_residual(theta, logits)

    @custom_root(optimality, argnums=1, solve=solve)
    def solution(theta: tuple[Tensor, ...], logits: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.detach() for value in plain.theta)

    b = plain.outer_gradient()
    logits = plain.logits.detach().requires_grad_()
    found: Any = solution(tuple(plain.theta), logits)
    return torch.autograd.grad(found, logits, b)[0]


def _levels(plain: Plain, config: SimpleNamespace) -> tuple[Any, Any]:
    """What betty's functions ask of the lower and of the upper problem."""

    def loss(_: object) -> Tensor:
        if plain.matrix == "Hessian":
            return plain.inner()
        return _WithGradient.apply(plain.residual, *plain.theta)

    lower = SimpleNamespace(
        paths=[],
        config=config,
        cur_batch=None,
        training_step_exec=loss,
        trainable_parameters=lambda: plain.theta,
        parameters=lambda: plain.theta,
    )
    return lower, SimpleNamespace(trainable_parameters=lambda: [plain.logits])


class _WithGradient(torch.autograd.Function):
    """A scalar whose gradient is a given function, for a package that starts from a loss."""

    @staticmethod
    def forward(ctx: Any, residual: Callable[[], list[Tensor]], *theta: Tensor) -> Tensor:
        ctx.residual = residual
        return theta[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *ctx.residual()


def _axpy(a: Sequence[Tensor], b: Sequence[Tensor], scale: Any) -> list[Tensor]:
    return [one + scale * other for one, other in zip(a, b, strict=True)]


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(a, b, strict=True)]).sum()
