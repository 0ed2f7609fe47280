"""Ordinary supervised training, by the same pure optimisers as everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from .. import params as p
from ..curvature.gradient import plain_gradient
from ..errors import NonFinite, check_fraction, check_not_negative, check_positive
from ..inner import SGD
from ..student import Student
from ..types import Batch, Params


@dataclass(frozen=True)
class Examples:
    """What a network is fitted to.

    Attributes:
        x: (n, ...) inputs.
        target: (n,) int64 labels or (n, classes) soft labels.
        weight: (n,) weights, not negative; those of a batch are divided by their sum.
    """

    x: Tensor
    target: Tensor
    weight: Tensor

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.weight)


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted: Nesterov momentum, a cosine schedule, weights averaged over time.

    Attributes:
        steps: Training steps.
        batch: Examples drawn for each step.
        lr: Learning rate at the start; it falls to zero along a half cosine.
        momentum: Of Nesterov's method.
        weight_decay: Coefficient of θ in the gradient.
        average: Decay of the averaged parameters for each step (they forget the start faster:
            see `warmed`).
        share: Share of the loss that anchors have together, in [0, 1).
    """

    steps: int = 400
    batch: int = 128
    lr: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-3
    average: float = 0.98
    share: float = 0.25

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "lr"):
            check_positive(name, getattr(self, name))
        check_fraction("momentum", self.momentum)
        check_fraction("average", self.average)
        check_fraction("share", self.share)
        check_not_negative("weight_decay", self.weight_decay)


def fit(
    student: Student,
    examples: Examples,
    recipe: Recipe,
    *,
    seed: int,
    anchors: Examples | None = None,
    watch: Callable[[int, Params], None] | None = None,
) -> Params:
    """Trains one network from scratch and returns its averaged parameters.

    Args:
        student: The network; its initial parameters are drawn from the seed.
        examples: Drawn without replacement, epoch after epoch.
        recipe: How.
        seed: Of the initial parameters, the order and dropout.
        anchors: Examples that enter every step whole, with ``recipe.share`` of the loss.
        watch: Called with the steps done and the averaged parameters, every 20 steps.

    Raises:
        NonFinite: The loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    theta = student.init(generator)
    average = theta
    optimizer = SGD(recipe.lr, recipe.momentum, True, recipe.weight_decay)
    state = optimizer.init(theta)
    own = examples.weight.mean().clamp_min(torch.finfo(examples.weight.dtype).tiny)
    share = recipe.share if anchors is not None else 0.0

    def loss(theta: Params, phi: Params, batch: Batch) -> Tensor:
        z = student(theta, batch.x, seed=batch.seed)
        drawn = len(batch.index)
        weight = examples.weight[batch.index]
        # A batch of hardly any weight does not get the whole say.
        weight = weight / weight.sum().clamp_min(0.2 * drawn * own)
        losses = functional.cross_entropy(z[:drawn], examples.target[batch.index], reduction="none")
        value = (1 - share) * (weight * losses).sum()
        if anchors is None:
            return value
        losses = functional.cross_entropy(z[drawn:], anchors.target, reduction="none")
        return value + share * (anchors.weight * losses).sum() / anchors.weight.sum()

    orders = _orders(examples.size, recipe.batch, generator)
    for step, index in enumerate(islice(orders, recipe.steps)):
        x = examples.x[index] if anchors is None else torch.cat([examples.x[index], anchors.x])
        batch = Batch(x, examples.target[index], index, seed=step)
        gradient, value = plain_gradient(loss, theta, {}, batch)
        if not bool(torch.isfinite(value)):
            raise NonFinite(
                f"The training loss is {float(value)} at step {step}. Lower the learning rate "
                f"(now {recipe.lr:g})."
            )
        cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimizer = SGD(recipe.lr * cosine, recipe.momentum, True, recipe.weight_decay)
        theta, state = optimizer.update(gradient, theta, state)
        average = p.lerp(average, theta, 1 - warmed(recipe.average, step))
        if watch is not None and (step + 1) % 20 == 0:
            watch(step + 1, average)
    return average


def warmed(decay: float, step: int) -> float:
    """Decay of a running average at a step: small at first, so that the start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def log_probabilities(student: Student, theta: Params, x: Tensor, *, seen: Tensor) -> Tensor:
    """Log-probabilities of the classes in evaluation mode, (n, classes).

    Args:
        student: The network.
        theta: Its parameters.
        x: (n, ...) inputs.
        seen: Training inputs, for the statistics of batch normalisation where there is any.
    """
    count = torch.arange(len(seen))
    batches = (Batch(seen[i], i, i) for i in count.split(256))
    buffers = student.statistics(theta, batches)
    pieces = [student(theta, piece, buffers=buffers) for piece in x.split(1024)]
    return torch.cat(pieces).log_softmax(dim=1)


def _orders(size: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of positions, epoch after epoch without the incomplete last one."""
    batch = min(batch, size)
    while True:
        order = torch.randperm(size, generator=generator)
        yield from order[: size - size % batch].split(batch)
