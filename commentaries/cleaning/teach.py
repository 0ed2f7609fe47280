"""A new student, perhaps of another architecture, taught by the commentary of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import BadInput, BadRun
from ..training import RunFolder
from ..training.students import network_name
from . import controls
from .final import conclude
from .job import make_learner, make_student, prepare_again, scores
from .methods import Outcome
from .options import Job
from .prepared import recipe_for

BESIDE = ("unweighted", "shuffled_weights", "constant_weight", "oracle")


def teach(
    job: Job,
    folder: RunFolder,
    name: str | None = None,
    *,
    seed: int = 1,
    steps: int | None = None,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains a new student with the frozen weights of a run, beside controls.

    Args:
        job: The configuration of the run.
        folder: Of the run; gets ``teach-<name>-<seed>.json``.
        name: Of the network, see `Job.student`; that which suits the images unless given.
        seed: Of the new student.
        steps: Training steps of each student; those of the job's recipe unless given.
        on_method: Called with the name of a method before it runs.

    Returns:
        What the file holds: the student, the seed, the steps, and the scores of each method.

    Raises:
        BadInput: An unknown network, a negative seed, or steps that are not positive.
        BadRun: The run has not learned to its end, or its checkpoint cannot be read.
    """
    if seed < 0:
        raise BadInput(f"seed is {seed}, but must not be negative. Choose 0 or more.")
    prepared = prepare_again(job, folder)
    task = prepared.task
    name = network_name(task.train, name)
    recipe = recipe_for(job, task.train, name)
    if steps is not None:
        recipe = replace(recipe, steps=steps, passes=0)
    student = make_student(task, name)
    learner = make_learner(job, task, prepared.student)
    state = folder.load_checkpoint(learner.start())
    if state.step < job.settings.steps:
        raise BadRun(
            f"The run {folder.path} has taken {state.step} of {job.settings.steps} steps. Resume "
            "it to its end first."
        )
    learned = learner.learned(state)
    outcomes: dict[str, Outcome] = {}
    bench = controls.Bench(task, student, learner.evidence, learned, seed, recipe)
    for method in ("ours", *BESIDE):
        if on_method is not None:
            on_method(method)
        if method == "ours":
            verdict = conclude(learner.evidence, student, learned, seed=seed, recipe=recipe)
            outcomes["ours"] = verdict.outcome
        else:
            outcomes |= controls.run([method], bench)
    found = {
        "student": name,
        "seed": seed,
        "steps": recipe.steps_for(task.size),
        **scores(outcomes),
    }
    folder.write_json(f"teach-{name.replace(':', '-')}-{seed}.json", found)
    return found
