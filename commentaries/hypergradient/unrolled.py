"""Backpropagation through training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import params as p
from .. import tree
from ..curvature import Curvature, Hessian
from ..errors import check_positive
from ..inner.optimizer import InnerOptimizer, step
from ..problem import Bilevel
from ..types import Batch, Params
from .result import HypergradientResult, check_finite, check_inputs


@dataclass(frozen=True)
class Unrolled:
    """d/dφ of L_V(θ_T(φ), φ) through every inner step (Raghu et al. 2021, algorithm 1).

    Attributes:
        curvature: How ∇L is differentiated.
        every: Keep the graphs of this many steps at a time: the others are recomputed from stored
            states, so that memory is that of ``every`` graphs and T / every states. None keeps
            all graphs (fastest).
        last: Differentiate through this many last steps only, and take the student before them as
            given (truncated backpropagation). None: through all.
    """

    curvature: Curvature = field(default_factory=Hessian)
    every: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "last"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)

    def __call__(
        self,
        problem: Bilevel,
        optimizer: InnerOptimizer[Any],
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
        state = optimizer.init(theta) if state is None else tree.detach(state)

        def walk(theta: Params, phi: Params, state: Any, batches: Sequence[Batch]):
            loss = None
            for batch in batches:
                grad_fn = self.curvature(problem.inner, phi, batch)
                theta, state, loss = step(optimizer, grad_fn, theta, state)
            return theta, state, loss

        given = len(inner) - min(self.last or len(inner), len(inner))
        theta, state, _ = walk(theta, phi, state, inner[:given])
        pieces = _split(inner[given:], self.every)
        starts = [(theta, state)]
        for piece in pieces[:-1]:
            starts.append(walk(*starts[-1][:1], phi, starts[-1][1], piece)[:2])

        # The last piece with its graph, up to L_V; then the others, backwards.
        phi = p.live(phi)
        entry = tree.live(starts[-1])
        with torch.enable_grad():
            theta, state, inner_loss = walk(entry[0], phi, entry[1], pieces[-1])
            outer_loss = problem.outer(theta, phi, outer)
        total, bar = _pull_back([outer_loss], None, phi, entry)
        for start, piece in zip(reversed(starts[:-1]), reversed(pieces[:-1]), strict=True):
            entry = tree.live(start)
            with torch.enable_grad():
                end = walk(entry[0], phi, entry[1], piece)[:2]
            share, bar = _pull_back(list(tree.leaves(end)), bar, phi, entry)
            total = p.add(total, share)
        check_finite(total, outer_loss)
        return HypergradientResult(
            value=total,
            outer_loss=outer_loss.detach(),
            theta=p.detach(theta),
            state=tree.detach(state),
            adjoint=dict(zip(starts[0][0], bar, strict=False)),
            diagnostics={"inner_loss": inner_loss},
        )


def _split(batches: Sequence[Batch], every: int | None) -> list[Sequence[Batch]]:
    size = every or len(batches)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


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
