"""Central differences of ∇L: no graph of the gradient is kept, so memory stays that of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import params as p
from ..errors import check_positive
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params
from .gradient import BatchGradient, plain_gradient


@dataclass(frozen=True)
class FiniteDifference:
    """vᵀ∂F/∂(θ, φ) ≈ ∂/∂(θ, φ) [L(θ + hv) - L(θ - hv)] / 2h (DARTS, Liu et al. 2019).

    Two gradients a product, and an error of order h² plus rounding over h. A weight that is a
    function of the loss is held at θ, and its own change costs one gradient more.

    Attributes:
        step: Length h‖v‖ of the displacement in units of ‖θ‖; 1e-2 suits float32, 1e-4 float64.
    """

    step: float = 1e-2

    def __post_init__(self) -> None:
        check_positive("step", self.step)

    def __call__(self, inner: Loss, phi: Params, batch: Batch) -> GradFn:
        """The gradient function of a batch."""

        def gradient(
            inner: Loss, theta: Params, phi: Params, batch: Batch
        ) -> tuple[Params, Tensor]:
            leaves = [*theta.values(), *phi.values()]
            *found, loss = _Differenced.apply(self.step, inner, theta, phi, batch, *leaves)
            return dict(zip(theta, found, strict=True)), loss

        return BatchGradient(inner, phi, batch, gradient)


class _Differenced(torch.autograd.Function):
    """∇L whose vector–Jacobian product is a difference of two gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        step: float,
        inner: Loss,
        theta: Params,
        phi: Params,
        batch: Batch,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        theta, phi = p.detach(theta), p.detach(phi)
        gradient, loss = plain_gradient(inner, theta, phi, batch)
        ctx.save_for_backward(*theta.values(), *phi.values())
        ctx.problem = step, inner, list(theta), list(phi), batch
        ctx.mark_non_differentiable(loss)
        return *gradient.values(), loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *cotangents: Tensor
    ) -> tuple[Tensor | None, ...]:
        step, inner, theta_names, phi_names, batch = ctx.problem
        values = ctx.saved_tensors
        theta = dict(zip(theta_names, values, strict=False))
        phi = dict(zip(phi_names, values[len(theta) :], strict=True))
        v = dict(zip(theta_names, cotangents, strict=False))
        length = float(p.norm(v))
        if length == 0:
            return (None,) * 5 + tuple(torch.zeros_like(value) for value in values)
        h = step * max(float(p.norm(theta)), 1e-12) / length
        return (None,) * 5 + tuple(_difference(inner, theta, phi, batch, v, h))


def _difference(
    inner: Loss, theta: Params, phi: Params, batch: Batch, v: Params, h: float
) -> list[Tensor]:
    """∂/∂(θ, φ) of s = [L(θ + hv) - L(θ - hv)] / 2h, which is vᵀF up to order h².

    What is held stays at θ while the student moves, and s is differentiated through it as well.
    """
    held = None
    if isinstance(inner, Composed):
        with torch.no_grad():
            held, _ = inner.outputs(theta, phi, batch)
    above = _gradients(inner, p.add(theta, v, h), phi, batch, held)
    below = _gradients(inner, p.add(theta, v, -h), phi, batch, held)
    found = [(a - b) / (2 * h) for a, b in zip(above, below, strict=True)]
    if not isinstance(inner, Composed) or not bool(found[-1].any()):
        return found[: len(theta) + len(phi)]
    *found, of_held = found
    with torch.enable_grad():
        live_theta, live_phi = p.live(theta), p.live(phi)
        z, _ = inner.outputs(live_theta, live_phi, batch)
        through = p.gradients(z, _join(live_theta, live_phi), of_held)
    return [a + b for a, b in zip(found, through.values(), strict=True)]


def _gradients(
    inner: Loss, theta: Params, phi: Params, batch: Batch, held: Tensor | None
) -> list[Tensor]:
    """∂L/∂θ, ∂L/∂φ and, of a composed loss, ∂L/∂held."""
    with torch.enable_grad():
        inputs = _join(theta, phi) | ({} if held is None else {"held": held})
        inputs = p.live(inputs)
        values = iter(inputs.values())
        live_theta = {name: next(values) for name in theta}
        live_phi = {name: next(values) for name in phi}
        if isinstance(inner, Composed):
            z, lesson = inner.outputs(live_theta, live_phi, batch)
            loss = inner.loss(z, inputs["held"], lesson)
        else:
            loss = inner(live_theta, live_phi, batch)
        return list(p.gradients(loss, inputs).values())


def _join(theta: Params, phi: Params) -> Params:
    return {f"θ.{k}": v for k, v in theta.items()} | {f"φ.{k}": v for k, v in phi.items()}
