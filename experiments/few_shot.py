"""MAML, learned step sizes and learned weights of support examples, on Omniglot and CIFAR-FS.

    python -m experiments.few_shot                  # small networks, few meta-steps; 4 core-hours
    python -m experiments.few_shot --preset smoke   # one short cell of each kind
    python -m experiments.few_shot --preset paper --device cuda

On CIFAR-FS, methods are compared with clean and with wrong support labels, on tasks of its test
classes and then of CIFAR-10's. All begin with the same features, of a network that told the
training classes apart. Two controls say whether the weights help or merely the size of the steps:
learned step sizes without weights, and "equal", the initialisation that was learned with weights,
adapted with the mean of each step's weights. With one shot a wrong label leaves its own class
without an example, and nothing in the support set says which of two examples of a label is wrong.

On Omniglot, MAML stands beside learn2learn after as many meta-steps and after as many seconds of
the processor. Every (row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro

from commentaries.data import load
from commentaries.fewshot import MAML, START, Evaluation, meta_train, part, under
from commentaries.inner import Adam
from commentaries.report.tables import mean_interval, text_table
from commentaries.teaching.few_shot import (
    EQUAL,
    OURS,
    Prepared,
    batched_of,
    begun,
    evaluated,
    maml_of,
    outer_of,
    prepare,
)
from commentaries.teaching.few_shot_options import FewShotJob
from commentaries.teaching.pretraining import pretrained
from commentaries.types import Params

from .benchmarks import peers
from .parallel import measure_all
from .store import Cell, Store

METHODS: dict[str, dict[str, Any]] = {
    "MAML": {},
    "learned rates": {"learn_rates": True},
    "rates and weights": {"learn_rates": True, "commentary": "agreement"},
}

FEATURES = Path("runs/few_shot_features")
"""Pretrained, one file for each seed: what all methods begin with."""

LABELS = ("data", "shot", "wrong", "meta_steps", "method")
METRICS = ("accuracy", "elsewhere", "clean_weight", "wrong_weight", "seconds")
"""Accuracy on the test classes and on those of CIFAR-10, mean weights of support examples at the
last step, and the processor's seconds of training."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "small": networks of 16 and 32 channels. "smoke": one short cell of each kind.
            "paper": networks and meta-steps as in the literature, for an accelerator.
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


class Size(NamedTuple):
    """Options of all jobs of a preset, and those of each data set."""

    shared: dict[str, Any]
    omniglot: dict[str, Any]
    cifar_fs: dict[str, Any]


SIZES = {
    "small": Size(
        {"query": 5},
        {"width": 16, "meta_steps": 300, "episodes": 200},
        {"width": 32, "meta_steps": 150, "tasks": 2, "lr": 0.2, "pretrain": 6, "episodes": 100},
    ),
    "smoke": Size(
        {"width": 4, "query": 2, "meta_steps": 2, "episodes": 4, "tasks": 2, "steps": 2},
        {},
        {"student": "conv2", "pretrain": 1},
    ),
    "paper": Size({"width": 64, "meta_steps": 60_000}, {}, {"pretrain": 60}),
}


def cells(arguments: Arguments) -> list[Job]:
    """The cells of a preset, every seed of the first row before the second row."""
    sizes = SIZES[arguments.preset]

    def cifar(shot: int, wrong: float) -> list[tuple[str, dict[str, Any]]]:
        data = {"data": "cifar_fs", "shot": shot, "wrong": wrong, **sizes.cifar_fs}
        return [(method, data | options) for method, options in METHODS.items()]

    omniglot = {"data": "omniglot", "lr": 0.4, **sizes.omniglot}
    rows = [
        *cifar(5, 0.4),
        *(("MAML", omniglot | {"shot": shot}) for shot in (1, 5)),
        *cifar(5, 0.0),
        *cifar(1, 0.0),
        *cifar(5, 0.2),
        *cifar(1, 0.4),
        *cifar(1, 0.2),
    ]
    shared = {"device": arguments.device, **sizes.shared}
    return [
        Job(FewShotJob(seed=seed, **shared, **options), method)
        for method, options in rows
        for seed in arguments.seeds
    ]


def measure(cell: Job) -> list[Cell]:
    """Trains and tests one cell."""
    job, prepared = cell.job, prepare(cell.job)
    maml = maml_of(job, prepared.train, _weights(job, prepared))
    seconds, phi = _last(_ours(job, maml, prepared))
    labels = cell.labels | {"seed": job.seed}
    found = evaluated(job, maml, phi, prepared.test)
    names = {OURS: cell.method, EQUAL: f"{cell.method}, equal"}
    elsewhere: dict[str, Evaluation] = {}
    if job.data == "cifar_fs":
        elsewhere = evaluated(job, maml, phi, load("cifar10", "test"))
    rows = []
    for name, each in found.items():
        scores = _scores(each) | {"seconds": seconds}
        if name in elsewhere:
            scores["elsewhere"] = float(elsewhere[name].mean[-1])
        rows.append(labels | {"method": names[name]} | scores)
    if job.data == "omniglot":
        rows += [labels | row for row in _beside(job, maml, prepared, seconds)]
    return rows


def _weights(job: FewShotJob, prepared: Prepared) -> Path | None:
    """The features of a seed, which all methods begin with."""
    if not job.pretrain:
        return None
    FEATURES.mkdir(parents=True, exist_ok=True)
    name = f"{job.data}-{job.student}-{job.width}-{job.pretrain}-{job.seed}.pt"
    return pretrained(job, prepared.train, FEATURES / name)


def _ours(job: FewShotJob, maml: MAML, prepared: Prepared) -> Iterator[tuple[float, Params]]:
    """The processor's seconds and φ after each meta-step."""
    began = time.process_time()
    for step in meta_train(
        maml,
        begun(job, maml),
        outer_optimizer=outer_of(job),
        episodes=prepared.episodes,
        steps=job.meta_steps,
        tasks=job.tasks,
        batched=batched_of(job),
    ):
        yield time.process_time() - began, step.state.phi


def _theirs(job: FewShotJob, maml: MAML, prepared: Prepared) -> Iterator[tuple[float, Params]]:
    """The same by learn2learn: same start, same tasks, same outer optimiser."""
    peer = peers.learn2learn()
    phi = begun(job, maml).phi
    module = maml.student.module()
    outer = Adam(job.meta_lr)
    state = outer.init(phi)
    began = time.process_time()
    for step in range(job.meta_steps):
        episodes = [prepared.episodes(step * job.tasks + i) for i in range(job.tasks)]
        module.load_state_dict(part(phi, START), strict=False)
        _, gradient = peer(module, episodes, lr=job.lr, steps=job.steps)()
        phi, state = outer.update(under(START, gradient), phi, state)
        yield time.process_time() - began, phi


def _beside(
    job: FewShotJob, maml: MAML, prepared: Prepared, seconds: float
) -> Iterator[dict[str, Any]]:
    """learn2learn after as many meta-steps, and when as many seconds had passed."""
    within: tuple[float, Params] | None = None
    last: tuple[float, Params] | None = None
    try:
        for last in _theirs(job, maml, prepared):
            if within is None or last[0] <= seconds:
                within = last
    except ImportError as error:
        print(f"learn2learn is left out: {error}")
        return
    assert within is not None
    assert last is not None
    for name, (taken, phi) in (("steps", last), ("seconds", within)):
        scores = _scores(evaluated(job, maml, phi, prepared.test)[OURS])
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
            ours = methods.get("rates and weights", {})
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
        firsts = {(each.job.data, each.method): each for each in reversed(chosen)}
        chosen = [*firsts.values()]
    left = [
        each for each in chosen if not kept.has(each.job.seed, **each.labels, method=each.method)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    print_verdict(kept)


if __name__ == "__main__":
    main()
