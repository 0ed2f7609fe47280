"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from .. import params as p
from ..errors import BadInput, check_fraction, check_not_negative, check_positive
from ..types import GradFn, Params


class SGDState(NamedTuple):
    """The momentum buffer; empty without momentum."""

    momentum: Params


@dataclass(frozen=True)
class SGD:
    """d = G + weight_decay · θ;  b ← momentum · b + d;  θ ← θ - lr · b, as `torch.optim.SGD`.

    Attributes:
        lr: Learning rate: a number, a scalar tensor (which may require grad), or one tensor for
            each parameter by name.
        momentum: Fraction of the last direction that is kept, in [0, 1).
        nesterov: Step along d + momentum · b instead of b.
        weight_decay: Coefficient of θ in the direction: the gradient of ½ weight_decay ‖θ‖². It
            is part of F, so it is part of the Hessian.
    """

    lr: float | Tensor | Params
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_positive("lr", self.lr)
        check_fraction("momentum", self.momentum)
        check_not_negative("weight_decay", self.weight_decay)
        if self.nesterov and not self.momentum:
            raise BadInput("nesterov needs momentum. Set momentum, for example to 0.9.")

    def init(self, params: Params) -> SGDState:
        """A zero buffer."""
        return SGDState(p.zeros_like(params) if self.momentum else {})

    def gradient(
        self, grad_fn: GradFn, params: Params, state: SGDState
    ) -> tuple[Params, SGDState, Tensor]:
        """∇L(θ)."""
        gradient, loss = grad_fn(params)
        return gradient, state, loss

    def stationarity(self, gradient: Params, params: Params, state: SGDState) -> Params:
        """∇L(θ) + weight_decay · θ; momentum moves the path, not where it ends."""
        return p.add(gradient, params, self.weight_decay) if self.weight_decay else gradient

    def update(self, gradient: Params, params: Params, state: SGDState) -> tuple[Params, SGDState]:
        """One step."""
        direction = self.stationarity(gradient, params, state)
        if self.momentum:
            buffer = p.add(direction, state.momentum, self.momentum)
            direction = p.add(direction, buffer, self.momentum) if self.nesterov else buffer
            state = SGDState(buffer)
        if isinstance(self.lr, dict):
            rates = self.lr
            return {k: v - rates[k] * direction[k] for k, v in params.items()}, state
        rate = self.lr
        return {k: v - rate * direction[k] for k, v in params.items()}, state
