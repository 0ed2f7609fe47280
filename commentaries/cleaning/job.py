"""The main job from configuration to results, in a run folder that survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..commentary import effective_sample_size
from ..data.record import check_unchanged
from ..errors import BadRun
from ..student import Student
from ..training import RunFolder, StepResult, TrainState
from ..training.config import read_config
from ..training.recorded import Metrics, diagnostics, resumed, take
from ..training.students import student_for
from . import controls
from .cues import Evidence
from .final import Verdict, conclude
from .learner import Learned, Learner
from .methods import Outcome
from .options import Controls, Job
from .precision import Advice, advise
from .prepared import (
    Prepared,
    assemble,
    prepare,
    recipe_for,
    settings_for,
    splits,
)
from .sources import Sources, gather
from .task import Task
from .weights_table import Line, write_cleaned, write_weights

SPLITS = "splits.json"

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the weights, logged whenever the cues are made anew."""

QUICK = (
    "unweighted",
    "upweighted",
    "trusted_alone",
    "svm_alone",
    "neighbour_filter",
    "svm_filter",
    "self_trained_votes",
    "oracle",
)


class Finished(NamedTuple):
    """All that a finished job knows.

    Attributes:
        prepared: The examples and where they come from.
        learned: The weights and the averaged students' opinion.
        verdict: On every training example.
        outcomes: Of every method by name; "ours" first.
    """

    prepared: Prepared
    learned: Learned
    verdict: Verdict
    outcomes: dict[str, Outcome]

    @property
    def task(self) -> Task:
        """The examples."""
        return self.prepared.task


def read_job(folder: RunFolder) -> Job:
    """The configuration of a run of the main job: see `read_config`."""
    return read_config(folder, {"weights": Job})


def make_task(job: Job) -> Task:
    """The examples of a job: a function of the configuration and the data alone."""
    return prepare(job).task


def make_student(task: Task, name: str | None = None) -> Student:
    """A network for the images and classes of a task.

    Raises:
        BadInput: An unknown name.
    """
    return student_for(task.train, name)


def make_learner(
    job: Job, task: Task, student: Student | None = None, evidence: Evidence | None = None
) -> Learner:
    """The bilevel problem of a job.

    Args:
        job: The configuration.
        task: Its examples.
        student: That of the job unless given.
        evidence: Gathered from the task unless given.
    """
    student = student or make_student(task, job.student)
    settings = settings_for(job, task.train)
    return Learner(task, student, settings, seed=job.seed, evidence=evidence)


def prepare_again(job: Job, folder: RunFolder, sources: Sources | None = None) -> Prepared:
    """The examples of a run that has begun, which must be those with which it began.

    Args:
        job: Its configuration.
        folder: Its folder.
        sources: What `gather` found for the job; read anew unless given.

    Raises:
        BadInput: The data cannot be read any more.
        BadRun: They have changed.
    """
    if not (folder.path / SPLITS).exists():
        return assemble(job, sources or gather(job))
    written = folder.read_json(SPLITS)
    prepared = assemble(job, sources or gather(job), chosen=written.get("trusted"))
    check_unchanged(splits(prepared), written, job.data)
    return prepared


def run(
    job: Job,
    folder: RunFolder,
    prepared: Prepared | None = None,
    *,
    on_step: Callable[[int, Metrics], None] | None = None,
    on_method: Callable[[str], None] | None = None,
) -> Finished:
    """Does the whole job, or goes on from the folder's last checkpoint.

    An interrupted job that is run again ends with bitwise the same commentary, metrics and
    results as one that was not, on the same machine with the same number of threads.

    Args:
        job: The configuration, the same each time.
        folder: Where checkpoints, metrics and results go.
        prepared: The examples; read anew unless given.
        on_step: Called with the outer step and its metrics.
        on_method: Called with the name of a method before it runs.
    """
    prepared = prepared or prepare_again(job, folder)
    if not (folder.path / SPLITS).exists():
        folder.write_json(SPLITS, splits(prepared))
    task = prepared.task
    learner = make_learner(job, task, prepared.student)
    state = _started(job, folder, learner)
    state = take(
        folder,
        state,
        learner.steps(state),
        last=job.settings.steps,
        checkpoint_every=job.checkpoint_every,
        metrics=lambda result: _metrics(learner, result),
        more=lambda state: _weights(learner, state),
        on_step=on_step,
    )
    learned = learner.learned(state)
    if on_method is not None:
        on_method("ours")
    recipe = recipe_for(job, task.train)
    verdict = conclude(learner.evidence, learner.student, learned, seed=job.seed, recipe=recipe)
    outcomes = {"ours": verdict.outcome}
    bench = controls.Bench(task, learner.student, learner.evidence, learned, job.seed, recipe)
    for name in control_names(job.controls) if can_score(task) else ():
        if on_method is not None:
            on_method(name)
        outcomes |= controls.run([name], bench)
    finished = Finished(prepared, learned, verdict, outcomes)
    save(finished, folder)
    return finished


def can_score(task: Task) -> bool:
    """Whether methods can be told apart: by test examples, or by known wrong labels."""
    return task.test is not None or task.truth is not None


def control_names(choice: Controls) -> tuple[str, ...]:
    """The controls of a choice, in the order in which they run."""
    if choice == "all":
        return tuple(controls.CONTROLS)
    return QUICK if choice == "quick" else ()


def save(finished: Finished, folder: RunFolder) -> None:
    """Writes ``weights.csv``, ``cleaned.txt``, ``corrected.csv`` and, last, ``result.json``."""
    lines = _lines(finished)
    write_weights(folder, lines)
    write_cleaned(folder, lines, finished.prepared.checked)
    folder.write_json("result.json", summary(finished))


def summary(finished: Finished) -> dict[str, Any]:
    """The content of ``result.json``."""
    outcomes, weight, task = finished.outcomes, finished.learned.weight, finished.task
    return {
        **scores(outcomes),
        "examples": task.size,
        "trusted": len(task.trusted),
        "trusted_from": finished.prepared.trusted_from,
        "checked": len(finished.prepared.checked),
        "test": 0 if task.test is None else len(task.test),
        "effective_sample_size": float(effective_sample_size(weight)),
        "mean_weight": float(weight.mean()),
        "suggested_differs": int((finished.verdict.suggested != task.train.y.cpu()).sum()),
        "look_at": advice(finished),
    }


def advice(finished: Finished) -> Advice | None:
    """How many of the most suspicious to look at; None without a fair sample of right labels."""
    fair = finished.prepared.fair
    if not fair:
        return None
    suspicion, trusted = finished.verdict.suspicion, finished.verdict.trusted_suspicion
    return advise(suspicion.numpy(), trusted[:fair].numpy())


def scores(outcomes: dict[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Each score of `Outcome`, of each method by name."""
    return {
        "accuracy": {name: outcome.accuracy for name, outcome in outcomes.items()},
        "auroc": {name: outcome.auroc for name, outcome in outcomes.items()},
        "auroc_rescored": {name: outcome.auroc_rescored for name, outcome in outcomes.items()},
    }


def _started(job: Job, folder: RunFolder, learner: Learner) -> TrainState:
    if job.corrections and not folder.checkpoint.exists():
        raise BadRun(
            f"The review {folder.path} was stopped before it began. Remove the folder and run "
            "commentaries review once more."
        )
    return resumed(folder, learner.start())


def _metrics(learner: Learner, result: StepResult) -> Metrics:
    """One line of ``metrics.jsonl``."""
    share = learner.batch_sample_size(result.state)
    return {**diagnostics(result), "effective_sample_size": share}


def _weights(learner: Learner, state: TrainState) -> dict[str, Any]:
    """Quantiles of all weights, of right and wrong labels apart where these are known.

    Only for steps after which the cues are made anew: it costs as much as that.
    """
    if state.step % learner.settings.refresh_every:
        return {}
    weight, wrong = learner.weights(state), learner.task.wrong
    groups = {"all": weight}
    if wrong is not None:
        groups = {"right": weight[~wrong.cpu()], "wrong": weight[wrong.cpu()]}
    at = torch.tensor(QUANTILES, dtype=weight.dtype)
    found = {name: group.quantile(at).tolist() for name, group in groups.items() if len(group)}
    return {"weights": found}


def _lines(finished: Finished) -> list[Line]:
    task, verdict = finished.task, finished.verdict
    names = task.train.classes
    columns = zip(
        task.train.y.tolist(),
        finished.learned.weight.tolist(),
        verdict.suspicion.tolist(),
        verdict.suggested.tolist(),
        verdict.confidence.tolist(),
        strict=True,
    )
    return [
        Line(task.train.file(row), names[label], weight, suspicion, names[likely], confidence)
        for row, (label, weight, suspicion, likely, confidence) in enumerate(columns)
    ]
