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
METHODS = {
    "mixing": (OURS, "no mixing", "standard mixup", "shuffled classes"),
    "masks": (OURS, "no mask", "centre window", "shuffled masks"),
}


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": conv4, 300 steps. "smoke": one short cell. "full": resnet18, 10,000 steps.
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
    """The cells of a preset."""
    found = []
    for seed in arguments.seeds:
        masked = masks.job_of(masks.Row("pasted_digits", "window"), seed, arguments.device)
        mixed = mixing.job_of(mixing.Row("cifar100"), seed, arguments.device)
        mixed = replace(mixed, alphas=(1.0,))  # what `experiments.mixing` picks, each time
        for kind, job in (("mixing", mixed), ("masks", masked)):
            steps = 10_000 if arguments.preset == "full" else 300
            job = replace(job, recipe=replace(RECIPE, steps=steps))
            if arguments.preset == "smoke":
                job = shortened(job)
            taught = "resnet18" if arguments.preset == "full" else "conv4"
            labels = {"commentary": kind, "data": job.data}
            found.append(Lessons(job, labels, (taught,), METHODS[kind]))
    return found


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
