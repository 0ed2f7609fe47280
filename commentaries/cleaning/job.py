"""The main job from configuration to results, in a run folder that survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor

from ..commentary import effective_sample_size
from ..data import NOISES, LabelledImages, corrupt, load, split
from ..errors import BadInput, check_positive, unknown
from ..networks import cbr, small_cnn
from ..student import Student
from ..training import RunFolder, StepResult, TrainState
from . import controls
from .final import Verdict, conclude
from .learner import Learned, Learner, Settings
from .methods import Outcome
from .task import Task
from .weights_table import Line, write_weights

Controls = Literal["quick", "all", "none"]
StudentName = Literal["small_cnn", "cbr"]

_NETWORKS = {"small_cnn": small_cnn, "cbr": cbr}

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


@dataclass(frozen=True)
class Job:
    """Find wrong labels in a data set, beside controls.

    Attributes:
        data: Name of the data set.
        noise: How labels are made wrong: none, uniform, pair or block (see `data.corrupt`).
        rate: Share of the training labels that are made wrong.
        train: Number of training examples.
        trusted: Number of trusted examples, at least one for each class.
        test: Number of test examples.
        seed: Of the split, the noise and the training.
        threads: Of torch's kernels; one is fastest for small networks, and a run is bitwise
            repeatable for one number of threads.
        controls: "quick": those that take seconds. "all": all of them. "none".
        checkpoint_every: Outer steps between checkpoints, at most as many as a kill loses.
        settings: How the weights are learned.
    """

    data: str = "digits"
    noise: str = "uniform"
    rate: float = 0.4
    train: int = 1300
    trusted: int = 100
    test: int = 397
    seed: int = 0
    threads: int = 1
    controls: Controls = "quick"
    checkpoint_every: int = 50
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.controls not in get_args(Controls):
            raise unknown("choice of controls", self.controls, get_args(Controls))
        if self.noise not in NOISES:
            raise unknown("kind of noise", self.noise, NOISES)
        for name in ("train", "trusted", "test", "threads", "checkpoint_every"):
            check_positive(name, getattr(self, name))
        if not 0 <= self.rate < 1:
            raise BadInput(f"The noise rate is {self.rate}, but must be at least 0 and below 1.")
        if self.seed < 0:
            raise BadInput(f"seed is {self.seed}, but must not be negative. Choose 0 or more.")


class Finished(NamedTuple):
    """All that a finished job knows.

    Attributes:
        task: The examples.
        learned: The weights and the averaged students' opinion.
        verdict: On every training example.
        outcomes: Of every method by name; "ours" first.
    """

    task: Task
    learned: Learned
    verdict: Verdict
    outcomes: dict[str, Outcome]


def make_task(job: Job) -> Task:
    """Loads, splits and corrupts a data set: a function of the configuration alone."""
    images = load(job.data)
    parts = split(images.y, train=job.train, trusted=job.trusted, test=job.test, seed=job.seed)

    def part(rows: Tensor, labels: Tensor | None = None) -> LabelledImages:
        x, y = images.rows(rows)
        return LabelledImages(x, y if labels is None else labels, images.classes, images.name)

    x, truth = images.rows(parts.train)
    given = corrupt(
        x,
        truth,
        noise=job.noise,
        rate=job.rate,
        classes=len(images.classes),
        seed=10_000 + job.seed,
    )
    return Task(part(parts.train, given), part(parts.trusted), truth, part(parts.test))


def make_student(task: Task, name: StudentName = "small_cnn") -> Student:
    """A network for the images and classes of a task.

    Raises:
        BadInput: An unknown name.
    """
    if name not in _NETWORKS:
        raise unknown("student", name, get_args(StudentName))
    channels, size = task.train.x.shape[1:3]
    return Student(lambda: _NETWORKS[name](task.classes, channels=channels, size=size))


def make_learner(job: Job, task: Task) -> Learner:
    """The bilevel problem of a job."""
    return Learner(task, make_student(task), job.settings, seed=job.seed)


def run(
    job: Job,
    folder: RunFolder,
    *,
    on_step: Callable[[int, dict[str, float | None]], None] | None = None,
    on_method: Callable[[str], None] | None = None,
) -> Finished:
    """Does the whole job, or goes on from the folder's last checkpoint.

    An interrupted job that is run again ends with bitwise the same commentary, metrics and
    results as one that was not, on the same machine with the same number of threads.

    Args:
        job: The configuration, the same each time.
        folder: Where checkpoints, metrics and results go.
        on_step: Called with the outer step and its metrics.
        on_method: Called with the name of a method before it runs.
    """
    task = make_task(job)
    learner = make_learner(job, task)
    state = _resumed(folder, learner)
    for result in learner.steps(state):
        state = result.state
        metrics = _metrics(learner, result)
        folder.log(state.step - 1, **metrics)
        if on_step is not None:
            on_step(state.step, metrics)
        if state.step % job.checkpoint_every == 0 or state.step == job.settings.steps:
            folder.save_checkpoint(state)
    learned = learner.learned(state)
    if on_method is not None:
        on_method("ours")
    verdict = conclude(learner.evidence, learner.student, learned, seed=job.seed)
    outcomes = {"ours": verdict.outcome}
    bench = controls.Bench(task, learner.student, learner.evidence, learned, job.seed)
    for name in control_names(job.controls):
        if on_method is not None:
            on_method(name)
        outcomes |= controls.run([name], bench)
    finished = Finished(task, learned, verdict, outcomes)
    save(finished, folder)
    return finished


def control_names(choice: Controls) -> tuple[str, ...]:
    """The controls of a choice, in the order in which they run."""
    if choice == "all":
        return tuple(controls.CONTROLS)
    return QUICK if choice == "quick" else ()


def save(finished: Finished, folder: RunFolder) -> None:
    """Writes ``weights.csv`` and, last, ``result.json``."""
    write_weights(folder, _lines(finished))
    folder.write_json("result.json", summary(finished))


def summary(finished: Finished) -> dict[str, Any]:
    """The content of ``result.json``."""
    outcomes, weight = finished.outcomes, finished.learned.weight
    return {
        **scores(outcomes),
        "examples": finished.task.size,
        "trusted": len(finished.task.trusted),
        "effective_sample_size": float(effective_sample_size(weight)),
        "mean_weight": float(weight.mean()),
        "suggested_differs": int((finished.verdict.suggested != finished.task.train.y).sum()),
    }


def scores(outcomes: dict[str, Outcome]) -> dict[str, dict[str, float | None]]:
    """Each score of `Outcome`, of each method by name."""
    return {
        "accuracy": {name: outcome.accuracy for name, outcome in outcomes.items()},
        "auroc": {name: outcome.auroc for name, outcome in outcomes.items()},
        "auroc_rescored": {name: outcome.auroc_rescored for name, outcome in outcomes.items()},
    }


def _resumed(folder: RunFolder, learner: Learner) -> TrainState:
    state = learner.start()
    if folder.checkpoint.exists():
        state = folder.load_checkpoint(state)
        folder.warn_if_threads_differ()
    folder.rewind(state.step)
    return state


def _metrics(learner: Learner, result: StepResult) -> dict[str, float | None]:
    """One line of ``metrics.jsonl``: means over the students."""

    def mean(name: str) -> float | None:
        values = [each.get(name) for each in result.diagnostics]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        "loss": mean("inner_loss"),
        "outer_loss": float(result.outer_loss),
        "stationarity": mean("stationarity"),
        "relative_residual": mean("relative_residual"),
        "effective_sample_size": learner.batch_sample_size(result.state),
    }


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
        Line(f"{task.train.name}/{row}", names[label], weight, suspicion, names[likely], confidence)
        for row, (label, weight, suspicion, likely, confidence) in enumerate(columns)
    ]
