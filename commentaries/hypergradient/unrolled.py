"""Backpropagation through training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import params as p
from .. import tree
from ..curvature import Curvature, Hessian
from ..errors import check_positive, unknown
from ..inner.optimizer import step
from ..problem import Bilevel
from ..types import Batch, Params
from .result import HypergradientResult, Optimizer, check_finite, check_inputs, optimizer_at


@dataclass(frozen=True)
class Unrolled:
    """d/dφ of L_V(θ_T(φ), φ) through every inner step (Raghu et al. 2021, algorithm 1).

    Attributes:
        curvature: How ∇L is differentiated.
        every: Keep the graphs of this many steps at a time: the others are recomputed from stored
            states, so that memory is that of ``every`` graphs and T / every states. "sqrt": of one
            step, with 2 √T states, each step recomputed twice (Griewank and Walther 2000 go on
            like this). None keeps all graphs (fastest).
        last: Differentiate through this many last steps only, and take the student before them as
            given (truncated backpropagation). None: through all.
    """

    curvature: Curvature = field(default_factory=Hessian)
    every: int | Literal["sqrt"] | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.every, str) and self.every != "sqrt":
            raise unknown("every", self.every, ["sqrt"])
        for name in ("every", "last"):
            value = getattr(self, name)
            if value is not None and value != "sqrt":
                check_positive(name, value)

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
        """See `Hypergradient`; ``adjoint`` is not used.

        Raises:
            BadInput: No inner batch, or no φ.
            NonFinite: The hypergradient is not finite.
        """
        check_inputs(inner, phi)
        theta, phi = p.detach(theta), p.detach(phi)
        at = optimizer_at(optimizer, phi)
        state = at.init(theta) if state is None else tree.detach(state)
        training = _Training(problem, self.curvature, optimizer, outer)

        given = len(inner) - min(self.last or len(inner), len(inner))
        theta, state, _ = training.walk(theta, phi, state, inner[:given])
        steps = inner[given:]
        backward = _Backward(training, p.live(phi))
        bar = backward.through((theta, state), steps, None, _sizes(self.every, len(steps)))
        end = backward.end
        check_finite(backward.total, end.outer_loss)
        return HypergradientResult(
            value=backward.total,
            outer_loss=end.outer_loss,
            theta=end.theta,
            state=end.state,
            adjoint=dict(zip(theta, bar, strict=False)),
            diagnostics={"inner_loss": end.inner_loss},
        )


@dataclass(frozen=True)
class _Training:
    problem: Bilevel
    curvature: Curvature
    optimizer: Optimizer
    outer: Batch

    def walk(
        self, theta: Params, phi: Params, state: Any, batches: Sequence[Batch]
    ) -> tuple[Params, Any, Tensor | None]:
        """The student and the state after some steps, and the loss of the last."""
        optimizer, loss = optimizer_at(self.optimizer, phi), None
        for batch in batches:
            grad_fn = self.curvature(self.problem.inner, phi, batch)
            theta, state, loss = step(optimizer, grad_fn, theta, state)
        return theta, state, loss


class _End(NamedTuple):
    """Where training ends, detached."""

    theta: Params
    state: Any
    inner_loss: Tensor | None
    outer_loss: Tensor


class _Backward:
    """Backpropagation, a piece of training at a time.

    Attributes:
        total: dL_V/dφ of the pieces so far.
        end: Where training ends; known after the first piece, which is the last in time.
    """

    def __init__(self, training: _Training, phi: Params):
        self._training, self._phi = training, phi
        self.total = p.zeros_like(phi)
        self.end: _End

    def through(
        self, start: Any, batches: Sequence[Batch], bar: list[Tensor] | None, sizes: tuple[int, ...]
    ) -> list[Tensor]:
        """From dL_V/d(θ, state) after some steps to that before them.

        Args:
            start: (θ, state) before the steps.
            batches: One for each step.
            bar: dL_V/d(θ, state) after them; None where L_V itself follows.
            sizes: Steps in a piece, in a piece of a piece, and so on; the smallest get a graph.
        """
        if not sizes:
            return self._through_graph(start, batches, bar)
        pieces = [batches[i : i + sizes[0]] for i in range(0, len(batches), sizes[0])]
        starts = [start]
        for piece in pieces[:-1]:
            theta, state = starts[-1]
            starts.append(self._training.walk(theta, p.detach(self._phi), state, piece)[:2])
        while pieces:
            bar = self.through(starts.pop(), pieces.pop(), bar, sizes[1:])
        assert bar is not None
        return bar

    def _through_graph(
        self, start: Any, batches: Sequence[Batch], bar: list[Tensor] | None
    ) -> list[Tensor]:
        entry = tree.live(start)
        with torch.enable_grad():
            theta, state, loss = self._training.walk(entry[0], self._phi, entry[1], batches)
            if bar is None:
                outer_loss = self._training.problem.outer(theta, self._phi, self._training.outer)
                outputs = [outer_loss]
                self.end = _End(
                    p.detach(theta), tree.detach(state), loss, outer_loss=outer_loss.detach()
                )
            else:
                outputs = list(tree.leaves((theta, state)))
        share, bar = _pull_back(outputs, bar, self._phi, entry)
        self.total = p.add(self.total, share)
        return bar


def _sizes(every: int | str | None, steps: int) -> tuple[int, ...]:
    if every is None:
        return ()
    return (math.isqrt(steps - 1) + 1, 1) if isinstance(every, str) else (every,)


def _pull_back(
    outputs: list[Tensor], weights: list[Tensor] | None, phi: Params, entry: Any
) -> tuple[Params, list[Tensor]]:
    """weightsᵀ ∂outputs/∂(φ, entry): the part of φ, and one cotangent for each leaf of entry."""
    leaves = list(tree.leaves(entry))
    inputs = {f"φ{i}": leaf for i, leaf in enumerate(phi.values())}
    inputs |= {f"θ{i}": leaf for i, leaf in enumerate(leaves) if leaf.requires_grad}
    if weights is not None:
        pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
        outputs, weights = [o for o, _ in pairs], [w for _, w in pairs]
    found = p.gradients(outputs, inputs, weights)
    share = {name: found[f"φ{i}"] for i, name in enumerate(phi)}
    bar = [found.get(f"θ{i}", torch.zeros_like(leaf)) for i, leaf in enumerate(leaves)]
    return share, bar
