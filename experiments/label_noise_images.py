"""Wrong labels in Fashion-MNIST and CIFAR-10: ours beside every control, one setting for all rows.

    python -m experiments.label_noise_images                  # about 2 h on 2 cores
    python -m experiments.label_noise_images --preset smoke   # one cell in a minute
    python -m experiments.label_noise_images --verdict        # what the file says of the claims
    python -m experiments.label_noise_images --preset full    # all of CIFAR-10, on an accelerator

The sets are read from $COMMENTARIES_DATA in torchvision's layout. Every (row, seed) is kept as
soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import tyro

from commentaries.cleaning.job import Job
from commentaries.cleaning.learner import Settings
from commentaries.training import Recipe

from .label_noise import compare


class Row(NamedTuple):
    """A data set and a kind of noise."""

    data: str
    noise: str
    rate: float


ROWS = (
    Row("fashion_mnist", "pair", 0.45),
    Row("cifar10", "pair", 0.45),
    Row("fashion_mnist", "block", 0.4),
    Row("cifar10", "block", 0.4),
    Row("fashion_mnist", "uniform", 0.4),
    Row("cifar10", "uniform", 0.4),
    Row("fashion_mnist", "asymmetric", 0.4),
    Row("fashion_mnist", "uniform", 0.6),
    Row("fashion_mnist", "uniform", 0.2),
)
"""The systematic kinds first: what is measured first is what can say most."""

FULL = tuple(row for row in ROWS if row.data == "cifar10")
"""Rows of the preset "full"."""

SIZES = {"fashion_mnist": (8_000, 100), "cifar10": (10_000, 500)}
"""Training and trusted examples."""

RECIPE = Recipe(steps=400, anchors=32)
SETTINGS = Settings(steps=300, batch=96, trusted_batch=48, weight_decay=5e-3, refresh_every=50)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": all rows. "smoke": one row, one seed, a tenth of the steps. "full": the
            whole of CIFAR-10 with 1,000 trusted examples and resnet32.
        seeds: Development used 100 to 102; 0 to 2 were run once, after the setting was frozen.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
        verdict: Only print what the file says of the claims.
    """

    preset: Literal["paper", "smoke", "full"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "label_noise_images"
    workers: int = 2
    device: str = "cpu"
    verdict: bool = False


def jobs(arguments: Arguments) -> list[Job]:
    """The cells of a preset, every row of the first seed before the second seed."""
    if arguments.preset == "full":
        return [_full(row, seed, arguments.device) for seed in arguments.seeds for row in FULL]
    if arguments.preset == "smoke":
        job = job_of(ROWS[0], arguments.seeds[0], arguments.device)
        settings = replace(job.settings, steps=30, warm_up=5)
        return [replace(job, train=1_000, settings=settings, recipe=replace(RECIPE, steps=40))]
    return [job_of(row, seed, arguments.device) for seed in arguments.seeds for row in ROWS]


def job_of(row: Row, seed: int, device: str = "cpu") -> Job:
    """The job of a row and a seed."""
    train, trusted = SIZES[row.data]
    return Job(
        data=row.data,
        noise=row.noise,
        rate=row.rate,
        train=train,
        trusted=trusted,
        test=2_000,
        student="conv2",
        seed=seed,
        device=device,
        settings=SETTINGS,
        recipe=RECIPE,
    )


def _full(row: Row, seed: int, device: str) -> Job:
    return replace(
        job_of(row, seed, device),
        train=49_000,
        trusted=1_000,
        test=None,
        student="resnet32",
        settings=replace(SETTINGS, steps=2_000, batch=128),
        recipe=Recipe(steps=8_000, anchors=32, augment="flip_crop"),
    )


def main() -> None:
    given = tyro.cli(Arguments, description=__doc__)
    compare(jobs(given), given.name, given.preset, workers=given.workers, verdict=given.verdict)


if __name__ == "__main__":
    main()
