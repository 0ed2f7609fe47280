"""What comparisons of sharpness-aware students share: images, training, scores, who is ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from commentaries.data import LabelledImages, load, split
from commentaries.inner import SAM, Adaptive, InnerOptimizer
from commentaries.report.tables import Cell, mean_interval, text_table
from commentaries.student import Student
from commentaries.training import Augment, Examples, Recipe, fit, log_probabilities
from commentaries.training.rho import Climbing
from commentaries.training.students import rate_scale
from commentaries.types import Params

from .store import Store

Radii = dict[str, dict[str, float]]
"""Method -> data -> ρ."""

SHORT_RHO: Radii = {
    "SAM": {"fashion_mnist": 0.01, "cifar10": 0.01, "cifar100": 0.01},
    "ASAM": {"fashion_mnist": 0.1, "cifar10": 0.1, "cifar100": 0.1},
}
"""Found by `experiments.sam_rho`: in runs this short, the lower end of the paper's grid."""

PAPER_RHO: Radii = {
    "SAM": {"fashion_mnist": 0.05, "cifar10": 0.05, "cifar100": 0.05},
    "ASAM": {"fashion_mnist": 0.5, "cifar10": 0.5, "cifar100": 1.0},
}
"""Foret et al.'s default; Kwon et al.'s, who have no Fashion-MNIST."""

SEEN = 2_000
"""Training images for the statistics of batch normalisation on the way."""

SHORT = Recipe(steps=800, batch=64, weight_decay=5e-4, warm_up=0.1, average=0.0)
"""Without the slow start, students without normalisation that climb by 0.1 stay at chance."""


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    Attributes:
        train: Training images, the held-out ones among them.
        held_out: Of them.
        test: Test images; all if None.
        recipe: How students are trained.
        rho: How far SAM and ASAM climb.
    """

    train: int = 5_000
    held_out: int = 500
    test: int | None = None
    recipe: Recipe = SHORT
    rho: Radii = field(default_factory=lambda: SHORT_RHO)


PAPER = Sizes(
    50_000, 5_000, recipe=replace(SHORT, passes=200, batch=128, warm_up=0.0), rho=PAPER_RHO
)
SMOKE = Sizes(300, 100, 100, replace(SHORT, steps=40))


class Images(NamedTuple):
    """What is trained on, what epochs and radii are picked by, and what is tested."""

    train: LabelledImages
    held_out: LabelledImages
    test: LabelledImages


def images_of(data: str, sizes: Sizes, seed: int, device: str = "cpu") -> Images:
    """The images of a cell."""
    whole, test = load(data), load(data, "test")
    kept = sizes.train - sizes.held_out
    rows = split(whole.y, train=kept, trusted=sizes.held_out, test=0, seed=seed)
    parts = (
        whole.rows(rows.train),
        whole.rows(rows.trusted),
        test if sizes.test is None else test.rows(torch.arange(sizes.test)),
    )
    return Images(*(part.to(device) for part in parts))


def suited(
    recipe: Recipe, images: LabelledImages, student: str, augment: Augment = "none"
) -> Recipe:
    """A recipe with the learning rate of a network."""
    return replace(recipe, lr=recipe.lr * rate_scale(images, student), augment=augment)


def asam(base: InnerOptimizer[Any], rho: float) -> SAM:
    """ASAM, with Kwon et al.'s η and choice of parameters."""
    return SAM(base, rho, Adaptive(0.01, only=lambda name: "weight" in name))


CLIMBING: dict[str, Climbing] = {"SAM": SAM, "ASAM": asam}


class Trained(NamedTuple):
    """A student at its last step, where it did best on held-out images, and what that took."""

    theta: Params
    picked: Params
    minutes: float


def trained(
    student: Student,
    images: Images,
    recipe: Recipe,
    optimizer: Callable[[float], InnerOptimizer[Any]],
    *,
    seed: int,
    examples: Examples | None = None,
    anchors: Examples | None = None,
) -> Trained:
    """Trains one student, and looks at the held-out images twenty times on the way.

    Args:
        student: The network.
        images: Those to train on and those held out.
        recipe: How long and how fast.
        optimizer: How a step with a given learning rate is taken.
        seed: Of all that is random.
        examples: What it is fitted to; the training images with equal weights if not given.
        anchors: See `fit`.
    """
    began = time.monotonic()
    examples = examples or plain(images.train)
    seen = examples.x[:SEEN]
    every = max(recipe.steps_for(examples.size) // 20 // 20 * 20, 20)
    best: tuple[float, Params] = (-1.0, {})

    def watch(step: int, theta: Params) -> None:
        nonlocal best
        if step % every == 0:
            accuracy = accuracy_of(student, theta, images.held_out, seen)
            best = max(best, (accuracy, theta), key=lambda each: each[0])

    theta = fit(
        student, examples, recipe, seed=seed, anchors=anchors, watch=watch, optimizer=optimizer
    )
    return Trained(theta, best[1] or theta, (time.monotonic() - began) / 60)


def plain(images: LabelledImages) -> Examples:
    """Images with their labels and equal weights."""
    return Examples(images.x, images.y, torch.ones(len(images), device=images.x.device))


def scores_of(student: Student, images: Images, made: Trained) -> dict[str, float]:
    """What a trained student scores."""
    seen = images.train.x
    return {
        "accuracy": accuracy_of(student, made.theta, images.test, seen),
        "picked": accuracy_of(student, made.picked, images.test, seen),
        "held out": accuracy_of(student, made.theta, images.held_out, seen),
        "training accuracy": accuracy_of(student, made.theta, images.train, seen),
        "minutes": made.minutes,
    }


def accuracy_of(
    student: Student, theta: Params, images: LabelledImages, seen: torch.Tensor
) -> float:
    """Share of right answers."""
    answers = log_probabilities(student, theta, images.x, seen=seen).argmax(1)
    return float((answers == images.y).double().mean())


class Against(NamedTuple):
    """Two methods that are compared by accuracy.

    Attributes:
        method: The one.
        base: The other.
        metric: What is taken as the accuracy of the other.
    """

    method: str
    base: str
    metric: str = "accuracy"


def print_verdict(kept: Store, rows: Sequence[str], pairs: Sequence[Against]) -> None:
    """What one method is ahead of another by, with the 95 % interval over the seeds.

    Differences are taken seed by seed: both share images and initial parameters.

    Args:
        kept: What was measured.
        rows: The labels besides the method by which results are told apart.
        pairs: What is compared with what.
    """
    lines = []
    for values in sorted({tuple(cell[name] for name in rows) for cell in kept.cells}):
        row = dict(zip(rows, values, strict=True))
        for method, base, metric in pairs:
            own = kept.by_seed("accuracy", method=method, **row)
            other = kept.by_seed(metric, method=base, **row)
            if own.keys() & other.keys():
                name = base if metric == "accuracy" else f"{base}, {metric}"
                lines.append([*shown(values), method, name, *ahead(own, other)])
    print(text_table([*rows, "method", "against", "ahead", "±", "seeds"], lines))


def shown(labels: Sequence[Any]) -> list[str]:
    """Labels for a table, numbers with all their digits."""
    return [f"{label:g}" if isinstance(label, float) else str(label) for label in labels]


def ahead(own: dict[int, float], other: dict[int, float]) -> list[Cell]:
    """Mean difference over the seeds that both have, half of its interval, and their number."""
    apart = [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
    found = mean_interval(apart)
    return [found.mean, found.high - found.mean if len(apart) > 1 else None, len(apart)]
