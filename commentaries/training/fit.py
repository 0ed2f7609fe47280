"""Ordinary supervised training, by the same pure optimisers as everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from .. import params as p
from .. import tree
from ..commentary.lesson import Commentary, Criterion, cross_entropy, taught
from ..curvature import Hessian
from ..errors import NonFinite, check_fraction, check_not_negative, check_positive, unknown
from ..inner import SAM, SGD, InnerOptimizer
from ..student import Student
from ..types import Batch, Loss, Params
from .augment import Augment, augmented


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

    def to(self, device: torch.device) -> Examples:
        """The same examples on a device."""
        return Examples(self.x.to(device), self.target.to(device), self.weight.to(device))


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted: Nesterov momentum, a cosine schedule, weights averaged over time.

    With ``rho`` each step is one of sharpness-aware minimisation, at twice the cost.

    Attributes:
        steps: Training steps, at least.
        passes: Passes over the examples, at least.
        batch: Examples drawn for each step.
        lr: Greatest learning rate; it falls to zero along a half cosine.
        warm_up: Share of the steps in which it rises to that from zero, in [0, 1). Networks
            without normalisation may die of a full first step: all answers become alike.
        momentum: Of Nesterov's method.
        weight_decay: Coefficient of θ in the gradient.
        rho: How far `inner.SAM` climbs before each step, often 0.05 to 0.2; 0 does not climb.
        average: Decay of the averaged parameters for each step (they forget the start faster:
            see `warmed`).
        share: Share of the loss that anchors have together, in [0, 1).
        anchors: Of the anchors, how many enter each step, at most.
        augment: "flip_crop": half of the images of each step are mirrored, and each is moved by
            up to four pixels; not for digits or letters. "cutout" hides a square of each image
            besides, and "autoaugment" also changes shapes and colours by the policy for CIFAR-10
            (see `augment`).
    """

    steps: int = 400
    passes: int = 0
    batch: int = 128
    lr: float = 0.2
    warm_up: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-3
    rho: float = 0.0
    average: float = 0.98
    share: float = 0.25
    anchors: int = 128
    augment: Augment = "none"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "lr", "anchors"):
            check_positive(name, getattr(self, name))
        check_fraction("warm_up", self.warm_up)
        check_fraction("momentum", self.momentum)
        check_fraction("average", self.average)
        check_fraction("share", self.share)
        check_not_negative("weight_decay", self.weight_decay)
        check_not_negative("passes", self.passes)
        check_not_negative("rho", self.rho)
        if self.augment not in get_args(Augment):
            raise unknown("augmentation", self.augment, get_args(Augment))

    def steps_for(self, size: int) -> int:
        """Training steps on so many examples."""
        return max(self.steps, math.ceil(self.passes * size / self.batch))

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step."""
        risen = min((step + 1) / (self.warm_up * steps), 1.0) if self.warm_up else 1.0
        return self.lr * risen * 0.5 * (1 + math.cos(math.pi * step / steps))

    def optimizer(self, lr: float) -> InnerOptimizer[Any]:
        """How a step with this learning rate is taken."""
        base = SGD(lr, self.momentum, bool(self.momentum), self.weight_decay)
        return SAM(base, self.rho) if self.rho else base


def fit(
    student: Student,
    examples: Examples,
    recipe: Recipe,
    *,
    seed: int,
    anchors: Examples | None = None,
    watch: Callable[[int, Params], None] | None = None,
    optimizer: Callable[[float], InnerOptimizer[Any]] | None = None,
) -> Params:
    """Trains one network from scratch and returns its averaged parameters.

    It computes where the inputs of the examples are. What is random is drawn on the CPU and so
    does not depend on the device, but for dropout and the like.

    Args:
        student: The network; its initial parameters are drawn from the seed.
        examples: Drawn without replacement, epoch after epoch.
        recipe: How.
        seed: Of the initial parameters, the order and dropout.
        anchors: Examples that enter every step, with ``recipe.share`` of the loss.
        watch: Called with the steps done and the averaged parameters, every 20 steps.
        optimizer: How a step with a given learning rate is taken; the recipe's own way if not
            given.

    Raises:
        NonFinite: The loss is not finite.
    """
    device = examples.x.device
    examples = examples.to(device)
    anchors = None if anchors is None else anchors.to(device)
    generator = torch.Generator().manual_seed(seed)
    theta = _drawn(student, generator, device)
    own = examples.weight.mean().clamp_min(torch.finfo(examples.weight.dtype).tiny)
    share = recipe.share if anchors is not None else 0.0

    def loss(chosen: Tensor | slice, theta: Params, phi: Params, batch: Batch) -> Tensor:
        z = student(theta, batch.x, seed=batch.seed)
        drawn = len(batch.index)
        weight = examples.weight[batch.index]
        # A batch of hardly any weight does not get the whole say.
        weight = weight / weight.sum().clamp_min(0.2 * drawn * own)
        losses = functional.cross_entropy(z[:drawn], examples.target[batch.index], reduction="none")
        value = (1 - share) * (weight * losses).sum()
        if anchors is None:
            return value
        losses = functional.cross_entropy(z[drawn:], anchors.target[chosen], reduction="none")
        weight = anchors.weight[chosen]
        return value + share * (weight * losses).sum() / weight.sum()

    def draws() -> Iterator[tuple[Loss, Batch]]:
        for step, index in enumerate(_orders(examples.size, recipe.batch, generator, device)):
            x, chosen = examples.x[index], slice(None)
            if anchors is not None:
                chosen = _chosen(anchors.size, recipe.anchors, generator, device)
                x = torch.cat([x, anchors.x[chosen]])
            x = _augmented(x, recipe, seed, step)
            yield partial(loss, chosen), Batch(x, examples.target[index], index, seed=step)

    steps = recipe.steps_for(examples.size)
    return _descend(theta, {}, draws(), recipe, steps, watch=watch, optimizer=optimizer)


def follow(
    student: Student,
    commentary: Commentary,
    phi: Params,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    criterion: Criterion = cross_entropy,
) -> Params:
    """Trains one network from scratch on the lessons of a frozen commentary.

    As `fit`: it computes where x is, and returns the averaged parameters.

    Args:
        student: The network; its initial parameters are drawn from the seed.
        commentary: What the student is shown of each batch; ``progress`` of the batches runs from
            0 to 1.
        phi: The commentary's parameters, which stay.
        x: (n, ...) inputs.
        y: (n,) labels, or whatever targets the commentary reads.
        recipe: How; there are no anchors.
        seed: Of the initial parameters, the order and everything random in the lessons.
        criterion: The losses of the student.

    Raises:
        NonFinite: The loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    theta = _drawn(student, generator, x.device)
    inner = taught(student, commentary, criterion)
    steps = recipe.steps_for(len(x))

    def draws() -> Iterator[tuple[Loss, Batch]]:
        for step, index in enumerate(_orders(len(x), recipe.batch, generator, x.device)):
            shown = _augmented(x[index], recipe, seed, step)
            yield inner, Batch(shown, y[index], index, step / steps, seed * 1_000_003 + step)

    return _descend(theta, phi, draws(), recipe, steps)


def _descend(
    theta: Params,
    phi: Params,
    draws: Iterator[tuple[Loss, Batch]],
    recipe: Recipe,
    steps: int,
    *,
    watch: Callable[[int, Params], None] | None = None,
    optimizer: Callable[[float], InnerOptimizer[Any]] | None = None,
) -> Params:
    """Steps along a cosine schedule, each on its own loss and batch; the averaged parameters."""
    average = theta
    optimizer = optimizer or recipe.optimizer
    state = optimizer(recipe.lr).init(theta)
    for step, (loss, batch) in enumerate(islice(draws, steps)):
        now = optimizer(recipe.rate(step, steps))
        with torch.no_grad():
            gradient, state, value = now.gradient(Hessian()(loss, phi, batch), theta, state)
            if not bool(torch.isfinite(value)):
                raise NonFinite(
                    f"The training loss is {float(value)} at step {step}. Lower the learning rate "
                    f"(now {recipe.lr:g})."
                )
            theta, state = now.update(gradient, theta, state)
            average = p.lerp(average, theta, 1 - warmed(recipe.average, step))
        if watch is not None and (step + 1) % 20 == 0:
            watch(step + 1, average)
    return average


def _drawn(student: Student, generator: torch.Generator, device: torch.device) -> Params:
    return tree.map_tensors(lambda leaf: leaf.to(device), student.init(generator))


def _augmented(x: Tensor, recipe: Recipe, seed: int, step: int) -> Tensor:
    return augmented(x, recipe.augment, seed=seed * 1_000_003 + step)


def warmed(decay: float, step: int) -> float:
    """Decay of a running average at a step: small at first, so that the start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def log_probabilities(student: Student, theta: Params, x: Tensor, *, seen: Tensor) -> Tensor:
    """Log-probabilities of the classes in evaluation mode, (n, classes), on the device of x.

    It computes where the parameters are.

    Args:
        student: The network.
        theta: Its parameters.
        x: (n, ...) inputs.
        seen: Training inputs, for the statistics of batch normalisation where there is any.
    """
    device = next(iter(theta.values())).device
    count = torch.arange(len(seen), device=seen.device)
    batches = (Batch(seen[i].to(device), i, i) for i in count.split(256))
    buffers = student.statistics(theta, batches)
    pieces = [student(theta, piece.to(device), buffers=buffers) for piece in x.split(1024)]
    return torch.cat(pieces).log_softmax(dim=1).to(x.device)


def _orders(
    size: int, batch: int, generator: torch.Generator, device: torch.device
) -> Iterator[Tensor]:
    """Batches of positions, epoch after epoch without the incomplete last one."""
    batch = min(batch, size)
    while True:
        order = torch.randperm(size, generator=generator).to(device)
        yield from order[: size - size % batch].split(batch)


def _chosen(
    size: int, most: int, generator: torch.Generator, device: torch.device
) -> Tensor | slice:
    """The anchors of a step: all, or as many as there may be."""
    if size <= most:
        return slice(None)
    return torch.randperm(size, generator=generator)[:most].to(device)
