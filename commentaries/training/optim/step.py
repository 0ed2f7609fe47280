"""One sharpness-aware step under way: its passes, what they left, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ... import inner
from ...errors import BadInput, NonFinite
from ...inner.ascent import NoState
from ...inner.sam import SAMState
from ...types import GradFn, Params
from .passes import Scaling, Surroundings
from .weights import Gradients, Weights

JUMP = 2.0**10
"""How many times larger than any before a second gradient may be; loss scales are larger still."""


class Skipped(Exception):
    """A gradient under a loss scale is not finite: the step is left out."""


@dataclass
class Step:
    """From θ to θ + ε and back.

    Attributes:
        core: The optimiser whose arithmetic this is, with the base left out.
        theta: θ, kept apart from the network.
        state: The core's.
        weights: Of the network.
        surroundings: Of its passes.
        scaling: For the scaler.
        scaler: Of mixed precision, if it is to be used.
        climbs: Whether it leaves θ.
        flat: ∇L(θ), where it is needed after the climb.
        first: The gradients of the first pass, of two-step use.
        skip: Whether a gradient was not finite.
        norms: ‖∇L‖ of each pass.
        moved: Whether the network has left θ.
    """

    core: inner.SAM
    theta: Params
    state: SAMState
    weights: Weights
    surroundings: Surroundings
    scaling: Scaling
    scaler: torch.amp.GradScaler | None
    climbs: bool
    flat: Params = field(default_factory=dict)
    first: Gradients | None = None
    skip: bool = False
    norms: list[float] = field(default_factory=list)
    moved: bool = False
    _scale: float | None = field(default=None, init=False)

    def climb(self, grad_fn: GradFn) -> None:
        """The network to θ + ε."""
        epsilon, flat, _ = self.core.epsilon(grad_fn, self.theta, self.state)
        if self.core.reuses:
            self.flat = flat
        if self.moved:
            self.weights.write(self.theta)
        self.moved = True
        self.weights.climb(self.theta, epsilon)

    def take(self, done: str, *, apart: bool = False) -> Gradients:
        """The gradients that a pass left, divided by the loss scale, and finite.

        Args:
            done: The pass, for messages.
            apart: Whether they are this replica's own.

        Raises:
            BadInput: There are none, or they are sparse; the scaler was not used as it must be.
            NonFinite: One is not finite, and there is no scaler.
            Skipped: One is not finite, and there is a scaler, which knows by now.
        """
        gradients = self.weights.take(self.theta, done)
        values = list(gradients.values.values())
        if self.scaler is not None:
            inverse = 1 / self._agreed(self.scaler)
            torch._foreach_mul_(values, inverse)  # pyright: ignore[reportPrivateImportUsage]
        norm = float(_norm(values))
        self.norms.append(norm)
        bad = not math.isfinite(norm)
        if not (self.surroundings.any_replica(bad, values[0].device) if apart else bad):
            return gradients
        if self.scaler is None:
            raise NonFinite(
                f"A gradient is not finite after {done}; the weights are where they were. Lower "
                "the learning rate or rho, or give scaler= where the loss is scaled."
            )
        self.skip = True
        raise Skipped

    def expect_scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        """Refuses another scaler than the step began with."""
        if scaler is not self.scaler:
            given, other = ("first", "second") if self.scaler else ("second", "first")
            raise BadInput(
                f"{given}_step was given a scaler, and {other}_step not the same; the weights are "
                "where they were. Give scaler= to both: one scale is for both."
            )

    def refuse_jump(self, seen: float) -> None:
        """Refuses a second gradient that nothing explains but a loss scale in one pass.

        Args:
            seen: The norm of the second gradient of the step before. Near a minimum second
                gradients are far larger than first ones, but not than one another.
        """
        first, second = self.norms
        usual = max(first, seen)
        if self.scaler is None and second > JUMP * usual > 0:
            raise BadInput(
                f"The gradient's norm is {second:.3g} in the second pass, but was {first:.3g} in "
                f"the first and at most {usual:.3g} before, as if only the second loss had been "
                "scaled; the weights are where they were. Give scaler= to first_step and "
                "second_step, without unscale_; if no loss is scaled, use step(closure) or lower "
                "rho."
            )

    def result(self, last: Gradients) -> tuple[Gradients, SAMState]:
        """G, from the gradients of the last pass, and the core's state after the step."""
        G, state = last.values, self.state
        if not self.climbs:
            G, state, _ = self.core.gradient(Recorded([G]), self.theta, state)
        elif self.core.reuses:  # the core keeps what the climb has turned
            here = replace(self.core, ascent=_Nowhere(), steps=1)
            flat = self.surroundings.replicas_mean(self.flat)
            G, state, _ = here.gradient(Recorded([flat, G]), self.theta, state)
        _, state = self.core.update(G, self.theta, state)
        return Gradients(G, last.present), state

    @torch.no_grad()
    def close(self) -> None:
        """The network back to θ, everything else to where the first pass left it."""
        if self.moved:
            self.weights.write(self.theta)
        self.surroundings.close()
        if self.scaler is not None and self._scale is not None:
            self.scaling.report(self.scaler, finite=not self.skip)

    def _agreed(self, scaler: torch.amp.GradScaler) -> float:
        """The scale of all passes."""
        if self._scale is None:
            self._scale = self.scaling.begin(scaler)
        elif scaler.get_scale() != self._scale:
            raise BadInput(
                f"The loss scale went from {self._scale:g} to {scaler.get_scale():g} between the "
                "passes. Call scaler.update() after the step only."
            )
        return self._scale


class Closure:
    """∇L by a user's closure: a `GradFn` of one example, the batch.

    Attributes:
        loss: Of the first pass, detached.
    """

    size = 1

    def __init__(self, step: Step, function: Callable[[], Any]) -> None:
        self.loss: Tensor | None = None
        self._step = step
        self._function = function

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        """A pass of the ascent, each replica's own."""
        if params is not self._step.theta:
            self._step.moved = True
            self._step.weights.write(params)
        gradients, loss = self._run(apart=True)
        return gradients.values, loss

    def last(self) -> Gradients:
        """The pass whose gradient is stepped with, where the network now is."""
        return self._run(apart=False)[0]

    def _run(self, *, apart: bool) -> tuple[Gradients, Tensor]:
        around, device = self._step.surroundings, self._step.weights.device
        first = self.loss is None
        context = around.first(device, apart=apart) if first else around.again(apart=apart)
        with context, torch.enable_grad():
            loss = self._function()
        if loss is None:
            raise BadInput("The closure returned None. Let it return the loss it computed.")
        loss = torch.as_tensor(loss).detach()
        if first:
            self.loss = loss
            if apart:
                around.mark()
        return self._step.take("the closure", apart=apart), loss


def _norm(values: list[Tensor]) -> Tensor:
    """Over all entries, a scalar; not finite where one of them is not."""
    norms = torch._foreach_norm(values)  # pyright: ignore[reportPrivateImportUsage]
    return torch.linalg.vector_norm(torch.stack(norms))


class Recorded:
    """∇L as passes left it, one value for each call, wherever it is asked for: a `GradFn`."""

    size = 1

    def __init__(self, gradients: list[Params]) -> None:
        self._gradients = iter(gradients)

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        """The next one; there is no loss."""
        return next(self._gradients), torch.zeros(())


class Still:
    """A base that does not move: an `InnerOptimizer` for the sake of what stands around it."""

    def init(self, params: Params) -> NoState:
        """Nothing."""
        return NoState()

    def gradient(
        self, grad_fn: GradFn, params: Params, state: NoState
    ) -> tuple[Params, NoState, Tensor]:
        """∇L(θ)."""
        gradient, loss = grad_fn(params)
        return gradient, state, loss

    def stationarity(self, gradient: Params, params: Params, state: NoState) -> Params:
        """∇L(θ)."""
        return gradient

    def update(self, gradient: Params, params: Params, state: NoState) -> tuple[Params, NoState]:
        """θ."""
        return params, state


class _Nowhere:
    """An ascent of no length, where the climb itself is over."""

    needs_gradient: ClassVar[bool] = True

    def init(self, params: Params) -> NoState:
        return NoState()

    def direction(
        self, gradient: Params, params: Params, state: Any, length: float | Tensor = 1.0
    ) -> Params:
        return {name: value.new_zeros(()) for name, value in gradient.items()}

    def observe(self, gradient: Params, state: Any) -> Any:
        return state


def plain(state: Any) -> Any:
    """A nested state as lists and dicts, which ``torch.load(weights_only=True)`` reads."""
    if isinstance(state, dict):
        return {name: plain(value) for name, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, tuple | list) else state


def revived(saved: Any, like: Any) -> Any:
    """What `plain` wrote, in the classes and with the names of a fresh state.

    A name that the fresh state does not have is dropped, and one that was not saved is fresh.

    Raises:
        BadInput: It is the state of something else.
    """
    if isinstance(like, Tensor) and isinstance(saved, Tensor):
        return saved.to(like.device, like.dtype, copy=True)
    if isinstance(like, dict) and isinstance(saved, dict):
        return {k: revived(saved[k], v) if k in saved else v for k, v in like.items()}
    if isinstance(like, tuple) and isinstance(saved, list) and len(like) == len(saved):
        values = [revived(s, v) for s, v in zip(saved, like, strict=True)]
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    raise BadInput(
        f"The saved state of the ascent does not fit {type(like).__name__}. Load it into an "
        "optimiser with the same ascent."
    )
