"""m-sharpness: test error against ρ for each m, and what sharpness says of generalisation.

    python -m experiments.m_sharpness                   # a small CNN on Fashion-MNIST; 15 min
    python -m experiments.m_sharpness --preset smoke    # one short cell
    python -m experiments.m_sharpness --preset paper --device cuda   # CIFAR-10, all images

A grid of networks is trained by SAM with each ρ, ε shared by each m examples, and by SGD, all with
two weight decays. Of each network m-sharpness is measured for several m at one ρ, whatever it was
trained with. How much that says of the generalisation gap, training accuracy minus test accuracy,
is the normalised mutual information of Jiang et al. 2020 ("Fantastic generalization measures and
where to find them", section 2.2.3) over pairs of networks of one seed: see `information`. Every
(weight decay, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any, Literal, NamedTuple

import torch
import tyro
from torch import Tensor
from torch.nn import functional

from commentaries import params as p
from commentaries.curvature import Hessian
from commentaries.inner import SAM, SGD, InnerOptimizer
from commentaries.report.tables import text_table
from commentaries.student import Student
from commentaries.training import Recipe
from commentaries.training.students import student_for
from commentaries.types import Batch, Params

from .flat import (
    PAPER,
    SMOKE,
    Against,
    Sizes,
    images_of,
    print_verdict,
    scores_of,
    shown,
    suited,
    trained,
)
from .parallel import measure_all
from .sam_information import Information, information
from .store import Cell, Store

WEIGHT_DECAYS = (5e-4, 5e-3)


@dataclass(frozen=True)
class Grid:
    """How much is computed.

    Attributes:
        data: The images.
        student: The network.
        sizes: How many of them, and how it is trained.
        rhos: SAM's radii.
        groups: m of the training: examples that share an ε, the last one the whole batch.
        measured: m of the measure.
        rho: Of the measure.
        examples: Training examples of the measure, the same of each network.
    """

    data: str
    student: str
    sizes: Sizes
    rhos: tuple[float, ...]
    groups: tuple[int, ...]
    measured: tuple[int, ...] = (1, 4, 16, 64, 256)
    rho: float = 0.05
    examples: int = 256


SMALL = Grid(
    "fashion_mnist",
    "small_cnn",
    Sizes(1_600, 100, recipe=Recipe(steps=300, batch=64, weight_decay=5e-4, average=0.0)),
    (0.01, 0.02, 0.05, 0.1),
    (4, 16, 64),
)
SMOKING = replace(
    SMALL,
    sizes=replace(SMOKE, recipe=replace(SMALL.sizes.recipe, steps=20, batch=32)),
    rhos=(0.05, 0.2),
    groups=(8, 32),
    measured=(4, 32),
    examples=32,
)
LARGE = replace(
    SMALL,
    data="cifar10",
    student="conv2",
    sizes=replace(PAPER, recipe=replace(PAPER.recipe, passes=50, batch=256)),
    groups=(16, 64, 256),
    examples=2_048,
)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": a small CNN on 1,500 images. "smoke": one short cell. "paper": a CNN
            without normalisation on all of CIFAR-10, 50 epochs.
        seeds: Of the cells.
        name: Of the result file; what the measure says is in NAME_information.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "paper"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "m_sharpness"
    workers: int = 2
    device: str = "cpu"


class Planned(NamedTuple):
    """The networks of one weight decay and seed, and how much is computed where."""

    weight_decay: float
    seed: int
    grid: Grid
    device: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the cell is called in the results, but for the seed."""
        grid = self.grid
        return {"data": grid.data, "student": grid.student, "weight decay": self.weight_decay}


def cells(arguments: Arguments) -> list[Planned]:
    """The cells of a preset, all weight decays of the first seed before the second seed."""
    grid = {"small": SMALL, "smoke": SMOKING, "paper": LARGE}[arguments.preset]
    found = [
        Planned(decay, seed, grid, arguments.device)
        for seed in arguments.seeds
        for decay in WEIGHT_DECAYS
    ]
    return found[:1] if arguments.preset == "smoke" else found


def m_sharpness(student: Student, theta: Params, batch: Batch, m: int, rho: float) -> float:
    """Mean over groups of m examples of max L(θ + ε) - L(θ) over ‖ε‖ ≤ ρ, each with its own ε.

    Foret et al. 2021, section 4.1. The maximum is taken to first order, ε = ρ ∇L / ‖∇L‖, so that
    what is found is at most the maximum.

    Args:
        student: The network, without batch statistics.
        theta: Its parameters.
        batch: The examples, in groups as they come; an incomplete last group is left out.
        m: Examples of a group.
        rho: ρ.
    """

    def loss(theta: Params, phi: Params, batch: Batch) -> Tensor:
        return functional.cross_entropy(student(theta, batch.x), batch.y)

    climbing = SAM(SGD(1.0), rho)
    state = climbing.init(theta)
    rises = []
    with torch.no_grad():
        for start in range(0, batch.size - m + 1, m):
            group = batch.rows(slice(start, start + m))
            epsilon, _, before = climbing.epsilon(Hessian()(loss, {}, group), theta, state)
            assert before is not None  # the steepest direction needs a gradient
            rises.append(float(loss(p.add(theta, epsilon), {}, group) - before))
    return mean(rises)


def measure(planned: Planned) -> list[Cell]:
    """Every network of a weight decay and seed: its accuracy, its gap and its sharpness."""
    grid = planned.grid
    images = images_of(grid.data, grid.sizes, planned.seed, planned.device)
    student = student_for(images.train, grid.student)
    recipe = suited(grid.sizes.recipe, images.train, grid.student)
    recipe = replace(recipe, weight_decay=planned.weight_decay)
    some = torch.arange(grid.examples, device=images.train.x.device)
    looked_at = Batch(images.train.x[some], images.train.y[some], some)
    ways = [(0, 0.0), *((m, rho) for m in grid.groups for rho in grid.rhos)]
    found: list[Cell] = []
    for m, rho in ways:

        def optimizer(lr: float, m: int = m, rho: float = rho) -> InnerOptimizer[Any]:
            base = recipe.optimizer(lr)
            return SAM(base, rho, group=m) if m else base

        made = trained(student, images, recipe, optimizer, seed=planned.seed)
        scores: dict[str, Any] = scores_of(student, images, made)
        scores["gap"] = scores["training accuracy"] - scores["accuracy"]
        scores["error"] = 1 - scores["accuracy"]
        for size in grid.measured:
            value = m_sharpness(student, made.theta, looked_at, size, grid.rho)
            scores[_sharpness(size)] = value
        name = f"SAM, m = {m}" if m else "SGD"
        labels = planned.labels | {"rho": rho, "method": name, "seed": planned.seed}
        found.append(labels | scores)
    return found


def _sharpness(m: int) -> str:
    return f"sharpness, m = {m}"


def what_it_says(kept: Store, grid: Grid) -> list[Cell]:
    """For each data set, seed and m of the measure what it says of the gap."""
    networks: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    for cell in kept.cells:
        networks[cell["data"], cell["student"], cell["seed"]].append(cell)
    return [
        {"data": data, "student": student, "method": _sharpness(m), "seed": seed}
        | information(
            [cell[_sharpness(m)] for cell in group],
            [cell["gap"] for cell in group],
            [[cell[name] for cell in group] for name in ("method", "rho", "weight decay")],
        )._asdict()
        for (data, student, seed), group in networks.items()
        for m in grid.measured
    ]


def print_curves(kept: Store) -> None:
    """Mean test error against ρ, one column for each m."""
    methods = sorted({cell["method"] for cell in kept.cells}, key=lambda name: (len(name), name))
    lines = []
    for row in sorted({tuple(cell[name] for name in ROW) for cell in kept.cells}):
        where = dict(zip(ROW, row, strict=True))
        errors = [kept.by_seed("error", method=name, **where).values() for name in methods]
        lines.append([*shown(row), *(mean(each) if each else None for each in errors)])
    print(f"\ntest error\n{text_table([*ROW, *methods], lines)}")


ROW = ("data", "student", "weight decay", "rho")


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    planned = cells(arguments)
    grid = planned[0].grid
    kept = Store(
        arguments.name,
        labels=(*ROW, "method"),
        metrics=("error", "gap", "training accuracy", *map(_sharpness, grid.measured)),
        preset=arguments.preset,
        device=arguments.device,
    )
    left = [each for each in planned if not kept.has(each.seed, **each.labels)]
    measure_all(measure, left, kept, workers=arguments.workers)
    says = Store(
        f"{arguments.name}_information",
        labels=("data", "student", "method"),
        metrics=Information._fields,
        preset=arguments.preset,
        device=arguments.device,
    )
    says.cells.clear()  # of the grid as far as it was measured then
    says.add(what_it_says(kept, grid))
    print_curves(kept)
    whole = f"SAM, m = {grid.groups[-1]}"
    print_verdict(kept, ROW, [Against(f"SAM, m = {m}", whole) for m in grid.groups[:-1]])
    lines = [
        [*(row[name] for name in says.labels), row["metric"], row["value"]] for row in says.rows()
    ]
    print(
        f"\nwhat sharpness says of the gap\n{text_table([*says.labels, 'metric', 'value'], lines)}"
    )


if __name__ == "__main__":
    main()
