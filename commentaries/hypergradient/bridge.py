"""Unrolling through optimisers of ``torch.optim``, by way of the library `higher`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import params as p
from .. import tree
from ..errors import BadInput
from ..types import GradFn, Params

KNOWN = ("SGD", "Adam", "Adamax", "Adagrad", "Adadelta", "ASGD", "RMSprop", "Rprop")
"""What higher 0.2.1 can differentiate."""

IGNORED = ("maximize", "decoupled_weight_decay")
"""Settings newer than higher, which it would pass over in silence."""

NUMBERS = ("step", "eta", "mu")
"""What higher keeps as plain numbers."""


class TorchState(NamedTuple):
    """Steps taken (an int64 scalar), and what the optimiser keeps for each parameter."""

    step: Tensor
    kept: dict[str, Params]


@dataclass(frozen=True)
class TorchOptimizer:
    """An optimiser of ``torch.optim`` as an inner optimiser, differentiable by higher 0.2.1.

    higher knows those in ``KNOWN``; through Rprop, which looks at signs alone, no derivative
    passes. Our own `inner.SGD` and `inner.Adam` take the same steps faster; higher adds Adam's ε
    before the bias correction, torch and we after it.

    Attributes:
        build: From a list of parameters to the optimiser, such as
            ``lambda parameters: torch.optim.RMSprop(parameters, lr=0.01)``.
        settings: Settings by name in the place of the optimiser's own, which may require grad:
            ``{"lr": phi["log lr"].exp()}``.

    Raises:
        BadInput: higher does not know the optimiser or one of its settings (on the first use).
    """

    build: Callable[[list[Tensor]], torch.optim.Optimizer]
    settings: Mapping[str, float | Tensor] = field(default_factory=dict)

    def init(self, params: Params) -> TorchState:
        """Nothing kept, in the shape of what will be: one step without a gradient shows it."""
        zeros = p.detach(p.zeros_like(params))
        step = torch.zeros((), dtype=torch.int64)
        with torch.no_grad():
            _, state = self.update(zeros, zeros, TorchState(step, {}))
        return TorchState(step, tree.map_tensors(torch.zeros_like, state.kept))

    def gradient(
        self, grad_fn: GradFn, params: Params, state: TorchState
    ) -> tuple[Params, TorchState, Tensor]:
        """∇L(θ)."""
        gradient, loss = grad_fn(params)
        return gradient, state, loss

    def stationarity(self, gradient: Params, params: Params, state: TorchState) -> Params:
        """∇L(θ) + weight_decay · θ, as in each of those optimisers."""
        _, leaves, torch_optimizer = self._build(params)
        decay = {
            id(leaf): self.settings.get("weight_decay", group.get("weight_decay", 0.0))
            for group in torch_optimizer.param_groups
            for leaf in group["params"]
        }
        return {
            name: value + decay.get(id(leaf), 0.0) * params[name]
            for (name, value), leaf in zip(gradient.items(), leaves, strict=True)
        }

    def update(
        self, gradient: Params, params: Params, state: TorchState
    ) -> tuple[Params, TorchState]:
        """One step."""
        steps, leaves, torch_optimizer = self._build(params)
        slots = {
            id(leaf): (group, place)
            for group, found in enumerate(torch_optimizer.param_groups)
            for place, leaf in enumerate(found["params"])
        }
        slot = {
            name: slots[id(leaf)]
            for name, leaf in zip(params, leaves, strict=True)
            if id(leaf) in slots
        }
        if int(state.step):
            for name, (group, place) in slot.items():
                steps.state[group][place] = {
                    k: _number(v) if k in NUMBERS else v for k, v in state.kept[name].items()
                }
        # The gradient is given: what higher would differentiate is a loss of nothing.
        nothing = torch.zeros((), requires_grad=True)
        moved = steps.step(
            nothing, params=list(params.values()), grad_callback=lambda _: list(gradient.values())
        )
        kept = {
            name: {k: _tensor(v) for k, v in steps.state[group][place].items()}
            for name, (group, place) in slot.items()
        }
        return dict(zip(params, moved, strict=True)), TorchState(state.step + 1, kept)

    def _build(self, params: Params) -> tuple[Any, list[Tensor], torch.optim.Optimizer]:
        """higher's optimiser, the parameters that stand for θ in torch's, and torch's."""
        import higher

        leaves = [torch.zeros_like(value, requires_grad=True) for value in params.values()]
        found = self.build(leaves)
        name = type(found).__name__
        override = {key: [value] for key, value in self.settings.items()}
        try:
            steps = higher.get_diff_optim(found, leaves, override=override)
        except ValueError as error:
            raise BadInput(
                f"higher cannot differentiate {name}. Use one of {', '.join(KNOWN)}, or write an "
                "inner optimiser: commentaries.inner.Adam(decoupled=True) is AdamW."
            ) from error
        for setting in IGNORED:
            if any(group.get(setting) for group in found.param_groups):
                raise BadInput(
                    f"{name} has {setting}=True, which higher passes over. Leave it at False."
                )
        return steps, leaves, found


def _tensor(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _number(value: Tensor) -> float:
    number = float(value.detach())
    return int(number) if number.is_integer() else number
