"""What each part of the learned weights contributes, on two kinds of noise.

    python -m experiments.ablation_digits

Each variant changes one thing of the frozen setting. Besides the final student, the weights
themselves are scored: the final labels also rest on votes, which can hide a weak commentary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tyro

from commentaries.cleaning.cues import CUES
from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import Job, make_learner, make_task
from commentaries.cleaning.learner import Settings
from commentaries.cleaning.methods import auroc, given_loss
from commentaries.cleaning.prepared import recipe_for
from commentaries.report.tables import text_table

from .parallel import measure_all
from .store import Cell, Store

BASE = Settings()


def without(*names: str) -> Settings:
    """The setting with some cues left out."""
    return replace(BASE, cues=tuple(name for name in CUES if name not in names))


VARIANTS: dict[str, Settings] = {
    "as frozen": BASE,
    "table": replace(BASE, score="table"),
    "loss network": replace(BASE, score="loss"),
    "image network": replace(BASE, score="image"),
    "without margin": without("margin"),
    "without trusted votes": without("trusted_votes"),
    "without weighted votes": without("weighted_votes"),
    "without loss and probability": without("loss", "probability"),
    "without cross-fitting": replace(BASE, cross_fitted=False),
    "5 terms": replace(BASE, terms=5),
    "20 terms": replace(BASE, terms=20),
    "unrolled, 5 steps": replace(BASE, terms=0, inner_steps=5),
    "5 inner steps, 1 term": replace(BASE, inner_steps=5),
    "softmax": replace(BASE, normalise="softmax"),
    "not normalised": replace(BASE, normalise="none"),
    "commentary not trained": replace(BASE, warm_up=BASE.steps),
}
ROWS = (("pair", 0.45, 50), ("block", 0.4, 20))


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        seeds: One run of every variant and row for each.
        workers: Processes of one thread.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 2


def measure(given: tuple[str, Job]) -> list[Cell]:
    """One variant on one row."""
    variant, job = given
    task = make_task(job)
    learner = make_learner(job, task)
    learned = learner.finish()
    recipe = recipe_for(job, task.train)
    final = conclude(learner.evidence, learner.student, learned, seed=job.seed, recipe=recipe)
    students = given_loss(learned.log_probability, task.train.y)
    return [
        {"variant": variant, "noise": job.noise, "trusted": job.trusted, "seed": job.seed}
        | {"accuracy": final.outcome.accuracy, "auroc": final.outcome.auroc}
        | {"auroc of the weights": auroc(task.wrong, -learned.weight)}
        | {"auroc of the students' loss": auroc(task.wrong, students)}
    ]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        "ablation_digits",
        labels=("noise", "trusted", "variant"),
        metrics=(
            "accuracy",
            "auroc",
            "auroc of the weights",
            "auroc of the students' loss",
        ),
        preset="paper",
    )
    left = [
        (variant, Job(noise=noise, rate=rate, trusted=trusted, seed=seed, settings=settings))
        for seed in arguments.seeds
        for noise, rate, trusted in ROWS
        for variant, settings in VARIANTS.items()
        if not kept.has(seed, noise=noise, trusted=trusted, variant=variant)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    columns = ["noise", "trusted", "variant", "metric", "value", "low", "high"]
    print(text_table(columns, [[row[key] for key in columns] for row in kept.rows()]))


if __name__ == "__main__":
    main()
