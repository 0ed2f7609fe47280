"""The contract of an inner optimiser."""

from __future__ import annotations

from typing import Protocol, TypeVar

from torch import Tensor

from ..types import GradFn, Params

State = TypeVar("State")


class InnerOptimizer(Protocol[State]):
    """An optimiser as pure functions. State is a NamedTuple of tensors and `Params`.

    Three things are apart because three things differ: where the gradient is taken
    (`gradient`), what vanishes where training stops (`stationarity`), and how θ moves
    (`update`). An optimiser receives a function, not a gradient, so that it may take several.
    """

    def init(self, params: Params) -> State:
        """The state before the first step."""
        ...

    def gradient(
        self, grad_fn: GradFn, params: Params, state: State
    ) -> tuple[Params, State, Tensor]:
        """Returns the gradient G to step with, the state, and the loss of the first pass."""
        ...

    def stationarity(self, gradient: Params, params: Params, state: State) -> Params:
        """F(θ): G plus what the optimiser adds to it; zero where the optimiser stops."""
        ...

    def update(self, gradient: Params, params: Params, state: State) -> tuple[Params, State]:
        """One move: returns the new θ and the new state."""
        ...


def step(
    optimizer: InnerOptimizer[State], grad_fn: GradFn, params: Params, state: State
) -> tuple[Params, State, Tensor]:
    """One whole step: `gradient`, then `update`. Returns θ, the state and the loss at the start."""
    gradient, state, loss = optimizer.gradient(grad_fn, params, state)
    params, state = optimizer.update(gradient, params, state)
    return params, state, loss
