"""In which direction sharpness-aware optimisers climb before they descend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput, check_fraction, check_not_negative
from ..types import Params


class Ascent(Protocol):
    """A direction of ascent. State is a NamedTuple of tensors and `Params`.

    Attributes:
        needs_gradient: Whether it looks at ∇L(θ). Without, a step costs one gradient, not two.
    """

    needs_gradient: ClassVar[bool]

    def init(self, params: Params) -> Any:
        """The state before the first step."""
        ...

    def direction(
        self, gradient: Params, params: Params, state: Any, length: float | Tensor = 1.0
    ) -> Params:
        """ε of this length in the direction's own norm; zero where nothing says whither.

        Differentiable. ``gradient`` is empty where none is needed.
        """
        ...

    def observe(self, gradient: Params, state: Any) -> Any:
        """The state after a step with this gradient."""
        ...


class NoState(NamedTuple):
    """Of a direction that remembers nothing."""


@dataclass(frozen=True)
class Steepest:
    """The ε of ‖ε‖_p = 1 with the greatest ⟨ε, g⟩ (Foret et al. 2021, equation 2).

    ε = sign(g) |g|^(q - 1) / ‖g‖_q^(q - 1) with 1/p + 1/q = 1: for p = 2 g / ‖g‖, for p = ∞ the
    signs. The norms are over all parameters together. With p = 2, ε is zero where ‖g‖² is too
    small or too large for the precision of g (in float32, ‖g‖ below 3e-16 or above 1e19).

    Attributes:
        p: Of the norm, above 1; ``math.inf`` for the signs.
    """

    p: float = 2.0
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.p > 1:
            raise BadInput(f"p is {self.p}, but must be above 1. Choose 2, or math.inf for signs.")

    def init(self, params: Params) -> NoState:
        """Nothing."""
        return NoState()

    def direction(
        self, gradient: Params, params: Params, state: NoState, length: float | Tensor = 1.0
    ) -> Params:
        """See the class."""
        if math.isinf(self.p):
            # what is not finite stays so: the sign of NaN is 0 to torch, and 0 · ∞ is NaN
            return {name: length * value.sign() + 0 * value for name, value in gradient.items()}
        if self.p == 2:
            return _scaled_to(length, gradient)
        gradient = _by_largest(gradient)
        power = 1 / (self.p - 1)  # q - 1
        tiny = torch.finfo(next(iter(gradient.values())).dtype).tiny
        sizes = {name: value.abs().clamp_min(tiny) for name, value in gradient.items()}
        total = torch.stack([size.pow(power + 1).sum() for size in sizes.values()]).sum()
        factor = length * total.clamp_min(0.5) ** (-1 / self.p)
        return {name: factor * v.sign() * sizes[name].pow(power) for name, v in gradient.items()}

    def observe(self, gradient: Params, state: NoState) -> NoState:
        """Nothing."""
        return state


@dataclass(frozen=True)
class Adaptive:
    """ε = T² g / ‖T g‖ with T = |θ| + η (ASAM, Kwon et al. 2021, equation 8).

    With η = 0 it does not change when one layer is multiplied by what the next one is divided by.
    Its ρ is about ten times SAM's: Kwon et al. have 0.5 on CIFAR-10 and 1.0 on CIFAR-100.

    Attributes:
        eta: η, what keeps entries of zero from being left alone.
        only: Which parameters T applies to, by name; T is 1 for all others. Kwon et al. take those
            whose name holds "weight"; without it, all.
    """

    eta: float = 0.01
    only: Callable[[str], bool] | None = None
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_not_negative("eta", self.eta)

    def init(self, params: Params) -> NoState:
        """Nothing."""
        return NoState()

    def direction(
        self, gradient: Params, params: Params, state: NoState, length: float | Tensor = 1.0
    ) -> Params:
        """See the class."""
        adapted = [name for name in gradient if self.only is None or self.only(name)]
        sizes = {name: params[name].abs() + self.eta for name in adapted}
        stretched = {k: v * sizes[k] if k in sizes else v for k, v in gradient.items()}
        stretched = _scaled_to(length, stretched)
        return {k: v * sizes[k] if k in sizes else v for k, v in stretched.items()}

    def observe(self, gradient: Params, state: NoState) -> NoState:
        """Nothing."""
        return state


class RandomState(NamedTuple):
    """Steps taken, an int64 scalar on the CPU."""

    step: Tensor


@dataclass(frozen=True)
class Random:
    """A direction drawn from the unit sphere for each step: the control that looks at nothing.

    Attributes:
        seed: With the number of the step, of the draw; on the CPU, so that devices agree.
    """

    seed: int = 0
    needs_gradient: ClassVar[bool] = False

    def init(self, params: Params) -> RandomState:
        """No steps."""
        return RandomState(torch.zeros((), dtype=torch.int64))

    def direction(
        self, gradient: Params, params: Params, state: RandomState, length: float | Tensor = 1.0
    ) -> Params:
        """See the class."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(state.step))
        return _scaled_to(length, p.random_like(params, generator))

    def observe(self, gradient: Params, state: RandomState) -> RandomState:
        """One step more."""
        return RandomState(state.step + 1)


class MomentumState(NamedTuple):
    """The accumulated gradients."""

    momentum: Params


@dataclass(frozen=True)
class Momentum:
    """-v / ‖v‖ with v ← decay · v + G (Momentum-SAM, Becker, Altrock and Risse 2024).

    The point ahead, where the momentum is about to carry θ; the momentum overshoots where the
    loss is sharp. The first step climbs nowhere.

    Attributes:
        decay: Of the accumulated gradients, in [0, 1).
    """

    decay: float = 0.9
    needs_gradient: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fraction("decay", self.decay)

    def init(self, params: Params) -> MomentumState:
        """Zeros."""
        return MomentumState(p.zeros_like(params))

    def direction(
        self, gradient: Params, params: Params, state: MomentumState, length: float | Tensor = 1.0
    ) -> Params:
        """See the class."""
        return _scaled_to(-length, state.momentum)

    def observe(self, gradient: Params, state: MomentumState) -> MomentumState:
        """One gradient more."""
        return MomentumState(p.add(gradient, state.momentum, self.decay))


def _scaled_to(length: float | Tensor, a: Params) -> Params:
    """length · a / ‖a‖; zeros, also in derivatives, where ‖a‖² is too small or large to be held."""
    # not `p.dot`, which would write all squares down first
    square = torch.stack([torch.dot(v.flatten(), v.flatten()) for v in a.values()]).sum()
    limits = torch.finfo(square.dtype)
    least = limits.tiny / limits.eps
    inverse = torch.where(square > least, square.clamp_min(least).rsqrt(), 0)
    return p.scale(a, length * inverse)


def _by_largest(a: Params) -> Params:
    """Divided by its largest entry, so that no power is too small or too large to be held.

    Directions do not change with the scale, nor do their derivatives. What comes out has a norm
    of at least one, or is zero, with zero for its derivative.
    """
    values = [value.detach() for value in a.values()]
    largest = torch.stack([torch.maximum(v.amax(), -v.amin()) for v in values]).amax()
    largest = torch.where(largest == 0, torch.inf, largest)
    return {name: value / largest for name, value in a.items()}
