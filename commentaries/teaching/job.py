"""A job on lessons from configuration to results, in a run folder that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch

from ..commentary import Commentary
from ..data.record import check_unchanged, record
from ..errors import BadInput, BadRun
from ..student import Student
from ..training import Recipe, RunFolder, StepResult, TrainState, checkpoint
from ..training.recorded import Metrics, diagnostics, resumed, take
from ..training.students import check_device, network_name, rate_scale, student_for
from ..types import Batch, Params
from .learner import Learner
from .marked_sets import gather_marked
from .masking import Masking
from .methods import OURS
from .mixing import Mixing
from .options import MARKED, Controls, LessonJob, MasksJob, MixupJob
from .parts import Parts, gather

SPLITS = "splits.json"
STUDENTS = "students"
KEPT = {OURS: "ours.pt", "no mask": "no-mask.pt", "no mixing": "no-mixing.pt"}
"""Files of the students of these methods, in the folder `STUDENTS` of a run."""

SNAPSHOTS = 8
"""Commentaries that a run keeps on the way, at most."""


class Topic(Protocol):
    """What a kind of job adds: the commentary, what is said of it, and its controls."""

    @property
    def commentary(self) -> Commentary:
        """What is learned."""
        ...

    @property
    def through(self) -> bool:
        """Whether the student sees validation and test examples through the commentary too."""
        ...

    def methods(self, choice: Controls) -> tuple[str, ...]:
        """The controls of a choice, in the order in which they run."""
        ...

    def metrics(self, phi: Params, progress: float) -> Metrics:
        """What is logged of the commentary whenever it is kept."""
        ...

    def summary(self, phi: Params) -> dict[str, Any]:
        """What ``result.json`` holds of the commentary."""
        ...

    def compare(
        self,
        phi: Params,
        student: Student,
        recipe: Recipe,
        *,
        seed: int,
        names: Sequence[str],
        on_method: Callable[[str], None] | None = None,
        on_student: Callable[[str, Params], None] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Trains a student with what was learned and one for each control.

        ``on_method`` is called with the name of a method before it runs, ``on_student`` with the
        name and the parameters of its student after.
        """
        ...


class Prepared(NamedTuple):
    """What a job works on."""

    parts: Parts
    student: Student
    topic: Topic


def prepare(job: LessonJob) -> Prepared:
    """Reads and splits the data, and builds what is learned.

    Raises:
        BadInput: Data or options that cannot be used.
    """
    check_device(job.device)
    parts, topic = _topic(job)
    student = student_for(parts.train, job.student)
    x, y = parts.train.x[:1].cpu(), parts.train.y[:1].cpu()
    phi = topic.commentary.init(torch.Generator())
    with torch.no_grad():
        topic.commentary(phi, Batch(x, y, y))  # refuses images that it cannot read
    return Prepared(parts, student, topic)


def prepare_again(job: LessonJob, folder: RunFolder) -> Prepared:
    """The examples of a run that has begun, which must be those with which it began.

    Raises:
        BadInput: The data cannot be read any more.
        BadRun: They have changed.
    """
    prepared = prepare(job)
    if (folder.path / SPLITS).exists():
        check_unchanged(_splits(prepared.parts), folder.read_json(SPLITS), job.data)
    return prepared


def make_learner(job: LessonJob, prepared: Prepared) -> Learner:
    """The bilevel problem of a job."""
    settings = replace(job.settings, lr=_scale(job, prepared, job.student) * job.settings.lr)
    return Learner(
        prepared.parts.train,
        prepared.parts.validation,
        prepared.student,
        prepared.topic.commentary,
        settings,
        seed=job.seed,
        through=prepared.topic.through,
        augment=job.recipe.augment,
    )


def run(
    job: LessonJob,
    folder: RunFolder,
    prepared: Prepared | None = None,
    *,
    on_step: Callable[[int, Metrics], None] | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Does the whole job, or goes on from the folder's last checkpoint.

    An interrupted job that is run again ends with bitwise the same commentary, metrics and
    results as one that was not, on the same machine with the same number of threads.

    Args:
        job: The configuration, the same each time.
        folder: Where checkpoints, metrics and results go.
        prepared: The examples; read anew unless given.
        on_step: Called with the outer steps taken and their metrics.
        on_method: Called with the name of a method before it runs.

    Returns:
        What ``result.json`` holds.
    """
    prepared = prepared or prepare_again(job, folder)
    if not (folder.path / SPLITS).exists():
        folder.write_json(SPLITS, _splits(prepared.parts))
    learner, topic = make_learner(job, prepared), prepared.topic
    steps = job.settings.steps
    every = -(-steps // SNAPSHOTS)

    def measured(result: StepResult) -> Metrics:
        return diagnostics(result)

    def more(state: TrainState) -> dict[str, Any]:
        if state.step % every:
            return {}
        return {"commentary": topic.metrics(state.phi, min(state.step / steps, 1.0))}

    state = resumed(folder, learner.start())
    state = take(
        folder,
        state,
        learner.steps(state),
        last=steps,
        checkpoint_every=job.checkpoint_every,
        metrics=measured,
        more=more,
        history_every=every,
        on_step=on_step,
    )
    found = topic.compare(
        state.phi,
        prepared.student,
        recipe_for(job, prepared, job.student),
        seed=job.seed,
        names=(OURS, *topic.methods(job.controls)),
        on_method=on_method,
        on_student=lambda name, theta: _keep_student(folder, name, theta),
    )
    result = {
        "methods": found,
        **{name: len(getattr(prepared.parts, name)) for name in ("train", "validation", "test")},
        **topic.summary(state.phi),
    }
    folder.write_json("result.json", result)
    return result


def learned(job: LessonJob, folder: RunFolder, prepared: Prepared) -> TrainState:
    """The last state of a run that has learned to its end.

    Raises:
        BadRun: It has not, or its checkpoint cannot be read.
    """
    state = folder.load_checkpoint(make_learner(job, prepared).start())
    if state.step < job.settings.steps:
        raise BadRun(
            f"The run {folder.path} has taken {state.step} of {job.settings.steps} steps. Resume "
            "it to its end first."
        )
    return state


def teach(
    job: LessonJob,
    folder: RunFolder,
    name: str | None = None,
    *,
    seed: int = 1,
    steps: int | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains new students with the frozen commentary of a run, and with its controls.

    Args:
        job: The configuration of the run.
        folder: Of the run; gets ``teach-<name>-<seed>.json``.
        name: Of the network; that of the run unless given.
        seed: Of the new students.
        steps: Training steps of each student; those of the job's recipe unless given.
        on_method: Called with the name of a method before it runs.

    Returns:
        What the file holds.

    Raises:
        BadInput: An unknown network, a negative seed, or steps that are not positive.
        BadRun: The run has not learned to its end, or its checkpoint cannot be read.
    """
    if seed < 0:
        raise BadInput(f"seed is {seed}, but must not be negative. Choose 0 or more.")
    prepared = prepare_again(job, folder)
    name = network_name(prepared.parts.train, name or job.student)
    student = student_for(prepared.parts.train, name)
    recipe = recipe_for(job, prepared, name)
    if steps is not None:
        recipe = replace(recipe, steps=steps, passes=0)
    state = learned(job, folder, prepared)
    topic = prepared.topic
    names = (OURS, *topic.methods(job.controls))
    found = topic.compare(state.phi, student, recipe, seed=seed, names=names, on_method=on_method)
    result = {
        "student": name,
        "seed": seed,
        "steps": recipe.steps_for(len(prepared.parts.train)),
        "methods": found,
    }
    folder.write_json(f"teach-{name.replace(':', '-')}-{seed}.json", result)
    return result


def _keep_student(folder: RunFolder, name: str, theta: Params) -> None:
    """Of the students of the comparison, keeps that of ours and the one without a commentary."""
    if name in KEPT:
        (folder.path / STUDENTS).mkdir(exist_ok=True)
        checkpoint.save(folder.path / STUDENTS / KEPT[name], theta)


def student_of(folder: RunFolder, name: str, prepared: Prepared) -> Params | None:
    """The parameters of a student that a run has kept, if it has: `OURS`, "no mask"."""
    path = folder.path / STUDENTS / KEPT[name]
    if not path.exists():
        return None
    device = prepared.parts.train.x.device
    fresh = prepared.student.init(torch.Generator())
    return checkpoint.load(path, {name: value.to(device) for name, value in fresh.items()})


def _topic(job: LessonJob) -> tuple[Parts, Topic]:
    if isinstance(job, MasksJob):
        parts, marks = gather_marked(job) if job.data in MARKED else (gather(job), None)
        parts = parts.to(job.device)
        return parts, Masking(job, parts, None if marks is None else marks.to(job.device))
    assert isinstance(job, MixupJob)
    parts = gather(job).to(job.device)
    return parts, Mixing(job, parts)


def recipe_for(job: LessonJob, prepared: Prepared, name: str | None) -> Recipe:
    """The recipe of a job with the learning rate of a network."""
    return replace(job.recipe, lr=_scale(job, prepared, name) * job.recipe.lr)


def _scale(job: LessonJob, prepared: Prepared, name: str | None) -> float:
    return job.lr_scale or rate_scale(prepared.parts.train, name)


def _splits(parts: Parts) -> dict[str, Any]:
    named = {name: getattr(parts, name) for name in ("train", "validation", "test")}
    return record(named, skipped=parts.skipped)
