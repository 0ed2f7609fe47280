"""Wrong labels in scikit-learn's digits: ours beside every control, one setting for all rows.

    python -m experiments.label_noise_digits                 # seeds 0-4, about 45 min on 2 cores
    python -m experiments.label_noise_digits --preset smoke  # one cell
    python -m experiments.label_noise_digits --verdict       # what the file says of the claims

Every (row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import tyro

from commentaries.cleaning.job import Job

from .label_noise import compare


class Row(NamedTuple):
    """A kind of noise and a number of trusted examples."""

    noise: str
    rate: float
    trusted: int


KINDS = (
    ("uniform", 0.2),
    ("uniform", 0.4),
    ("uniform", 0.6),
    ("uniform", 0.8),
    ("pair", 0.45),
    ("block", 0.4),
)
ROWS = (
    *(Row(*kind, trusted) for trusted in (20, 100) for kind in KINDS),
    Row("uniform", 0.4, 50),
    Row("pair", 0.45, 50),
)


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": all rows. "smoke": one row, one seed, a tenth of the steps.
        seeds: Development used 100 to 104; 0 to 4 were run once, after the setting was frozen.
        name: Of the result file.
        workers: Processes of one thread.
        verdict: Only print what the file says of the claims.
    """

    preset: Literal["paper", "smoke"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    name: str = "label_noise_digits"
    workers: int = 2
    verdict: bool = False


def jobs(arguments: Arguments) -> list[Job]:
    """The cells of a preset, every row of the first seed before the second seed."""
    if arguments.preset == "smoke":
        job = Job(rate=0.4, trusted=20, seed=arguments.seeds[0])
        return [replace(job, settings=replace(job.settings, steps=60, warm_up=5))]
    return [
        Job(noise=row.noise, rate=row.rate, trusted=row.trusted, seed=seed)
        for seed in arguments.seeds
        for row in ROWS
    ]


def main() -> None:
    given = tyro.cli(Arguments, description=__doc__)
    compare(jobs(given), given.name, given.preset, workers=given.workers, verdict=given.verdict)


if __name__ == "__main__":
    main()
