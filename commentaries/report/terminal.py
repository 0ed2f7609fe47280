"""What the command line prints of a run."""

from __future__ import annotations

from typing import Any

from ..cleaning.job import SPLITS
from ..cleaning.options import Job
from ..cleaning.review import REVIEW, sentence
from ..teaching.few_shot_options import FewShotJob
from ..teaching.options import LessonJob, MixupJob
from ..training import RunFolder
from .lesson_page import Methods, lesson_finding, method_table
from .tables import text_table
from .weights_page import COLUMNS, Scores, finding, has_scores, method_rows

_SHORT = {
    "pretrained": "pretrained",
    "loss": "loss",
    "outer_loss": "outer loss",
    "stationarity": "‖F‖",
    "relative_residual": "residual",
    "effective_sample_size": "effective share",
}


def describe(job: Job, folder: RunFolder) -> str:
    """What a run works on, in a line."""
    text = job.data
    if (folder.path / SPLITS).exists():
        parts = folder.read_json(SPLITS)
        text += f", {len(parts['train']):,} training and {len(parts['trusted']):,} trusted examples"
    if job.noise_kind != "none":
        text += f", {job.noise_kind} noise at {job.rate:g}"
    return f"{text}, seed {job.seed}, score {job.settings.score!r}, controls {job.controls!r}"


def describe_lesson(job: LessonJob, folder: RunFolder) -> str:
    """What a run on mixing or masks works on, in a line."""
    text = f"{'mixing' if isinstance(job, MixupJob) else 'masks'}, {job.data}"
    if (folder.path / SPLITS).exists():
        parts = folder.read_json(SPLITS)
        text += ", " + ", ".join(
            f"{len(parts[name]):,} {name}" for name in ("train", "validation", "test")
        )
    return f"{text} examples, seed {job.seed}, controls {job.controls!r}"


def describe_few_shot(job: FewShotJob) -> str:
    """What a run on few-shot learning works on, in a line."""
    return (
        f"few-shot, {job.data}, {job.way}-way {job.shot}-shot, {job.wrong:.0%} wrong support "
        f"labels, seed {job.seed}, commentary {job.commentary!r}"
    )


def lesson_text(job: LessonJob, folder: RunFolder) -> str:
    """What a finished run on mixing or masks found."""
    result = folder.read_json("result.json")
    return f"{lesson_table(result['methods'])}\n\n{lesson_finding(job, result)}"


def lesson_table(methods: Methods) -> str:
    """Every method and its scores."""
    return text_table(*method_table(methods))


def result_text(folder: RunFolder) -> str:
    """What a finished run found: the methods where they could be scored, and what that means."""
    result = folder.read_json("result.json")
    text = f"{scores_table(result)}\n\n" if has_scores(result) else ""
    if (folder.path / REVIEW).exists():
        text += sentence(folder.read_json(REVIEW), result["accuracy"]["ours"]) + "\n"
    return text + finding(result)


def scores_table(scores: Scores) -> str:
    """Every method and its scores."""
    return text_table(COLUMNS, method_rows(scores))


def short_metrics(metrics: dict[str, Any]) -> dict[str, str]:
    """Metrics of a step by short names, without those that are not known."""
    return {
        short: f"{metrics[name]:.3g}"
        for name, short in _SHORT.items()
        if metrics.get(name) is not None
    }
