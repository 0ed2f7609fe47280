"""What a learning step costs with each commentary, beside one with example weights.

    python -m experiments.benchmarks.commentary                   # about 15 min on one core
    python -m experiments.benchmarks.commentary --preset smoke    # seconds
    python -m experiments.benchmarks.commentary --device cuda --students conv2 cbr resnet18

A learning step is one hypergradient and one step of the commentary's Adam. All variants run in
one process on the same tensors, in turn, and what should agree is compared before anything is
timed. The random images have the size of CIFAR-10's. Masks are judged through the masks, as they
are learned; nothing prices their area. The loops are those of `loops`.

Aims: the mixing table at most 1.25 times example weights, the U-Net mask twice that.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro

from commentaries.hypergradient import Hypergradient, Implicit, Unrolled
from commentaries.networks import build
from commentaries.report.tables import text_table
from commentaries.solvers import Neumann
from commentaries.student import Student
from commentaries.types import Batch

from ..store import Cell, Store
from .side_by_side import interleaved, named_device, operations, peak_memory, ratio
from .variants import LR, REFERENCE, Bench

CLASSES, CHANNELS, SIZE = 10, 3, 32
STEPS = 3

METHODS: dict[str, tuple[Hypergradient, int]] = {
    "implicit, 1 term": (Implicit(Neumann(1, LR, measure_residual=True)), 1),
    "implicit, 1 term, no residual": (Implicit(Neumann(1, LR, measure_residual=False)), 1),
    f"unrolled, {STEPS} steps": (Unrolled(), STEPS),
}
"""How the hypergradient is taken, and its student steps. The residual costs one product with H."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": as given. "smoke": the first student and seed, 16 images, 2 rounds.
        students: Names of `networks.build`.
        seeds: Each draws its own tensors, students and order of the variants.
        batch: Images to train on for each student step, and as many to be judged on.
        rounds: Timed steps of every variant for each seed.
        device: Where to compute: cpu or cuda.
        threads: Of torch's CPU kernels; torch's own choice if not given.
        name: Of the result file.
    """

    preset: Literal["paper", "smoke"] = "paper"
    students: tuple[str, ...] = ("conv2",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    batch: int = 128
    rounds: int = 30
    device: str = "cpu"
    threads: int | None = None
    name: str = "benchmark_commentary"

    def shortened(self) -> Arguments:
        """With what the preset scales down."""
        if self.preset == "paper":
            return self
        return replace(
            self,
            students=self.students[:1],
            seeds=self.seeds[:1],
            batch=min(self.batch, 16),
            rounds=2,
        )


LABELS = ("device", "student", "hypergradient", "batch", "variant")
METRICS = (
    "ratio",
    "lower quartile",
    "upper quartile",
    "ms",
    "peak MiB",
    "GFLOP",
    "disagreement, 1e-6",
)
"""Of a step: the ratio of its median time to that of example weights, the quartiles of this ratio
over the rounds, time, memory, operations, and the relative error of what is compared first."""

AIMS = {"mixing table": 1.25, "mixing table, Beta draws": 1.25, "U-Net mask": 2.5}
"""The most that the ratio should be."""


def measure(student: str, method: str, seed: int, arguments: Arguments) -> list[Cell]:
    """Every variant of one student, hypergradient and seed."""
    bench = bench_of(student, method, arguments.batch, seed, arguments.device)
    bench.check()
    steps: dict[str, Callable[[], object]] = {
        name: functools.partial(bench.step, name) for name in bench.variants
    }
    seconds = interleaved(steps, rounds=arguments.rounds, device=arguments.device, seed=seed)
    cells = []
    for name, step in steps.items():
        beside = ratio(seconds[name], seconds[REFERENCE])
        labels = labels_of(student, method, arguments) | {"variant": name, "seed": seed}
        figures = (
            *beside,
            1e3 * statistics.median(seconds[name]),
            peak_memory(step, arguments.device) / 2**20,
            operations(step) / 1e9,
            1e6 * bench.disagreement(name),
        )
        cells.append(labels | dict(zip(METRICS, figures, strict=True)))
    return cells


def bench_of(student: str, method: str, batch: int, seed: int, device: str) -> Bench:
    """Random images and labels, and a network by its name."""
    hypergradient, count = METHODS[method]
    generator = torch.Generator().manual_seed(seed)

    def drawn(first: int) -> Batch:
        x = torch.rand(batch, CHANNELS, SIZE, SIZE, generator=generator)
        y = torch.randint(CLASSES, (batch,), generator=generator)
        index = torch.arange(first, first + batch)
        return Batch(x.to(device), y.to(device), index.to(device), 0.5, seed=first)

    inner = [drawn(step * batch) for step in range(count)]
    network = Student(lambda: build(student, CLASSES, channels=CHANNELS, size=SIZE))
    return Bench(network, hypergradient, inner, drawn(0), classes=CLASSES, seed=seed)


def labels_of(student: str, method: str, arguments: Arguments) -> dict[str, Any]:
    """What the cells of a student and a hypergradient are called."""
    return {
        "device": named_device(arguments.device),
        "student": student,
        "hypergradient": method,
        "batch": arguments.batch,
    }


def run(given: Arguments) -> Store:
    """Measures what the result file does not hold yet."""
    arguments = given.shortened()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    kept = Store(
        arguments.name,
        labels=LABELS,
        metrics=METRICS,
        preset=arguments.preset,
        device=arguments.device,
    )
    left = [
        (student, method, seed)
        for seed in arguments.seeds
        for student in arguments.students
        for method in METHODS
        if not kept.has(seed, **labels_of(student, method, arguments))
    ]
    began = time.monotonic()
    for done, cell in enumerate(left, start=1):
        kept.add(measure(*cell, arguments))
        minutes = (time.monotonic() - began) / 60
        print(f"{done}/{len(left)} done in {minutes:.1f} min: {', '.join(map(str, cell))}")
    return kept


def verdict(kept: Store) -> list[list[Any]]:
    """The ratios that have an aim, with their 95 % intervals over the seeds."""
    return [
        [*(row[key] for key in LABELS), row["value"], row["low"], row["high"], aim]
        for row in kept.rows()
        if row["metric"] == "ratio" and (aim := AIMS.get(row["variant"])) is not None
    ]


def main() -> None:
    kept = run(tyro.cli(Arguments, description=__doc__))
    print(text_table([*LABELS, *METRICS], kept.table()))
    print(f"\n{text_table([*LABELS, 'ratio', 'low', 'high', 'at most'], verdict(kept))}")


if __name__ == "__main__":
    main()
