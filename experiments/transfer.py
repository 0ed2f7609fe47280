"""What was learned with a small student teaches a larger one.

    python -m experiments.transfer                  # conv2 teaches conv4; an hour on 2 cores
    python -m experiments.transfer --preset smoke   # one short cell
    python -m experiments.transfer --preset full --device cuda   # conv2 teaches resnet18

Mixing ratios on CIFAR-100 and attention masks for digits on photos, learned with conv2 as in
`experiments.mixing` and `experiments.masks`. Every (row, seed) is kept as soon as it is measured,
and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import tyro

from commentaries.teaching.methods import OURS
from commentaries.training import Recipe

from . import masks, mixing
from .lessons import Lessons, compare, shortened
from .store import Store

RECIPE = Recipe(batch=64, weight_decay=5e-4, warm_up=0.05)
Kind = Literal["masks", "mixing"]
METHODS: dict[Kind, tuple[str, ...]] = {
    "mixing": (OURS, "no mixing", "standard mixup", "shuffled classes"),
    "masks": (OURS, "no mask", "centre window", "shuffled masks"),
}


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": conv4, 300 steps. "smoke": one short cell. "full": resnet18, 10,000 steps;
            by its operations about 45 minutes for all cells on one H100.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["paper", "smoke", "full"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "transfer"
    workers: int = 2
    device: str = "cpu"


def cells(arguments: Arguments) -> list[Lessons]:
    """The cells of a preset, every seed of the masks before those of mixing."""
    return [
        _cell(kind, seed, arguments) for kind in ("masks", "mixing") for seed in arguments.seeds
    ]


def _cell(kind: Kind, seed: int, arguments: Arguments) -> Lessons:
    full = arguments.preset == "full"
    if kind == "masks":
        job = masks.job_of(masks.Row("pasted_digits", "window"), seed, arguments.device)
    else:
        job = mixing.job_of(mixing.Row("cifar100"), seed, arguments.device)
        job = replace(job, alphas=(1.0,))  # what `experiments.mixing` picks, each time
    job = replace(job, recipe=replace(RECIPE, steps=10_000 if full else 300))
    if arguments.preset == "smoke":
        job = shortened(job)
    taught = "resnet18" if full else "conv4"
    return Lessons(job, {"commentary": kind, "data": job.data}, (taught,), METHODS[kind])


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("commentary", "data", "taught", "method"),
        metrics=("accuracy", "loss", "validation", "shifted", "worst_group", "mass", "pointing"),
        preset=arguments.preset,
    )
    chosen = cells(arguments)
    compare(chosen[:1] if arguments.preset == "smoke" else chosen, kept, workers=arguments.workers)


if __name__ == "__main__":
    main()
