"""What a step of sharpness-aware minimisation costs, beside the base step and its peers.

    python -m experiments.benchmarks.sam                   # about 15 min on one core
    python -m experiments.benchmarks.sam --preset smoke    # seconds
    python -m experiments.benchmarks.sam --device cuda --students conv2 resnet32 resnet18

Every variant trains its own copy of one network on the same random images of CIFAR-10's size with
SGD and Nesterov momentum, in turn in one process; a repetition is five steps, so that climbing at
every fifth step counts once in full. Before anything is timed, ours, the two-step code as users
write it and pytorch_optimizer's SAM take the same steps in double precision from the same weights,
and must end at the same weights.

Aims, as multiples of the base step: exact SAM at most 2.05 and no slower than either peer,
Momentum-SAM at most 1.1, an ascent at every fifth step at most 1.25.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional

from commentaries.inner import Momentum
from commentaries.networks import build
from commentaries.report.tables import text_table
from commentaries.training.optim import SAM

from ..store import Cell, Store
from .side_by_side import interleaved, named_device, peak_memory, ratio

CLASSES, CHANNELS, SIZE = 10, 3, 32
STEPS = 5
RHO = 0.05
SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}

BASE = "SGD"
OURS = "SAM"
PEERS = ("SAM, two-step code as users write it", "SAM, pytorch_optimizer")
AIMS = {OURS: 2.05, "Momentum-SAM": 1.1, "SAM, every 5th step": 1.25}
"""The most that the ratio to the base step should be."""

LABELS = ("device", "student", "batch", "variant")
METRICS = ("ratio", "lower quartile", "upper quartile", "ms", "peak MiB")
"""Of a step: the ratio of its median time to that of the base, the quartiles of this ratio over the
rounds, time and memory."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": as given. "smoke": the first student and seed, 8 images, 2 rounds.
        students: Names of `networks.build`.
        seeds: Each draws its own tensors, weights and order of the variants.
        batch: Images of a step.
        rounds: Timed repetitions of every variant for each seed.
        device: Where to compute: cpu or cuda.
        threads: Of torch's CPU kernels; torch's own choice if not given.
        name: Of the result file.
    """

    preset: Literal["paper", "smoke"] = "paper"
    students: tuple[str, ...] = ("conv2", "resnet32")
    seeds: tuple[int, ...] = (0, 1, 2)
    batch: int = 64
    rounds: int = 10
    device: str = "cpu"
    threads: int | None = None
    name: str = "benchmark_sam"

    def shortened(self) -> Arguments:
        """With what the preset scales down."""
        if self.preset == "paper":
            return self
        return replace(self, students=self.students[:1], seeds=self.seeds[:1], batch=8, rounds=2)


class Trained:
    """A network, its batch, and one way of taking a step."""

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor, step: StepOf):
        self.network = network
        self._x, self._y = x, y
        self._step = step(self)

    def closure(self) -> Tensor:
        """The loss, and its gradients beside those that are there."""
        loss = functional.cross_entropy(self.network(self._x), self._y)
        loss.backward()
        return loss

    def steps(self, count: int = STEPS) -> None:
        """Takes some steps."""
        for _ in range(count):
            self._step()


StepOf = Callable[[Trained], Callable[[], object]]
"""Builds the optimiser of a network, and returns what takes a step."""


def plain(trained: Trained) -> Callable[[], object]:
    """The base step."""
    optimizer = torch.optim.SGD(trained.network.parameters(), **SGD)

    def step() -> None:
        optimizer.zero_grad()
        trained.closure()
        optimizer.step()

    return step


def ours(trained: Trained, **options: Any) -> Callable[[], object]:
    """Our optimiser, with a closure."""
    network = trained.network
    optimizer = SAM(network.parameters(), torch.optim.SGD, rho=RHO, **options, **SGD)
    return partial(optimizer.step, trained.closure)


def two_step(trained: Trained) -> Callable[[], object]:
    """A loop over the parameters before and after the second pass, as in many a training script."""
    network = trained.network
    optimizer = torch.optim.SGD(network.parameters(), **SGD)

    def step() -> None:
        optimizer.zero_grad()
        trained.closure()
        old = {}
        with torch.no_grad():
            grads = [each.grad for each in network.parameters() if each.grad is not None]
            norm = torch.stack([grad.norm() for grad in grads]).norm()
            scale = RHO / (norm + 1e-12)
            for each in network.parameters():
                if each.grad is not None:
                    old[each] = each.detach().clone()
                    each.add_(each.grad * scale)
        optimizer.zero_grad()
        trained.closure()
        with torch.no_grad():
            for each, value in old.items():
                each.copy_(value)
        optimizer.step()

    return step


def peer(trained: Trained) -> Callable[[], object]:
    """pytorch_optimizer's."""
    import pytorch_optimizer

    parameters = trained.network.parameters()
    optimizer = pytorch_optimizer.SAM(parameters, torch.optim.SGD, rho=RHO, **SGD)

    def step() -> None:
        optimizer.zero_grad()
        trained.closure()
        optimizer.step(trained.closure)  # pyright: ignore[reportArgumentType]

    return step


VARIANTS: dict[str, StepOf] = {
    BASE: plain,
    OURS: ours,
    "Momentum-SAM": lambda trained: ours(trained, ascent=Momentum()),
    "SAM, every 5th step": lambda trained: ours(trained, every=5),
    PEERS[0]: two_step,
    PEERS[1]: peer,
}


def bench(student: str, seed: int, arguments: Arguments, *, dtype: torch.dtype) -> dict[str, Any]:
    """One trained copy for every variant."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(arguments.batch, CHANNELS, SIZE, SIZE, generator=generator, dtype=dtype)
    y = torch.randint(CLASSES, (arguments.batch,), generator=generator)
    torch.manual_seed(seed)
    network = build(student, CLASSES, channels=CHANNELS, size=SIZE).to(arguments.device, dtype)
    x, y = x.to(arguments.device), y.to(arguments.device)
    return {name: Trained(copy.deepcopy(network), x, y, step) for name, step in VARIANTS.items()}


def check(student: str, seed: int, arguments: Arguments) -> None:
    """Ours and the peers' end at the same weights, and not at those of the base."""
    copies = bench(student, seed, arguments, dtype=torch.float64)
    ends = {}
    for name in (BASE, OURS, *PEERS):
        copies[name].steps(3)
        ends[name] = torch.cat(
            [each.detach().flatten() for each in copies[name].network.parameters()]
        )
    for name in PEERS:
        apart = float((ends[name] - ends[OURS]).norm() / (ends[BASE] - ends[OURS]).norm())
        if not apart < 1e-6:
            raise AssertionError(f"{name} ends {apart:.2g} of the way from ours to {BASE}.")


def measure(student: str, seed: int, arguments: Arguments) -> list[Cell]:
    """Every variant of one student and seed."""
    check(student, seed, arguments)
    copies = bench(student, seed, arguments, dtype=torch.float32)
    steps = {name: trained.steps for name, trained in copies.items()}
    seconds = interleaved(steps, rounds=arguments.rounds, device=arguments.device, seed=seed)
    cells = []
    for name, step in steps.items():
        beside = ratio(seconds[name], seconds[BASE])
        figures = (
            *beside,
            1e3 * statistics.median(seconds[name]) / STEPS,
            peak_memory(step, arguments.device) / 2**20,
        )
        labels = labels_of(student, arguments) | {"variant": name, "seed": seed}
        cells.append(labels | dict(zip(METRICS, figures, strict=True)))
    return cells


def labels_of(student: str, arguments: Arguments) -> dict[str, Any]:
    """What the cells of a student are called."""
    return {
        "device": named_device(arguments.device),
        "student": student,
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
        (student, seed)
        for seed in arguments.seeds
        for student in arguments.students
        if not kept.has(seed, **labels_of(student, arguments))
    ]
    began = time.monotonic()
    for done, cell in enumerate(left, start=1):
        kept.add(measure(*cell, arguments))
        minutes = (time.monotonic() - began) / 60
        print(f"{done}/{len(left)} done in {minutes:.1f} min: {', '.join(map(str, cell))}")
    return kept


def main() -> None:
    kept = run(tyro.cli(Arguments, description=__doc__))
    lines = [[*line, AIMS.get(line[len(LABELS) - 1])] for line in kept.table()]
    print(text_table([*LABELS, *METRICS, "at most"], lines))


if __name__ == "__main__":
    main()
