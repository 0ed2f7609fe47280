"""Arithmetic on named tensors. Pure, differentiable, and usable under ``torch.func.vmap``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .types import Params


def add(a: Params, b: Params, scale: float | Tensor = 1.0) -> Params:
    """a + scale · b."""
    if isinstance(scale, Tensor):
        return {name: value + scale * b[name] for name, value in a.items()}
    return {name: value.add(b[name], alpha=scale) for name, value in a.items()}


def add_emptying(a: Params, b: Params, scale: float) -> Params:
    """a + scale · b; takes every entry out of both, so that the sum needs no memory of its own."""
    return {name: a.pop(name).add(b.pop(name), alpha=scale) for name in list(a)}


def subtract(a: Params, b: Params) -> Params:
    """a - b."""
    return {name: value - b[name] for name, value in a.items()}


def scale(a: Params, factor: float | Tensor) -> Params:
    """factor · a."""
    return {name: factor * value for name, value in a.items()}


def dot(a: Params, b: Params) -> Tensor:
    """⟨a, b⟩ over all entries, a scalar."""
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()


def norm(a: Params) -> Tensor:
    """Euclidean norm over all entries, a scalar."""
    return torch.stack([value.square().sum() for value in a.values()]).sum().sqrt()


def zeros_like(a: Params) -> Params:
    """Zeros of the same names and shapes."""
    return {name: torch.zeros_like(value) for name, value in a.items()}


def random_like(a: Params, generator: torch.Generator) -> Params:
    """Independent standard normal entries; drawn on the generator's device, moved to a's."""
    return {
        name: torch.randn(
            value.shape, generator=generator, device=generator.device, dtype=value.dtype
        ).to(value.device)
        for name, value in a.items()
    }


def detach(a: Params) -> Params:
    """The same values, cut from any graph."""
    return {name: value.detach() for name, value in a.items()}


def live(a: Params) -> Params:
    """Detached aliases that require grad: fresh leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in a.items()}


def lerp(a: Params, b: Params, weight: float) -> Params:
    """a + weight · (b - a): one step of an exponential moving average."""
    return {name: value.lerp(b[name], weight) for name, value in a.items()}


def is_finite(a: Params) -> bool:
    """Whether every entry is finite."""
    return all(bool(torch.isfinite(value).all()) for value in a.values())


def requires_grad(a: Params) -> bool:
    """Whether any entry requires grad."""
    return any(value.requires_grad for value in a.values())


def flatten(a: Params) -> Tensor:
    """All entries in one vector, (total,), in the order of the names."""
    return torch.cat([value.reshape(-1) for value in a.values()])


def unflatten(vector: Tensor, like: Params) -> Params:
    """The inverse of `flatten`, with the names and shapes of ``like``."""
    pieces = vector.split([value.numel() for value in like.values()])
    return {
        name: piece.reshape(value.shape)
        for (name, value), piece in zip(like.items(), pieces, strict=True)
    }


def gradients(
    output: Tensor | Sequence[Tensor],
    inputs: Params,
    weights: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Params:
    """weightsᵀ ∂output/∂inputs by reverse mode; zeros where the output ignores an input."""
    found: Sequence[Tensor | None] = torch.autograd.grad(
        output,
        list(inputs.values()),
        weights,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=True,
    )
    return {
        name: torch.zeros_like(value) if grad is None else grad
        for (name, value), grad in zip(inputs.items(), found, strict=True)
    }


def joint_gradients(output: Tensor, a: Params, b: Params) -> tuple[Params, Params]:
    """∂output/∂a and ∂output/∂b in one backward pass; their names may coincide."""
    both = {f"{i}.{name}": value for i, part in enumerate((a, b)) for name, value in part.items()}
    found = list(gradients(output, both).values())
    return (
        dict(zip(a, found[: len(a)], strict=True)),
        dict(zip(b, found[len(a) :], strict=True)),
    )


def pull_back(outputs: Params, cotangent: Params, inputs: Params) -> Params:
    """cotangentᵀ ∂outputs/∂inputs through a graph that is kept for the next product."""
    alive = [name for name, value in outputs.items() if value.requires_grad]
    if not alive:
        return zeros_like(inputs)
    return gradients(
        [outputs[name] for name in alive],
        inputs,
        [cotangent[name] for name in alive],
        retain_graph=True,
    )
