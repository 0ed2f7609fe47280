"""Fine-tuning with frozen BatchNorm statistics: SGD against SAM.

    python -m experiments.fine_tuning                   # a small CNN; 15 min on 2 cores
    python -m experiments.fine_tuning --preset smoke    # one short cell
    python -m experiments.fine_tuning --preset paper --device cuda   # ResNet-18, all images

A network with batch normalisation is trained on CIFAR-100 by SGD, once for each seed. Each method
goes on from there on a few images of CIFAR-10 with a new last layer. Batch normalisation keeps the
means and variances of CIFAR-100, in training too (Foret et al. 2021, appendix); its scales and
shifts are trained. Every seed is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor, nn

from commentaries.inner import InnerOptimizer
from commentaries.student import Student
from commentaries.training import Recipe
from commentaries.training.students import network_for
from commentaries.types import Batch, Inputs, Params

from .flat import (
    CLIMBING,
    PAPER_RHO,
    SEEN,
    Against,
    Images,
    Sizes,
    images_of,
    print_verdict,
    scores_of,
    suited,
    trained,
)
from .parallel import measure_all
from .store import Cell, Store

SOURCE, TARGET = "cifar100", "cifar10"
BASE = "SGD, twice the steps"


@dataclass(frozen=True)
class Plan:
    """How much is computed.

    Attributes:
        student: The network.
        width: Of it.
        source: Images and training of the network that all start from.
        target: Images and training of what goes on from there; SGD also takes twice the steps.
    """

    student: str
    width: int
    source: Sizes
    target: Sizes


BEFORE = Recipe(steps=1_500, batch=64, weight_decay=5e-4, average=0.0, augment="flip_crop")
AFTER = replace(BEFORE, steps=400, lr=0.04)
SMALL = Plan("conv4", 16, Sizes(10_000, 500, 1_000, BEFORE), Sizes(2_500, 500, None, AFTER))
SMOKE = Plan(
    "conv4",
    4,
    Sizes(300, 100, 100, replace(BEFORE, steps=20)),
    Sizes(300, 100, 100, replace(AFTER, steps=20)),
)
PAPER = Plan(
    "resnet18",
    64,
    Sizes(50_000, 5_000, None, replace(BEFORE, passes=100, batch=128)),
    Sizes(50_000, 5_000, None, replace(AFTER, passes=20, batch=128), PAPER_RHO),
)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": a small CNN, 9,500 images and then 2,000. "smoke": one short cell.
            "paper": ResNet-18 on all images, 100 epochs and then 20.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "paper"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "fine_tuning"
    workers: int = 2
    device: str = "cpu"


class Planned(NamedTuple):
    """A seed, and how much is computed where."""

    seed: int
    plan: Plan
    device: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the cell is called in the results, but for the seed."""
        plan = self.plan
        return {"student": f"{plan.student}, width {plan.width}", "train": plan.target.train}


def cells(arguments: Arguments) -> list[Planned]:
    """The cells of a preset."""
    plan = {"small": SMALL, "smoke": SMOKE, "paper": PAPER}[arguments.preset]
    seeds = arguments.seeds[:1] if arguments.preset == "smoke" else arguments.seeds
    return [Planned(seed, plan, arguments.device) for seed in seeds]


class Pretrained(Student):
    """A student that begins with given parameters and always normalises by given statistics.

    Args:
        made: Builds the module.
        theta: Where it begins. Parameters that have another shape, those of a last layer for
            other classes, begin as the module's own.
        buffers: Running statistics for training and evaluation, of `Student.statistics`.
    """

    def __init__(self, made: Callable[[], nn.Module], theta: Params, buffers: Params):
        super().__init__(made)
        self._theta = theta
        self._buffers = buffers

    def init(self, generator: torch.Generator) -> Params:
        """The given parameters, those of the last layer drawn from the generator."""
        fresh = super().init(generator)
        return {
            name: self._theta[name].clone() if self._theta[name].shape == value.shape else value
            for name, value in fresh.items()
        }

    def __call__(
        self, theta: Params, x: Inputs, *, seed: int | None = None, buffers: Params | None = None
    ) -> Tensor:
        """The output with the given statistics, whatever ``buffers`` says."""
        return super().__call__(theta, x, seed=seed, buffers=self._buffers)

    def statistics(self, theta: Params, batches: Iterable[Batch]) -> Params:
        """The given ones."""
        return self._buffers


def pretrained(planned: Planned) -> tuple[Pretrained, dict[str, float]]:
    """The student that all methods start from, and what it scores on its own task."""
    plan, seed = planned.plan, planned.seed
    source = images_of(SOURCE, plan.source, seed, planned.device)
    student = Student(network_for(source.train, plan.student, width=plan.width))
    recipe = suited(plan.source.recipe, source.train, plan.student, "flip_crop")
    made = trained(student, source, recipe, recipe.optimizer, seed=seed)
    seen = source.train.x[:SEEN].split(256)
    batches = [Batch(x, torch.empty(len(x)), torch.arange(len(x))) for x in seen]
    statistics = student.statistics(made.theta, batches)
    renewed = network_for(source.train, plan.student, outputs=10, width=plan.width)
    start = Pretrained(renewed, made.theta, statistics)
    return start, scores_of(student, source, made)


def measure(planned: Planned) -> list[Cell]:
    """Pretrains, then SGD, SGD with twice the steps, SAM and ASAM from there."""
    plan = planned.plan
    images = images_of(TARGET, plan.target, planned.seed, planned.device)
    student, before = pretrained(planned)
    recipe = suited(plan.target.recipe, images.train, plan.student, "flip_crop")
    longer = replace(recipe, steps=2 * recipe.steps, passes=2 * recipe.passes)
    recipes = {"SGD": recipe, BASE: longer, **dict.fromkeys(CLIMBING, recipe)}
    labels = planned.labels | {"seed": planned.seed}
    found: list[Cell] = [labels | {"method": "before, on CIFAR-100"} | before]
    for name, how in recipes.items():
        found.append(labels | {"method": name} | _tuned(name, student, images, how, planned))
    return found


def _tuned(
    name: str, student: Student, images: Images, recipe: Recipe, planned: Planned
) -> dict[str, float]:
    """Scores of a method."""

    def optimizer(lr: float) -> InnerOptimizer[Any]:
        base = recipe.optimizer(lr)
        if name not in CLIMBING:
            return base
        return CLIMBING[name](base, planned.plan.target.rho[name][TARGET])

    made = trained(student, images, recipe, optimizer, seed=planned.seed)
    return scores_of(student, images, made)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("student", "train", "method"),
        metrics=("accuracy", "picked", "training accuracy", "minutes"),
        preset=arguments.preset,
        device=arguments.device,
    )
    left = [each for each in cells(arguments) if not kept.has(each.seed, **each.labels)]
    measure_all(measure, left, kept, workers=arguments.workers)
    bases = (("SGD", "accuracy"), (BASE, "accuracy"), (BASE, "picked"))
    pairs = [Against(name, *base) for name in CLIMBING for base in bases]
    print_verdict(kept, ("student", "train"), pairs)


if __name__ == "__main__":
    main()
