"""What every comparison of methods against wrong labels shares: measuring, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from commentaries.cleaning import controls
from commentaries.cleaning.cues import Evidence
from commentaries.cleaning.features import Encoder, fit_encoder
from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import Job, make_learner
from commentaries.cleaning.methods import Outcome, auroc, given_loss
from commentaries.cleaning.prepared import prepare, recipe_for
from commentaries.cleaning.task import Task
from commentaries.report.tables import mean_interval, text_table

from .parallel import measure_all
from .store import Cell, Store

ROW = ("data", "noise", "rate", "trusted")


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
    prepared = prepare(job)
    task, student = prepared.task, prepared.student
    evidence = Evidence.gather(task, encode=_encoder(job, task))
    learned = make_learner(job, task, student, evidence).finish()
    recipe = recipe_for(job, task.train)
    verdict = conclude(evidence, student, learned, seed=job.seed, recipe=recipe)
    bench = controls.Bench(task, student, evidence, learned, job.seed, recipe)
    outcomes: dict[str, Outcome] = {"ours": verdict.outcome}
    outcomes |= controls.run(tuple(controls.CONTROLS), bench) | cleanlab_filter(bench)
    labels = labels_of(job) | {"seed": job.seed}
    cells: list[Cell] = [
        labels
        | {"method": name, "accuracy": outcome.accuracy}
        | {"auroc": outcome.auroc, "auroc_rescored": outcome.auroc_rescored}
        for name, outcome in outcomes.items()
    ]
    own = auroc(task.wrong, -learned.weight)
    return [*cells, labels | {"method": "ours: the weights alone", "auroc": own}]


def labels_of(job: Job) -> dict[str, Any]:
    """What a row is called in a result file."""
    return {"data": job.data, "noise": job.noise_kind, "rate": job.rate, "trusted": job.trusted}


_ENCODERS: dict[tuple[str, int], Encoder] = {}


def _encoder(job: Job, task: Task) -> Encoder:
    """What describes the images of a data set and split, learned once for all kinds of noise."""
    key = (job.data, job.seed)
    if key not in _ENCODERS:
        _ENCODERS.clear()
        _ENCODERS[key] = _remembered(fit_encoder(task.train.x))
    return _ENCODERS[key]


def _remembered(encode: Encoder) -> Encoder:
    """The same, without doing anew what was asked with equal images before."""
    known: dict[tuple[int, float], Tensor] = {}

    def encoded(x: Tensor) -> Tensor:
        key = (len(x), float(x.double().sum()))
        if key not in known:
            known[key] = encode(x)
        return known[key]

    return encoded


def compare(
    jobs: Sequence[Job], name: str, preset: str, *, workers: int, verdict: bool = False
) -> None:
    """Measures what the experiment's file does not hold yet, and prints what it says.

    Args:
        jobs: The cells.
        name: Of the result file.
        preset: What was scaled down.
        workers: Processes of one thread.
        verdict: Only print.
    """
    kept = Store(
        name,
        labels=(*ROW, "method"),
        metrics=("accuracy", "auroc", "auroc_rescored"),
        preset=preset,
    )
    if not verdict:
        left = [job for job in jobs if not kept.has(job.seed, **labels_of(job))]
        measure_all(measure, left, kept, workers=workers)
    print_verdict(kept)


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
        columns = [*ROW, "ours", "best control", "which", "ahead", "±"]
        print(f"\n{metric}\n{text_table(columns, table)}")
        ranked = sorted(largest.items(), key=lambda item: item[1])
        print(f"\nlargest gap to the best other method\n{text_table(['method', 'gap'], ranked)}")


def paired_differences(kept: Store, labels: tuple, ours: dict, rival: dict) -> list[float]:
    """Ours minus the rival, seed by seed."""
    where = dict(zip(ROW, labels, strict=True))
    own, other = (kept.by_seed(r["metric"], method=r["method"], **where) for r in (ours, rival))
    return [own[seed] - other[seed] for seed in sorted(own)]


def best_by_row(kept: Store, metric: str) -> dict[tuple, dict[str, dict]]:
    """Row -> method -> its result; of a method's own ranking and its loss, the better AUROC."""
    found: dict[tuple, dict[str, dict]] = {}
    for row in kept.rows():
        if row["method"] == "oracle" or row["method"].startswith("ours:"):
            continue
        if row["metric"].startswith(metric):
            methods = found.setdefault(row_of(row), {})
            present = methods.get(row["method"])
            if present is None or row["value"] > present["value"]:
                methods[row["method"]] = row
    return dict(sorted(found.items()))


def row_of(cell: dict) -> tuple:
    """Which row of the comparison a cell or a result belongs to."""
    return tuple(cell[name] for name in ROW)
