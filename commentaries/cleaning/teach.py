"""A new student, perhaps of another architecture, taught by the commentary of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BadInput, BadRun
from ..training import RunFolder
from . import controls
from .final import conclude
from .job import Job, StudentName, make_learner, make_student, make_task, scores
from .methods import Outcome

BESIDE = ("unweighted", "shuffled_weights", "constant_weight", "oracle")


def teach(
    job: Job,
    folder: RunFolder,
    name: StudentName = "small_cnn",
    *,
    seed: int = 1,
    on_method: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Trains a new student with the frozen weights of a run, beside controls.

    Args:
        job: The configuration of the run.
        folder: Of the run; gets ``teach-<name>-<seed>.json``.
        name: Of the network.
        seed: Of the new student.
        on_method: Called with the name of a method before it runs.

    Returns:
        What the file holds: the student, the seed, and the scores of each method.

    Raises:
        BadInput: An unknown network, or a negative seed.
        BadRun: The run has not learned to its end, or its checkpoint cannot be read.
    """
    if seed < 0:
        raise BadInput(f"seed is {seed}, but must not be negative. Choose 0 or more.")
    task = make_task(job)
    student = make_student(task, name)
    learner = make_learner(job, task)
    state = folder.load_checkpoint(learner.start())
    if state.step < job.settings.steps:
        raise BadRun(
            f"The run {folder.path} has taken {state.step} of {job.settings.steps} steps. Resume "
            "it to its end first."
        )
    learned = learner.learned(state)
    outcomes: dict[str, Outcome] = {}
    bench = controls.Bench(task, student, learner.evidence, learned, seed)
    for method in ("ours", *BESIDE):
        if on_method is not None:
            on_method(method)
        if method == "ours":
            outcomes["ours"] = conclude(learner.evidence, student, learned, seed=seed).outcome
        else:
            outcomes |= controls.run([method], bench)
    found = {"student": name, "seed": seed, **scores(outcomes)}
    folder.write_json(f"teach-{name}-{seed}.json", found)
    return found
