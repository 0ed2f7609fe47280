"""The bilevel problem: what the student minimises, and what judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .types import Batch, Loss, Params


@dataclass(frozen=True)
class Bilevel:
    """min_φ L_V(θ*(φ), φ) subject to θ*(φ) = argmin_θ L_T(θ, φ).

    Attributes:
        inner: L_T(θ, φ, batch), the student's training loss.
        outer: L_V(θ, φ, batch), its validation loss.
    """

    inner: Loss
    outer: Loss


@dataclass(frozen=True)
class Composed:
    """A loss that shows its insides, L = loss(z, held, lesson) with (z, lesson) = outputs(θ, φ).

    ``held`` has the value of z. It is a constant to ∇_θ L, but live to every derivative of that
    gradient: a weight that is a function of the loss (Meta-Weight-Net) does not pull on the
    student, and yet its change with θ belongs in the Hessian. `commentaries.curvature` sees to
    that; called as a plain loss, only ∇_θ is taken and ``held`` is z without its graph.

    Attributes:
        outputs: (θ, φ, batch) -> (z, lesson), z of shape (n, ...).
        loss: (z, held, lesson) -> scalar mean over the examples.
    """

    outputs: Callable[[Params, Params, Batch], tuple[Tensor, Any]]
    loss: Callable[[Tensor, Tensor, Any], Tensor]

    def __call__(self, theta: Params, phi: Params, batch: Batch) -> Tensor:
        """The scalar loss."""
        z, lesson = self.outputs(theta, phi, batch)
        return self.loss(z, z.detach(), lesson)


def autocast(problem: Bilevel, dtype: torch.dtype = torch.bfloat16) -> Bilevel:
    """The same problem with the student's passes, and so every product, in reduced precision.

    θ and φ stay as they are (float32), and so do gradients, products and what a solver adds up;
    matrix products and convolutions inside run in ``dtype``. Of a `Composed` loss the outputs are
    taken in reduced precision, the loss of them in full.
    """

    def reduced(function: Callable[[Params, Params, Batch], Any]) -> Callable[..., Any]:
        def call(theta: Params, phi: Params, batch: Batch) -> Any:
            device = next(iter(theta.values())).device.type
            # without its cache of weights, which would outlive a change of mode
            with torch.autocast(device, dtype, cache_enabled=False):
                return function(theta, phi, batch)

        return call

    def wrapped(loss: Loss) -> Loss:
        if not isinstance(loss, Composed):
            plain = reduced(loss)
            return lambda theta, phi, batch: plain(theta, phi, batch).float()
        outputs = reduced(loss.outputs)

        def full(theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Any]:
            z, lesson = outputs(theta, phi, batch)
            return z.float(), lesson

        return Composed(full, loss.loss)

    return Bilevel(wrapped(problem.inner), wrapped(problem.outer))
