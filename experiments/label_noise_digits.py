"""Wrong labels in scikit-learn's digits: ours beside every control, one setting for all rows.

    python -m experiments.label_noise_digits                 # seeds 0-4, about 45 min on 2 cores
    python -m experiments.label_noise_digits --preset smoke  # one cell
    python -m experiments.label_noise_digits --verdict       # what the file says of the claims

Every (row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import tyro

from commentaries.cleaning import controls
from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import Job, make_learner, make_task
from commentaries.cleaning.methods import Outcome, auroc, given_loss
from commentaries.report.tables import mean_interval, text_table

from .parallel import run_all
from .store import Cell, Store


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


def cleanlab_filter(bench: controls.Bench) -> controls.Outcomes:
    """cleanlab on cross-validated predictions of the same network (development extra, AGPL)."""
    from cleanlab.filter import find_label_issues

    opinion, _ = bench.out_of_fold
    given = bench.given
    issues = find_label_issues(given.numpy(), opinion.exp().double().numpy(), n_jobs=1)
    kept = ~torch.from_numpy(issues)
    suspicion = given_loss(opinion, given)
    return controls.self_trained(bench, "cleanlab filter", kept, controls.STRONG, suspicion)


def measure(job: Job) -> list[Cell]:
    """Ours and every control for one row and seed."""
    task = make_task(job)
    learner = make_learner(job, task)
    learned = learner.finish()
    verdict = conclude(learner.evidence, learner.student, learned, seed=job.seed)
    bench = controls.Bench(task, learner.student, learner.evidence, learned, job.seed)
    outcomes: dict[str, Outcome] = {"ours": verdict.outcome}
    outcomes |= controls.run(tuple(controls.CONTROLS), bench) | cleanlab_filter(bench)
    labels = {"noise": job.noise, "rate": job.rate, "trusted": job.trusted, "seed": job.seed}
    cells: list[Cell] = [
        labels
        | {"method": name, "accuracy": outcome.accuracy}
        | {"auroc": outcome.auroc, "auroc_rescored": outcome.auroc_rescored}
        for name, outcome in outcomes.items()
    ]
    own = auroc(task.wrong, -learned.weight)
    return [*cells, labels | {"method": "ours: the weights alone", "auroc": own}]


def store(name: str, preset: str) -> Store:
    """The experiment's file."""
    return Store(
        name,
        labels=("noise", "rate", "trusted", "method"),
        metrics=("accuracy", "auroc", "auroc_rescored"),
        preset=preset,
    )


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


def print_verdict(kept: Store) -> None:
    """Ours against the best control on every row, and every method's largest gap to the best.

    "ahead" is the mean difference over the seeds, with its own 95 % interval: pairs share the
    split, the noise and the initial network.
    """
    for metric in ("accuracy", "auroc"):
        table, largest = [], {}
        for labels, found in best_by_row(kept, metric).items():
            ours = found["ours"]
            name, rival = max(
                ((name, row) for name, row in found.items() if name != "ours"),
                key=lambda item: item[1]["value"],
            )
            ahead = mean_interval(paired_differences(kept, labels, ours, rival))
            half = ahead.high - ahead.mean
            table.append([*labels, ours["value"], rival["value"], name, ahead.mean, half])
            for method, row in found.items():
                best = max(each["value"] for other, each in found.items() if other != method)
                largest[method] = max(largest.get(method, 0.0), best - row["value"])
        columns = ["noise", "rate", "trusted", "ours", "best control", "which", "ahead", "±"]
        print(f"\n{metric}\n{text_table(columns, table)}")
        ranked = sorted(largest.items(), key=lambda item: item[1])
        print(f"\nlargest gap to the best other method\n{text_table(['method', 'gap'], ranked)}")


def paired_differences(kept: Store, labels: tuple, ours: dict, rival: dict) -> list[float]:
    """Ours minus the rival, seed by seed."""

    def by_seed(row: dict) -> dict[int, float]:
        return {
            cell["seed"]: cell[row["metric"]]
            for cell in kept.cells
            if cell["method"] == row["method"]
            and (cell["noise"], cell["rate"], cell["trusted"]) == labels
        }

    own, other = by_seed(ours), by_seed(rival)
    return [own[seed] - other[seed] for seed in sorted(own)]


def best_by_row(kept: Store, metric: str) -> dict[tuple, dict[str, dict]]:
    """Row -> method -> its result; of a method's own ranking and its loss, the better AUROC."""
    found: dict[tuple, dict[str, dict]] = {}
    for row in kept.rows():
        if row["method"] == "oracle" or row["method"].startswith("ours:"):
            continue
        if row["metric"].startswith(metric):
            methods = found.setdefault((row["noise"], row["rate"], row["trusted"]), {})
            present = methods.get(row["method"])
            if present is None or row["value"] > present["value"]:
                methods[row["method"]] = row
    return dict(sorted(found.items()))


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = store(arguments.name, arguments.preset)
    if not arguments.verdict:
        left = [
            job
            for job in jobs(arguments)
            if not kept.has(job.seed, noise=job.noise, rate=job.rate, trusted=job.trusted)
        ]
        for cells in run_all(measure, left, workers=arguments.workers):
            kept.add(cells)
    print_verdict(kept)


if __name__ == "__main__":
    main()
