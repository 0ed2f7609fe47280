"""F(θ, φ), the stationarity residual of a training step, and products with its derivatives."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import params as p
from .. import tree
from ..curvature import Curvature, Linearised, linearise
from ..curvature.gradient import output_gradient
from ..problem import Composed
from ..types import Batch, GradFn, Loss, Params
from .result import Optimizer, optimizer_at


class Residual:
    """F at one point: what is computed depends on the products that are asked for.

    With no product with H, F is taken without a graph in θ: the memory of training. With the
    first, its graph is built, once for all products and for the training step at this point.

    Args:
        curvature: How ∇L is differentiated.
        inner: The training loss.
        optimizer: Whose F it is.
        theta: The point, a constant.
        phi: The commentary, which requires grad.
        batch: The examples.
        state: The optimiser's.
    """

    def __init__(
        self,
        curvature: Curvature,
        inner: Loss,
        optimizer: Optimizer,
        theta: Params,
        phi: Params,
        batch: Batch,
        state: Any,
    ):
        self._curvature, self._inner = curvature, inner
        self._optimizer = optimizer_at(optimizer, phi)
        self._of_phi = callable(optimizer)
        self._theta, self._phi, self._batch, self._state = theta, phi, batch, state
        self._last: _Evaluation | None = None

    def product(self, v: Params) -> Params:
        """Hᵀ v = (∂F/∂θ)ᵀ v."""
        return p.pull_back(self._graph.F, v, self._graph.theta)

    def mixed_product(self, x: Params) -> Params:
        """(∂F/∂φ)ᵀ x, meant as the last product: the graph goes before it needs memory."""
        found, self._last = self._evaluation, self._evaluation.detached()
        self.__dict__.pop("_graph", None)
        point = found.point
        if point is None:
            return p.pull_back(found.F, x, self._phi)
        lesson, point, found = point.lesson, point.without_graph(), self._last
        # F is a function of G = Jᵀ w(φ), and J does not know φ: (∂w/∂φ)ᵀ J (∂F/∂G)ᵀ x
        G = p.live(found.gradient)
        with torch.enable_grad():
            F = self._optimizer.stationarity(G, self._theta, found.state)
            v = p.pull_back(F, x, G)
            z = point.z.requires_grad_()
            weights, _ = output_gradient(point.inner, z, lesson)
        return p.pull_back({"w": weights}, {"w": point.push_forward(v)}, self._phi)

    @property
    def value(self) -> Params:
        """F, detached."""
        return p.detach(self._evaluation.F)

    @property
    def step(self) -> tuple[Params, Any, Tensor]:
        """The gradient to step with, the state and the loss of the first pass, detached."""
        found = self._evaluation.detached()
        return found.gradient, found.state, found.loss

    @cached_property
    def _graph(self) -> _Evaluation:
        return self._evaluate(p.live(self._theta))

    @cached_property
    def _plain(self) -> _Evaluation:
        return self._evaluate(self._theta)

    @property
    def _evaluation(self) -> _Evaluation:
        return self._last or (self._graph if "_graph" in self.__dict__ else self._plain)

    def _evaluate(self, theta: Params) -> _Evaluation:
        composed = self._inner if isinstance(self._inner, Composed) else None
        # without a graph in θ, the gradient function sees to the mixed product by itself
        watched = _Watched(composed) if composed and p.requires_grad(theta) else None
        inner = watched.inner if watched else self._inner
        calls = _Calls(self._curvature(inner, self._phi, self._batch), theta)
        with torch.enable_grad():
            gradient, state, loss = self._optimizer.gradient(calls, theta, self._state)
            F = self._optimizer.stationarity(gradient, theta, state)
        point = watched.point if watched and calls.only_give(gradient) else None
        if point and (self._of_phi or point.sees(self._phi)):
            point = None
        return _Evaluation(theta, F, gradient, state, loss, point)


class _Evaluation(NamedTuple):
    """F and what it was made of.

    ``point`` is the student linearised at θ, where φ enters F through the loss's weights alone:
    neither through the optimiser (SAM's ε, a rate that is learned) nor through the outputs. Else
    None.
    """

    theta: Params
    F: Params
    gradient: Params
    state: Any
    loss: Tensor
    point: Linearised | None

    def detached(self) -> _Evaluation:
        """The values alone."""
        return _Evaluation(
            p.detach(self.theta),
            p.detach(self.F),
            p.detach(self.gradient),
            tree.detach(self.state),
            self.loss.detach(),
            None,
        )


class _Calls:
    """A gradient function that knows whether its optimiser steps with ∇L(θ) as it is."""

    def __init__(self, grad_fn: GradFn, theta: Params):
        self._grad_fn, self._theta = grad_fn, theta
        self._calls: list[tuple[bool, Params]] = []

    @property
    def size(self) -> int:
        return self._grad_fn.size

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        gradient, loss = self._grad_fn(params, rows)
        self._calls.append((rows is None and _same(params, self._theta), gradient))
        return gradient, loss

    def only_give(self, gradient: Params) -> bool:
        """Whether one call was made, at θ and for all examples, and this is what it gave."""
        if len(self._calls) != 1:
            return False
        at_theta, given = self._calls[0]
        return at_theta and _same(given, gradient)


def _same(a: Params, b: Params) -> bool:
    """Whether two have the same tensors, not merely equal ones."""
    return a.keys() == b.keys() and all(a[name] is b[name] for name in a)


class _Watched:
    """A composed loss that keeps the last forward pass which was live to θ and φ."""

    def __init__(self, inner: Composed):
        self._watched = inner
        self.inner = replace(inner, outputs=self._outputs)
        self.point: Linearised | None = None

    def _outputs(self, theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Any]:
        if not (p.requires_grad(theta) and p.requires_grad(phi)):
            return self._watched.outputs(theta, phi, batch)
        self.point = linearise(self._watched, theta, phi, batch)
        return self.point.z, self.point.lesson
