"""The radius of SAM and ASAM for `experiments.sam`: the paper's grid, scored on held-out images.

    python -m experiments.sam_rho                   # a quarter of an hour on 2 cores
    python -m experiments.sam_rho --preset smoke    # one short cell

A tenth of the training images is held out. The seed is none of those that are reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import tyro

from commentaries.report.tables import text_table
from commentaries.training import RHOS, search_rho
from commentaries.training.students import student_for

from .flat import CLIMBING, SMOKE, Sizes, images_of, suited
from .parallel import measure_all
from .sam import DATA
from .store import Cell, Store

GRIDS = {"SAM": RHOS, "ASAM": tuple(10 * rho for rho in RHOS)}
"""ASAM's radius is in other units, about ten times as large (Kwon et al. 2021)."""


class Searched(NamedTuple):
    """One method on one data set."""

    data: str
    method: str
    seed: int
    sizes: Sizes


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": a small CNN on 5,000 images. "smoke": one short cell.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
    """

    preset: Literal["small", "smoke"] = "small"
    seeds: tuple[int, ...] = (100,)
    name: str = "sam_rho"
    workers: int = 2


def cells(arguments: Arguments) -> list[Searched]:
    """The cells of a preset."""
    sizes = SMOKE if arguments.preset == "smoke" else Sizes()
    found = [
        Searched(data, method, seed, sizes)
        for seed in arguments.seeds
        for data in DATA
        for method in GRIDS
    ]
    return found[:1] if arguments.preset == "smoke" else found


def measure(searched: Searched) -> list[Cell]:
    """The held-out accuracy of every radius of one method."""
    data, method, seed, sizes = searched
    images = images_of(data, replace(sizes, held_out=100), seed).train
    found = search_rho(
        student_for(images, "conv2"),
        images.x,
        images.y,
        suited(sizes.recipe, images, "conv2", "flip_crop"),
        seed=seed,
        rhos=GRIDS[method],
        climbing=CLIMBING[method],
    )
    labels = {"data": data, "method": method, "seed": seed}
    return [
        labels | {"rho": rho, "held out": accuracy, "chosen": float(rho == found.best)}
        for rho, accuracy in found.accuracy.items()
    ]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("data", "method", "rho"),
        metrics=("held out", "chosen"),
        preset=arguments.preset,
    )
    left = [
        each
        for each in cells(arguments)
        if not kept.has(each.seed, data=each.data, method=each.method)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    lines = [[row["data"], row["method"], row["rho"], row["value"]] for row in kept.rows()]
    print(text_table(["data", "method", "rho", "held out"], lines))


if __name__ == "__main__":
    main()
