"""SGD against SAM and ASAM from scratch, with twice the steps for SGD.

    python -m experiments.sam                   # a small CNN, 5,000 images; half an hour on 2 cores
    python -m experiments.sam --preset smoke    # one short cell
    python -m experiments.sam --preset paper --device cuda   # the paper's networks, all images

Each method is tested at its last step ("accuracy") and at the point that did best on held-out
images ("picked"). ρ is the best of `experiments.sam_rho` on held-out images, of a seed that is not
used here; the preset "paper" has the published ones. Every (row, seed) is kept as soon as it is
measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import tyro

from commentaries.inner import InnerOptimizer
from commentaries.training import Augment
from commentaries.training.rho import Climbing
from commentaries.training.students import student_for

from .flat import (
    CLIMBING,
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

DATA = ("fashion_mnist", "cifar10", "cifar100")
AUGMENTS: tuple[Augment, ...] = ("flip_crop", "cutout", "autoaugment")
NETWORKS = ("wide_resnet", "shake_shake", "pyramidnet", "pyramidnet_shakedrop")
"""Of the preset "paper": WRN-28-10, Shake-Shake 26 2x96d, PyramidNet-272."""

BASE = "SGD, twice the steps"


class Row(NamedTuple):
    """What is trained on what."""

    data: str
    augment: Augment
    student: str = "conv2"


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": a small CNN on 5,000 images. "smoke": one short cell. "paper": the
            networks of Foret et al. 2021 on all images, 200 epochs; on one H100 about 4 h a cell
            for wide_resnet by its operations, 10 h and more for the others.
        seeds: Of the cells; 100 was used for ρ.
        networks: Of the preset "paper".
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "paper"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    networks: tuple[str, ...] = NETWORKS
    name: str = "sam"
    workers: int = 2
    device: str = "cpu"


class Planned(NamedTuple):
    """A row, a seed, and how much is computed where."""

    row: Row
    seed: int
    sizes: Sizes
    device: str


def cells(arguments: Arguments) -> list[Planned]:
    """The cells of a preset, every row of the first seed before the second seed."""
    networks = arguments.networks if arguments.preset == "paper" else ("conv2",)
    sizes = {"small": Sizes(), "paper": PAPER, "smoke": SMOKE}[arguments.preset]
    found = [
        Planned(Row(data, augment, network), seed, sizes, arguments.device)
        for seed in arguments.seeds
        for network in networks
        for data in DATA
        for augment in AUGMENTS
    ]
    return found[:1] if arguments.preset == "smoke" else found


def measure(planned: Planned) -> list[Cell]:
    """SGD, SAM and ASAM for one row and seed."""
    row, seed, sizes, device = planned
    images = images_of(row.data, sizes, seed, device)
    student = student_for(images.train, row.student)
    recipe = suited(sizes.recipe, images.train, row.student, row.augment)
    longer = replace(recipe, steps=2 * recipe.steps, passes=2 * recipe.passes)
    found = {BASE: trained(student, images, longer, longer.optimizer, seed=seed)}
    for name, climbing in CLIMBING.items():

        def optimizer(
            lr: float, climbing: Climbing = climbing, rho: float = sizes.rho[name][row.data]
        ) -> InnerOptimizer[Any]:
            return climbing(recipe.optimizer(lr), rho)

        found[name] = trained(student, images, recipe, optimizer, seed=seed)
    labels = row._asdict() | {"train": sizes.train, "seed": seed}
    return [
        labels | {"method": name} | scores_of(student, images, made) for name, made in found.items()
    ]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("data", "augment", "student", "train", "method"),
        metrics=("accuracy", "picked", "training accuracy", "minutes"),
        preset=arguments.preset,
        device=arguments.device,
    )
    left = [
        each
        for each in cells(arguments)
        if not kept.has(each.seed, **each.row._asdict(), train=each.sizes.train)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    pairs = [Against(name, BASE, metric) for name in CLIMBING for metric in ("accuracy", "picked")]
    print_verdict(kept, ("data", "augment", "student"), pairs)


if __name__ == "__main__":
    main()
