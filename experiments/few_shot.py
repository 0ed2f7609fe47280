"""MAML, learned step sizes and learned weights of support examples, on Omniglot and CIFAR-FS.

    python -m experiments.few_shot                  # small networks, few meta-steps; 2 core-hours
    python -m experiments.few_shot --preset smoke   # one short cell of each kind
    python -m experiments.few_shot --preset paper --device cuda

On CIFAR-FS, methods are compared with clean and with wrong support labels, on tasks of its test
classes and then of CIFAR-10's. With one shot no example has another of its label to be compared
with, so labels are wrong with five shots only. Two controls say whether the weights help or merely
the size of the steps: learned step sizes without weights, and "equal weights", the initialisation
that was learned with weights, adapted with the mean of each step's weights.

On Omniglot, MAML stands beside learn2learn after as many meta-steps and after as many seconds of
the processor. Every (row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import tyro

from commentaries.data import load
from commentaries.fewshot import START, Evaluation, meta_train, part, under
from commentaries.inner import Adam
from commentaries.report.tables import mean_interval, text_table
from commentaries.teaching.few_shot import (
    EQUAL,
    OURS,
    Prepared,
    batched_of,
    begun,
    evaluated,
    prepare,
)
from commentaries.teaching.few_shot_options import FewShotJob
from commentaries.types import Params

from .benchmarks import peers
from .parallel import measure_all
from .store import Cell, Store

METHODS: dict[str, dict[str, Any]] = {
    "MAML": {},
    "learned rates": {"learn_rates": True},
    "weights": {"commentary": "losses"},
    "weights and rates": {"commentary": "losses", "learn_rates": True},
}
NO_WEIGHTS = ("MAML", "learned rates")

LABELS = ("data", "shot", "wrong", "meta_steps", "method")
METRICS = ("accuracy", "elsewhere", "clean_weight", "wrong_weight", "seconds")
"""Accuracy on the test classes and on those of CIFAR-10, mean weights of support examples at the
last step, and the processor's seconds of training."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": networks of 16 channels. "smoke": one short cell of each kind. "paper":
            networks and meta-steps as in the literature, for an accelerator.
        seeds: Of the tasks and of the networks; test tasks are the same for all.
        name: Of the result file.
        workers: Processes of one thread.
        device: Where to compute: cpu or cuda.
    """

    preset: Literal["small", "smoke", "paper"] = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "few_shot"
    workers: int = 2
    device: str = "cpu"


class Job(NamedTuple):
    """A job, and what its row is called."""

    job: FewShotJob
    method: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the row is called, but for the method."""
        job = self.job
        return {
            "data": job.data,
            "shot": job.shot,
            "wrong": job.wrong,
            "meta_steps": job.meta_steps,
        }


def cells(arguments: Arguments) -> list[Job]:
    """The cells of a preset, every row of the first seed before the second seed."""
    sizes: dict[str, Any] = {"width": 16, "query": 5, "meta_steps": 120, "episodes": 100}
    if arguments.preset == "smoke":
        sizes = {"width": 4, "query": 2, "meta_steps": 2, "episodes": 4, "tasks": 2, "steps": 2}
    elif arguments.preset == "paper":
        sizes = {"width": 64, "meta_steps": 60_000, "episodes": 600}
    found = []
    for seed in arguments.seeds:
        shared = {"seed": seed, "device": arguments.device, **sizes}
        for shot in (1, 5):
            job = FewShotJob(data="omniglot", shot=shot, lr=0.4, **shared)
            found.append(Job(job, "MAML"))
        for shot, wrong in ((5, 0.4), (5, 0.2), (5, 0.0), (1, 0.0)):
            for method, options in METHODS.items():
                if shot > 1 or method in NO_WEIGHTS:
                    job = FewShotJob(data="cifar_fs", shot=shot, wrong=wrong, **shared, **options)
                    found.append(Job(job, method))
    return found


def measure(cell: Job) -> list[Cell]:
    """Trains and tests one cell."""
    job, prepared = cell.job, prepare(cell.job)
    seconds, phi = _last(_ours(job, prepared))
    labels = cell.labels | {"seed": job.seed}
    found = evaluated(job, prepared, phi)
    names = {OURS: cell.method, EQUAL: f"{cell.method}, equal"}
    elsewhere: dict[str, Evaluation] = {}
    if job.data == "cifar_fs":
        other = load("cifar10", "test")
        elsewhere = evaluated(job, prepared, phi, test=other)
    rows = []
    for name, each in found.items():
        scores = _scores(each) | {"seconds": seconds}
        if name in elsewhere:
            scores["elsewhere"] = float(elsewhere[name].mean[-1])
        rows.append(labels | {"method": names[name]} | scores)
    if job.data == "omniglot":
        rows += [labels | row for row in _beside(job, prepared, seconds)]
    return rows


def _ours(job: FewShotJob, prepared: Prepared) -> Iterator[tuple[float, Params]]:
    """The processor's seconds and φ after each meta-step."""
    began = time.process_time()
    for step in meta_train(
        prepared.maml,
        begun(job, prepared),
        outer_optimizer=prepared.outer,
        episodes=prepared.episodes,
        steps=job.meta_steps,
        tasks=job.tasks,
        batched=batched_of(job),
    ):
        yield time.process_time() - began, step.state.phi


def _theirs(job: FewShotJob, prepared: Prepared) -> Iterator[tuple[float, Params]]:
    """The same by learn2learn: same start, same tasks, same outer optimiser."""
    peer = peers.learn2learn()
    phi = begun(job, prepared).phi
    module = prepared.maml.student.module()
    outer = Adam(job.meta_lr)
    state = outer.init(phi)
    began = time.process_time()
    for step in range(job.meta_steps):
        episodes = [prepared.episodes(step * job.tasks + i) for i in range(job.tasks)]
        module.load_state_dict(part(phi, START), strict=False)
        _, gradient = peer(module, episodes, lr=job.lr, steps=job.steps)()
        phi, state = outer.update(under(START, gradient), phi, state)
        yield time.process_time() - began, phi


def _beside(job: FewShotJob, prepared: Prepared, seconds: float) -> Iterator[dict[str, Any]]:
    """learn2learn after as many meta-steps, and when as many seconds had passed."""
    within: tuple[float, Params] | None = None
    last: tuple[float, Params] | None = None
    try:
        for last in _theirs(job, prepared):
            if within is None or last[0] <= seconds:
                within = last
    except ImportError as error:
        print(f"learn2learn is left out: {error}")
        return
    assert within is not None
    assert last is not None
    for name, (taken, phi) in (("steps", last), ("seconds", within)):
        scores = _scores(evaluated(job, prepared, phi)[OURS])
        yield {"method": f"learn2learn, same {name}", "seconds": taken} | scores


def _last(steps: Iterator[tuple[float, Params]]) -> tuple[float, Params]:
    *_, last = steps
    return last


def _scores(found: Evaluation) -> dict[str, float]:
    scores = {"accuracy": float(found.mean[-1])}
    for name in ("clean_weight", "wrong_weight"):
        weight = getattr(found, name)
        if weight is not None and bool(torch.isfinite(weight[-1])):
            scores[name] = float(weight[-1])
    return scores


def print_verdict(kept: Store) -> None:
    """Every method, and how far learned weights are ahead of it, seed by seed."""
    values: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for cell in kept.cells:
        row = values.setdefault(tuple(cell[name] for name in LABELS[:-1]), {})
        row.setdefault(cell["method"], {})[cell["seed"]] = cell["accuracy"]
    lines = []
    for labels, methods in sorted(values.items(), key=str):
        for method, found in methods.items():
            mean = sum(found.values()) / len(found)
            ahead = half = None
            ours = methods.get("weights and rates" if "rates" in method else "weights", {})
            shared = sorted(ours.keys() & found.keys())
            if shared and ours is not found:
                interval = mean_interval([ours[seed] - found[seed] for seed in shared])
                ahead = interval.mean
                half = interval.high - interval.mean if len(shared) > 1 else None
            lines.append([*labels, method, mean, ahead, half])
    print(f"\n{text_table([*LABELS, 'accuracy', 'weights ahead', '±'], lines)}")


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name,
        labels=LABELS,
        metrics=METRICS,
        preset=arguments.preset,
        device=arguments.device,
    )
    chosen = cells(arguments)
    if arguments.preset == "smoke":
        chosen = [chosen[0], chosen[5]]
    left = [
        each for each in chosen if not kept.has(each.job.seed, **each.labels, method=each.method)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    print_verdict(kept)


if __name__ == "__main__":
    main()
