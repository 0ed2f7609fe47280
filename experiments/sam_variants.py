"""What matters in SAM: the second-order term, the norm, the direction, the number of ascent steps.

    python -m experiments.sam_variants                   # a small CNN on Fashion-MNIST; 15 min
    python -m experiments.sam_variants --preset smoke    # short cells
    python -m experiments.sam_variants --preset paper --device cuda   # WRN-28-10, all images

All take the same number of descent steps with the same batches, and climb equally far: p = ∞, whose
ε has entries of ±ρ, gets SAM's ρ divided by the square root of the number of parameters, so that ε
is as long as SAM's in the Euclidean norm, and n ascent steps go ρ / n each. "cosine" is that of the
gradient with the second-order term and the one without it, the mean over the training steps.
Every (method, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import tyro
from torch import Tensor

from commentaries.inner import SAM, InnerOptimizer, Random, Steepest
from commentaries.training.students import student_for
from commentaries.types import GradFn, Params

from .flat import (
    PAPER,
    SMOKE,
    Against,
    Sizes,
    images_of,
    print_verdict,
    scores_of,
    suited,
    trained,
)
from .parallel import measure_all
from .store import Cell, Store

DATA = "fashion_mnist"

VARIANTS: dict[str, Callable[[InnerOptimizer[Any], float, int], InnerOptimizer[Any]]] = {
    "SGD": lambda base, rho, count: base,
    "SAM": lambda base, rho, count: SAM(base, rho),
    "SAM, second order": lambda base, rho, count: SAM(base, rho, second_order=True),
    "SAM, p = ∞": lambda base, rho, count: SAM(base, rho / count**0.5, Steepest(math.inf)),
    "random direction": lambda base, rho, count: SAM(base, rho, Random()),
    "SAM, 2 ascent steps": lambda base, rho, count: SAM(base, rho, steps=2),
    "SAM, 3 ascent steps": lambda base, rho, count: SAM(base, rho, steps=3),
    "SAM, 5 ascent steps": lambda base, rho, count: SAM(base, rho, steps=5),
}
"""(base step, ρ, number of parameters) -> the optimiser."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": a small CNN on 5,000 images. "smoke": short cells. "paper": WRN-28-10 on
            all images, 200 epochs; on one H100 about 15 h a seed by its operations.
        seeds: Of the cells.
        rho: How far all climb; a label of the results. Foret et al.'s 0.05, because at the radius
            that does best in runs this short (`flat.SHORT_RHO`) variants would hardly differ.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "paper"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    rho: float = 0.05
    name: str = "sam_variants"
    workers: int = 2
    device: str = "cpu"


class Planned(NamedTuple):
    """A method, its seed, and how much is computed where."""

    method: str
    seed: int
    rho: float
    student: str
    sizes: Sizes
    device: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the cell is called in the results, but for the seed."""
        return {
            "student": self.student,
            "train": self.sizes.train,
            "rho": self.rho,
            "method": self.method,
        }


def cells(arguments: Arguments) -> list[Planned]:
    """The cells of a preset, every method of the first seed before the second seed."""
    sizes = {"small": Sizes(), "paper": PAPER, "smoke": SMOKE}[arguments.preset]
    student = "wide_resnet" if arguments.preset == "paper" else "conv2"
    seeds = arguments.seeds[:1] if arguments.preset == "smoke" else arguments.seeds
    return [
        Planned(method, seed, arguments.rho, student, sizes, arguments.device)
        for seed in seeds
        for method in VARIANTS
    ]


@dataclass(frozen=True)
class Noted:
    """SAM with the second-order term, which keeps the cosine of every step.

    Attributes:
        optimizer: SAM.
        cosines: Where they are kept.
    """

    optimizer: SAM
    cosines: list[Tensor]

    def init(self, params: Params) -> Any:
        """SAM's."""
        return self.optimizer.init(params)

    def gradient(self, grad_fn: GradFn, params: Params, state: Any) -> tuple[Params, Any, Tensor]:
        """SAM's."""
        gradient, state, loss = self.optimizer.gradient(grad_fn, params, state)
        self.cosines.append(state.cosine)
        return gradient, state, loss

    def stationarity(self, gradient: Params, params: Params, state: Any) -> Params:
        """SAM's."""
        return self.optimizer.stationarity(gradient, params, state)

    def update(self, gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        """SAM's."""
        return self.optimizer.update(gradient, params, state)


def measure(planned: Planned) -> list[Cell]:
    """One method with one seed."""
    images = images_of(DATA, planned.sizes, planned.seed, planned.device)
    student = student_for(images.train, planned.student)
    recipe = suited(planned.sizes.recipe, images.train, planned.student, "flip_crop")
    count = sum(value.numel() for value in student.parameters().values())
    cosines: list[Tensor] = []

    def optimizer(lr: float) -> InnerOptimizer[Any]:
        made = VARIANTS[planned.method](recipe.optimizer(lr), planned.rho, count)
        return Noted(made, cosines) if isinstance(made, SAM) and made.second_order else made

    made = trained(student, images, recipe, optimizer, seed=planned.seed)
    cosine = sum(float(each) for each in cosines) / len(cosines) if cosines else None
    labels = planned.labels | {"seed": planned.seed}
    return [labels | scores_of(student, images, made) | {"cosine": cosine}]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("student", "train", "rho", "method"),
        metrics=("accuracy", "picked", "training accuracy", "cosine", "minutes"),
        preset=arguments.preset,
        device=arguments.device,
    )
    left = [each for each in cells(arguments) if not kept.has(each.seed, **each.labels)]
    measure_all(measure, left, kept, workers=arguments.workers)
    pairs = [Against("SAM", "SGD")]
    pairs += [Against(name, "SAM") for name in VARIANTS if name not in ("SGD", "SAM")]
    print_verdict(kept, ("student", "train", "rho"), pairs)


if __name__ == "__main__":
    main()
