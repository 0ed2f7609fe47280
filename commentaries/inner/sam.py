"""Sharpness-aware minimisation: descend along the gradient of a point uphill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .. import params as p
from ..errors import BadInput, check_count, check_not_negative, check_positive, unknown
from ..types import GradFn, Params
from .ascent import Ascent, Steepest
from .optimizer import InnerOptimizer

Jacobian = Literal["exact", "frozen", "plain"]


class SAMState(NamedTuple):
    """States of the base step and of the ascent, and what is kept from step to step.

    Attributes:
        base: Of the base step.
        ascent: Of the direction.
        step: Steps taken, an int64 scalar on the CPU.
        turn: What the last ascent added to the gradient, orthogonal to it; zeros before the
            first. Empty where nothing is reused.
        cosine: Of the last gradient with and without the second-order term, a scalar; NaN
            without ``second_order``.
    """

    base: Any
    ascent: Any
    step: Tensor
    turn: Params
    cosine: Tensor


@dataclass(frozen=True)
class SAM:
    """G = ∇L(θ + ε), ε = ρ · direction; the base step moves θ along G (Foret et al. 2021).

    The base step's weight decay is taken at θ, not at θ + ε.

    Attributes:
        base: The step that is taken with G, such as `SGD` or `Adam`.
        rho: ρ, how far to climb: a number, a scalar tensor, or one for each parameter by name.
        ascent: The direction; of `Steepest`, `Adaptive` (ASAM), `Random` (a control), `Momentum`
            (Momentum-SAM, the cost of the base step), or one of your own.
        steps: Gradient steps of the ascent, each by ρ / steps along the direction at the point
            reached, so that ε is never longer than ρ.
        group: m, examples that share an ε: the batch is cut into groups of m, and G is the mean of
            the groups' gradients (m-sharpness). All examples share one if not given.
        every: Climb at every so many steps. Those in between cost one gradient. Training then
            does not come to rest, so that `hypergradient.Implicit` is approximate: prefer
            `hypergradient.Unrolled`.
        reuse: What steps in between do with the last climb: G = g + reuse (‖g‖ / ‖t‖) t, where t
            is that part of the last ∇L(θ + ε) that is orthogonal to its ∇L(θ) (LookSAM, Liu et
            al. 2022, with 0.7). 0: they are steps of the base.
        second_order: Add (∂ε/∂θ)ᵀ ∇L(θ + ε), so that G is the whole gradient of L(θ + ε(θ)); one
            more Hessian product. The paper drops it, and finds that it tests worse.
        jacobian: What a derivative of G sees, where a hypergradient is taken. "exact": all of it.
            "frozen": ε as a constant. "plain": G as if it were ∇L(θ), at half the Hessian
            products. Against unrolling "plain" is as good up to ρ = 0.05, and "exact" best beyond
            (``experiments.sam_fidelity``).
    """

    base: InnerOptimizer[Any]
    rho: float | Tensor | Params = 0.05
    ascent: Ascent = field(default_factory=Steepest)
    steps: int = 1
    group: int | None = None
    every: int = 1
    reuse: float = 0.7
    second_order: bool = False
    jacobian: Jacobian = "exact"

    def __post_init__(self) -> None:
        for name, value in self.rho.items() if isinstance(self.rho, dict) else [("", self.rho)]:
            check_positive(f"rho of {name!r}" if name else "rho", value)
        for name in ("steps", "every"):
            check_count(name, getattr(self, name))
        if self.group is not None:
            check_count("group", self.group)
        check_not_negative("reuse", self.reuse)
        if self.jacobian not in get_args(Jacobian):
            raise unknown("jacobian", self.jacobian, get_args(Jacobian))
        if self.second_order and self.jacobian != "exact":
            raise BadInput(
                f"jacobian is {self.jacobian!r}, but with second_order all of G is differentiated. "
                "Leave jacobian at 'exact', or second_order at False."
            )
        if not self.ascent.needs_gradient:
            unused = {"steps": 1, "every": 1, "group": None, "second_order": False}
            for name, plain in unused.items():
                if getattr(self, name) != plain:
                    raise BadInput(
                        f"{name} is {getattr(self, name)}, but {type(self.ascent).__name__} climbs "
                        f"without a gradient. Leave {name} at {plain}, or choose Steepest."
                    )

    @property
    def reuses(self) -> bool:
        """Whether steps between climbs are turned by what the last climb found."""
        return self.every > 1 and self.reuse > 0

    def init(self, params: Params) -> SAMState:
        """States of the base and the ascent; nothing is kept yet.

        Raises:
            BadInput: ρ is given by name, and lacks one of the parameters.
        """
        first = next(iter(params.values()))
        for name in params:
            if isinstance(self.rho, dict) and name not in self.rho:
                raise BadInput(
                    f"rho has no value for the parameter {name!r}. Give one for each parameter, or "
                    "one number for all."
                )
        return SAMState(
            base=self.base.init(params),
            ascent=self.ascent.init(params),
            step=torch.zeros((), dtype=torch.int64),
            turn=p.zeros_like(params) if self.reuses else {},
            cosine=torch.full((), torch.nan, dtype=first.dtype, device=first.device),
        )

    def gradient(
        self, grad_fn: GradFn, params: Params, state: SAMState
    ) -> tuple[Params, SAMState, Tensor]:
        """∇L(θ + ε), the state, and the loss of the first pass (of the only one where one is)."""
        if self.every > 1 and int(state.step) % self.every:
            return self._between(grad_fn, params, state)
        climb = self._climb_groups(grad_fn, params, state)
        G = climb.sharp
        if self.second_order:
            G = p.add(climb.sharp, climb.bend)
            state = state._replace(cosine=_cosine(p.detach(climb.sharp), p.detach(G)))
        if self.reuses:
            along = p.dot(G, climb.flat) * _inverse(p.dot(climb.flat, climb.flat))
            turn = p.add(G, climb.flat, -along)
            rounding = 8 * torch.finfo(along.dtype).eps  # what is no longer is no turn
            real = p.dot(turn, turn) > rounding**2 * p.dot(G, G)
            state = state._replace(turn=p.scale(turn, real))
        return G, state, climb.loss

    def stationarity(self, gradient: Params, params: Params, state: SAMState) -> Params:
        """The base's: at rest ∇L(θ + ε) vanishes with its weight decay, and not ∇L(θ)."""
        return self.base.stationarity(gradient, params, state.base)

    def update(self, gradient: Params, params: Params, state: SAMState) -> tuple[Params, SAMState]:
        """One step of the base."""
        moved, base = self.base.update(gradient, params, state.base)
        ascent = self.ascent.observe(gradient, state.ascent)
        return moved, state._replace(base=base, ascent=ascent, step=state.step + 1)

    def epsilon(
        self, grad_fn: GradFn, params: Params, state: SAMState, rows: slice | None = None
    ) -> tuple[Params, Params, Tensor | None]:
        """ε, and ∇L(θ) and L(θ) of the first pass (empty and None where there is none)."""
        gradient, loss = {}, None
        straight = self.jacobian == "plain" and torch.is_grad_enabled()
        if self.ascent.needs_gradient or straight:
            gradient, loss = grad_fn(params, rows)
        epsilon = self.ascent_step(gradient, params, state)
        for _ in range(self.steps - 1):
            further, _ = grad_fn(p.add(params, epsilon), rows)
            epsilon = p.add(epsilon, self.ascent_step(further, params, state))
        return epsilon, gradient, loss

    def ascent_step(self, gradient: Params, params: Params, state: SAMState) -> Params:
        """ρ / steps along the direction: the whole of ε where one step is taken."""
        if not isinstance(self.rho, dict):
            return self.ascent.direction(gradient, params, state.ascent, self.rho / self.steps)
        direction = self.ascent.direction(gradient, params, state.ascent)
        return {k: self.rho[k] / self.steps * value for k, value in direction.items()}

    def _climb_groups(self, grad_fn: GradFn, params: Params, state: SAMState) -> _Climb:
        """The mean of the groups' climbs, each of which counts by its size."""
        n, m = grad_fn.size, self.group or grad_fn.size
        if m >= n:
            return self._climb(grad_fn, params, state, None)
        total = None
        for start in range(0, n, m):
            rows = slice(start, min(start + m, n))
            climb = self._climb(grad_fn, params, state, rows)
            share = (rows.stop - rows.start) / n
            total = climb.scaled(share) if total is None else total.plus(climb, share)
        assert total is not None
        return total

    def _climb(
        self, grad_fn: GradFn, params: Params, state: SAMState, rows: slice | None
    ) -> _Climb:
        if self.second_order:
            return self._climb_whole(grad_fn, params, state, rows)
        wanted = torch.is_grad_enabled()  # a derivative of what comes out
        with torch.set_grad_enabled(wanted and self.jacobian != "frozen"):
            epsilon, flat, loss = self.epsilon(grad_fn, params, state, rows)
        if self.jacobian == "frozen":
            epsilon = p.detach(epsilon)
        with torch.set_grad_enabled(wanted and self.jacobian != "plain"):
            sharp, after = grad_fn(p.add(params, epsilon), rows)
        if self.jacobian == "plain" and wanted:
            sharp = {k: g + (sharp[k] - g).detach() for k, g in flat.items()}
        return _Climb(sharp, flat, {}, after if loss is None else loss)

    def _climb_whole(
        self, grad_fn: GradFn, params: Params, state: SAMState, rows: slice | None
    ) -> _Climb:
        """With (∂ε/∂θ)ᵀ ∇L(θ + ε), for which ε needs a graph even where G needs none."""
        with torch.enable_grad():
            theta = {k: v if v.requires_grad else p.live({k: v})[k] for k, v in params.items()}
            epsilon, flat, loss = self.epsilon(grad_fn, theta, state, rows)
            point = p.add(theta, epsilon)
        # a graph of G is kept if θ, ρ or the state asks for one, or φ, which only ∇L can tell
        wanted = p.requires_grad(p.add(params, self.ascent_step(p.detach(flat), params, state)))
        sharp, _ = grad_fn(point if wanted else p.detach(point), rows)
        if not wanted and p.requires_grad(sharp):
            wanted = True
            sharp, _ = grad_fn(point, rows)
        names = [name for name, value in epsilon.items() if value.requires_grad]
        bend = p.gradients(
            [epsilon[name] for name in names],
            theta,
            [sharp[name] for name in names],
            create_graph=wanted,
        )
        assert loss is not None
        flat = flat if wanted else p.detach(flat)
        return _Climb(sharp, flat, bend, loss)

    def _between(
        self, grad_fn: GradFn, params: Params, state: SAMState
    ) -> tuple[Params, SAMState, Tensor]:
        """A step without a climb, turned as the last climb turned its gradient."""
        gradient, loss = grad_fn(params)
        if self.reuses:
            length = self.reuse * _length(gradient) * _inverse(_length(state.turn))
            gradient = p.add(gradient, state.turn, length)
        return gradient, state, loss


class _Climb(NamedTuple):
    """∇L(θ + ε), ∇L(θ) and (∂ε/∂θ)ᵀ ∇L(θ + ε), the last two empty where nobody asks; L."""

    sharp: Params
    flat: Params
    bend: Params
    loss: Tensor

    def scaled(self, share: float) -> _Climb:
        """share · self."""
        sharp, flat, bend = (p.scale(part, share) for part in self[:3])
        return _Climb(sharp, flat, bend, share * self.loss)

    def plus(self, other: _Climb, share: float) -> _Climb:
        """self + share · other."""
        pairs = zip(self[:3], other[:3], strict=True)
        sharp, flat, bend = (p.add(a, b, share) for a, b in pairs)
        return _Climb(sharp, flat, bend, self.loss + share * other.loss)


def _cosine(a: Params, b: Params) -> Tensor:
    return p.dot(a, b) * _inverse(p.norm(a) * p.norm(b))


def _length(a: Params) -> Tensor:
    """‖a‖, with the derivative 0 at 0."""
    square = p.dot(a, a)
    return torch.where(square > 0, square, 1).sqrt() * (square > 0)


def _inverse(value: Tensor) -> Tensor:
    """1 / value, and 0 for 0."""
    return torch.where(value > 0, 1 / torch.where(value > 0, value, 1), 0)
