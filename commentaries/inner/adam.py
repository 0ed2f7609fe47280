"""Adam, and AdamW by choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import params as p
from ..errors import check_fraction, check_not_negative, check_positive
from ..types import GradFn, Params


class AdamState(NamedTuple):
    """Steps taken (a float64 scalar) and the running first and second moments."""

    step: Tensor
    first: Params
    second: Params


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015), step for step as `torch.optim.Adam` and `AdamW`.

    The square root is differentiable at zero: √max(v, tiny) + ε, where ε alone would leave an
    infinite derivative at entries whose gradient has been zero so far.

    Attributes:
        lr: Learning rate: a number, or a scalar tensor (which may require grad).
        betas: Decay of the first and of the second moment, each in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: Coefficient of θ.
        decoupled: False: θ enters the gradient (Adam). True: it shrinks θ beside it (AdamW,
            Loshchilov and Hutter 2019); a hypergradient by the implicit function theorem is then
            approximate, because AdamW's resting point depends on its state: prefer unrolling.
    """

    lr: float | Tensor
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_positive("eps", self.eps)
        check_not_negative("weight_decay", self.weight_decay)
        for beta in self.betas:
            check_fraction("each of betas", beta)

    def init(self, params: Params) -> AdamState:
        """Zero moments, zero steps."""
        device = next(iter(params.values())).device
        step = torch.zeros((), dtype=torch.float64, device=device)
        return AdamState(step, p.zeros_like(params), p.zeros_like(params))

    def gradient(
        self, grad_fn: GradFn, params: Params, state: AdamState
    ) -> tuple[Params, AdamState, Tensor]:
        """∇L(θ)."""
        gradient, loss = grad_fn(params)
        return gradient, state, loss

    def stationarity(self, gradient: Params, params: Params, state: AdamState) -> Params:
        """∇L(θ) + weight_decay · θ; for AdamW, θ times the present root of the second moment."""
        if not self.weight_decay:
            return gradient
        if not self.decoupled:
            return p.add(gradient, params, self.weight_decay)
        root = self._denominator(state)
        return {
            name: value + self.weight_decay * params[name] * root[name].detach()
            for name, value in gradient.items()
        }

    def update(
        self, gradient: Params, params: Params, state: AdamState
    ) -> tuple[Params, AdamState]:
        """One step."""
        beta1, beta2 = self.betas
        if self.weight_decay and not self.decoupled:
            gradient = p.add(gradient, params, self.weight_decay)
        state = AdamState(
            state.step + 1,
            {k: beta1 * m + (1 - beta1) * gradient[k] for k, m in state.first.items()},
            {k: beta2 * v + (1 - beta2) * gradient[k].square() for k, v in state.second.items()},
        )
        root = self._denominator(state)
        shrink = 1 - self.lr * self.weight_decay if self.decoupled else 1.0
        correction = 1 - beta1**state.step
        moved = {}
        for name, value in params.items():
            rate = (self.lr / correction).to(value.dtype)
            moved[name] = shrink * value - rate * state.first[name] / root[name]
        return moved, state

    def _denominator(self, state: AdamState) -> Params:
        """√v̂ + ε of the bias-corrected second moment."""
        correction = (1 - self.betas[1] ** state.step.clamp_min(1)).sqrt()
        return {
            name: v.clamp_min(torch.finfo(v.dtype).tiny).sqrt() / correction.to(v.dtype) + self.eps
            for name, v in state.second.items()
        }
