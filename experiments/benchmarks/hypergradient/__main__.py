"""What hypergradients cost and how good they are, beside the public ways of taking them.

    python -m experiments.benchmarks.hypergradient                   # about 20 min on one core
    python -m experiments.benchmarks.hypergradient --preset smoke    # about a minute
    python -m experiments.benchmarks.hypergradient --device cuda --batch 128

Ours and the peers run in one process on the same tensors, in turn; answers are compared before
anything is timed. The peers are in the extra ``peers``; those that are not installed or cannot run
are left out, and their cell says why.

Cases: a student step with its hypergradient for a ResNet-18 under example weights, with 2 and with
20 terms; the time until the cosine with the exact hypergradient is 0.99, for systems of condition
numbers 1e2 to 1e5 with 105,546 unknowns; hypergradients at every step of a run, their cosine at
equal time; and backpropagation through 100 and through 1,000 steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
import tyro

from commentaries.report.tables import text_table

from ...store import Cell, Store
from ..side_by_side import named_device
from . import accuracy, online, unrolled, weighted

CASES = ("weights", "accuracy", "online", "unrolled")


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": as given. "smoke": everything tiny, once.
        cases: Of weights, accuracy, online and unrolled.
        seeds: Each draws its own tensors and order of the variants.
        batch: Images of a batch of the ResNet-18.
        rounds: Timed repetitions; a third of them where one takes long.
        device: Where to compute: cpu or cuda.
        threads: Of torch's CPU kernels; torch's own choice if not given.
        name: Of the result file.
    """

    preset: Literal["paper", "smoke"] = "paper"
    cases: tuple[Literal["weights", "accuracy", "online", "unrolled"], ...] = CASES
    seeds: tuple[int, ...] = (0,)
    batch: int = 8
    rounds: int = 6
    device: str = "cpu"
    threads: int | None = None
    name: str = "benchmark_hypergradient"


LABELS = ("device", "case", "variant")
METRICS = (
    "time",
    "lower quartile",
    "upper quartile",
    "memory",
    "cosine",
    "above the best peer",
    "products",
    "ms",
    "peak MiB",
    "disagreement",
)
"""Time and memory as ratios to the best peer, with the quartiles over the rounds; the cosine with
the exact hypergradient, or where there is none with the loop's; products with the matrix; and the
relative error of what is compared first."""

AIMS = (
    ("K=2", "ours, Hessian", "time", 0.80),
    ("K=2", "ours, Hessian", "memory", 0.80),
    ("K=2", "ours, Gauss-Newton", "time", 0.65),
    ("K=20", "ours, Hessian", "time", 0.98),
    ("K=20", "ours, Gauss-Newton", "time", 0.70),
    *((f"condition 1e{k}", "ours, CG with K-FAC", "time", 0.33) for k in (2, 3, 4, 5)),
    ("T=100", "ours, 10 graphs at a time", "time", 1.5),
    ("T=100", "ours, 10 graphs at a time", "memory", 0.15),
)
"""How a case ends, the variant, what is measured, and the most that it should be."""


def cases(arguments: Arguments) -> dict[str, Callable[[int], list[Cell]]]:
    """Every case by its name, as a function of the seed."""
    smoke, device = arguments.preset == "smoke", arguments.device
    rounds = 2 if smoke else arguments.rounds
    few = max(rounds // 3, 1)
    found: dict[str, Callable[[int], list[Cell]]] = {}
    if "weights" in arguments.cases:
        network = "resnet32" if smoke else "resnet18"
        batch = 4 if smoke else arguments.batch
        for terms in (2, 4) if smoke else (2, 20):
            found[f"{network}, batch {batch}, K={terms}"] = partial(
                _with_seed,
                weighted.measure,
                terms,
                batch=batch,
                rounds=rounds if terms == 2 else few,
                device=device,
                network=network,
            )
    if "accuracy" in arguments.cases:
        examples = 60 if smoke else 400
        hidden = (24, 16) if smoke else (320, 256)

        @cache
        def trained(seed: int) -> accuracy.Trained:
            steps = 30 if smoke else 100
            return accuracy.train(
                examples=examples, hidden=hidden, seed=seed, device=device, steps=steps
            )

        for exponent in (2, 4) if smoke else (2, 3, 4, 5):

            def reach(seed: int, condition: float = 10.0**exponent) -> list[Cell]:
                return accuracy.measure(
                    trained(seed),
                    condition,
                    limit=20 if smoke else 300,
                    rounds=rounds,
                    seed=seed,
                    device=device,
                )

            found[f"cosine 0.99, condition 1e{exponent}"] = reach
    if "online" in arguments.cases:
        examples, features, steps = (60, 20, 5) if smoke else (400, 256, 100)
        found[f"online, {steps} steps"] = partial(
            _with_seed,
            online.measure,
            examples=examples,
            features=features,
            steps=steps,
            rounds=rounds,
            device=device,
        )
    if "unrolled" in arguments.cases:
        steps, batch, width = (12, 4, 4) if smoke else (100, 32, 16)
        found[f"conv2, T={steps}"] = partial(
            _with_seed,
            unrolled.measure,
            steps=steps,
            batch=batch,
            width=width,
            rounds=few,
            device=device,
        )
        found[f"conv2, T={10 * steps}"] = partial(
            _with_seed,
            unrolled.measure_long,
            steps=10 * steps,
            batch=batch,
            width=width,
            device=device,
        )
    return found


def _with_seed(measure: Callable[..., list[Cell]], *args: Any, **kwargs: Any) -> list[Cell]:
    *rest, seed = args
    return measure(*rest, seed=seed, **kwargs)


def run(arguments: Arguments) -> Store:
    """Measures what the result file does not hold yet."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    kept = Store(
        arguments.name,
        labels=LABELS,
        metrics=METRICS,
        preset=arguments.preset,
        device=arguments.device,
    )
    device = named_device(arguments.device)
    for seed in arguments.seeds:
        for name, measure in cases(arguments).items():
            if kept.has(seed, device=device, case=name):
                continue
            began = time.monotonic()
            cells = measure(seed)
            kept.add({"device": device, "case": name} | cell for cell in cells)
            print(f"{name}, seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
            for cell in cells:
                if "note" in cell:
                    print(f"  {cell['variant']}: {cell['note']}")
    return kept


def verdict(kept: Store) -> list[list[Any]]:
    """What has an aim, with its 95 % interval over the seeds."""
    return [
        [*(row[key] for key in LABELS), metric, row["value"], row["low"], row["high"], aim]
        for row in kept.rows()
        for case, variant, metric, aim in AIMS
        if row["case"].endswith(case) and (row["variant"], row["metric"]) == (variant, metric)
    ]


def main() -> None:
    kept = run(tyro.cli(Arguments, description=__doc__))
    print(text_table([*LABELS, *METRICS], kept.table()))
    print(f"\n{text_table([*LABELS, 'metric', 'ratio', 'low', 'high', 'at most'], verdict(kept))}")


if __name__ == "__main__":
    main()
