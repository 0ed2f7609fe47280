"""Learned attention masks where it is known where to look, beside masks that were not learned.

    python -m experiments.masks                  # a small CNN, 8,000 images; an hour on 2 cores
    python -m experiments.masks --preset smoke   # one short cell
    python -m experiments.masks --preset full --device cuda   # ResNet-18, all images

The cue (photo, digit, colour or background) goes with the label in 90 % of the training and test
images (95 % of the backgrounds) and at random in the validation images, by which the masks are
judged. "shifted" is the test with a cue that misleads. Every (row, seed) is kept as soon as it is
measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import tyro

from commentaries.teaching.masking import ALL, BALANCED
from commentaries.teaching.methods import OURS
from commentaries.teaching.options import MaskName, MasksJob

from .lessons import Lessons, compare, print_verdict, shortened
from .store import Store


class Row(NamedTuple):
    """A data set, a kind of mask, and how the hypergradient is computed."""

    data: str
    mask: MaskName
    hypergradient: Literal["implicit", "unrolled"] = "implicit"

    @property
    def methods(self) -> tuple[str, ...]:
        """Unrolled, those that depend on what was learned: the others are those of implicit."""
        if self.hypergradient == "unrolled":
            return (OURS, "mean mask", "shuffled masks")
        return (OURS, *ALL, *BALANCED)


ROWS = (
    Row("pasted_digits", "window"),
    Row("swapped_backgrounds", "unet"),
    Row("coloured_mnist", "unet"),
    Row("pasted_digits", "window", "unrolled"),
)

METRICS = (
    "accuracy",
    "loss",
    "validation",
    "shifted",
    "worst_group",
    "mass",
    "pointing",
    "area",
)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": a small CNN on 8,000 images. "smoke": one short cell. "full": ResNet-18
            on 40,000 images; by its operations about 40 minutes a cell on one H100.
        seeds: Development used 100; these were run once, after the setting was frozen.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["paper", "smoke", "full"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "masks"
    workers: int = 2
    device: str = "cpu"


def cells(arguments: Arguments) -> list[Lessons]:
    """The cells of a preset, every seed of the first row before the second row."""
    return [_cell(row, seed, arguments) for row in ROWS for seed in arguments.seeds]


def job_of(row: Row, seed: int, device: str = "cpu") -> MasksJob:
    """The job of a row and a seed."""
    job = MasksJob(
        data=row.data,
        mask=row.mask,
        train=8_000,
        validation=2_000,
        test=2_000,
        seed=seed,
        student="conv2",
        device=device,
        correlation=0.95 if row.data == "swapped_backgrounds" else 0.9,
    )
    settings = replace(job.settings, outer_lr=3e-3 if row.mask == "window" else 1e-3)
    job = replace(job, settings=settings)
    if row.hypergradient == "implicit":
        return job
    steps, warm_up = settings.steps // 4, settings.warm_up // 4
    return replace(
        job, settings=replace(settings, terms=0, inner_steps=4, steps=steps, warm_up=warm_up)
    )


def _cell(row: Row, seed: int, arguments: Arguments) -> Lessons:
    job, taught = job_of(row, seed, arguments.device), "conv2"
    if arguments.preset == "full":
        job, taught = _full(job), "resnet18"
    elif arguments.preset == "smoke":
        short = shortened(job)
        assert isinstance(short, MasksJob)
        job = short
    labels = row._asdict() | {"train": job.train}
    return Lessons(job, labels, (taught,), row.methods)


def _full(job: MasksJob) -> MasksJob:
    recipe = replace(job.recipe, steps=10_000)
    return replace(
        job, train=40_000, validation=5_000, test=None, student="resnet18", recipe=recipe
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=("data", "mask", "hypergradient", "train", "taught", "method"),
        metrics=METRICS,
        preset=arguments.preset,
    )
    chosen = cells(arguments)
    compare(chosen[:1] if arguments.preset == "smoke" else chosen, kept, workers=arguments.workers)
    print_verdict(kept, "worst_group")


if __name__ == "__main__":
    main()
