"""The command line: arguments become typed options, and options become calls."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tqdm import tqdm

from .cleaning.config import read_job
from .cleaning.job import Job, StudentName, make_task, run
from .cleaning.learner import Settings
from .cleaning.teach import teach
from .cleaning.weights_table import most_distrusted, read_weights
from .errors import CommentariesError
from .report import text_table
from .report.weights_page import COLUMNS, Scores, finding, method_rows, write_weights_page
from .training import RunFolder, default_path

Preset = Literal["default", "smoke"]

PRESETS: dict[str, Job] = {
    "default": Job(),
    "smoke": Job(
        train=400,
        test=200,
        controls="none",
        settings=Settings(steps=60, warm_up=5, refresh_every=10),
    ),
}

RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class LearnWeights:
    """Learn how much to trust each label, train a better student, and name the wrong labels.

    Attributes:
        job: What to do.
        out: The run's folder, missing or empty; runs/weights-DATE if not given.
        preset: Where the other options start from: "smoke" takes seconds and proves only that
            everything works.
    """

    job: Annotated[Job, tyro.conf.arg(name="")] = field(default_factory=Job)
    out: Path | None = None
    preset: Preset = "default"


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped; the result is the same as if it had not been.

    Attributes:
        run: The run's folder.
    """

    run: RunPath


@dataclass(frozen=True)
class Inspect:
    """Print what a run is, how far it has come and what it found.

    Attributes:
        run: The run's folder.
    """

    run: RunPath


@dataclass(frozen=True)
class Teach:
    """Train a new student with what a finished run has learned, beside controls.

    Attributes:
        run: The run's folder, which gets teach-STUDENT-SEED.json.
        student: The network of the new student.
        seed: Of the new student.
    """

    run: RunPath
    student: StudentName = "small_cnn"
    seed: int = 1


Command = LearnWeights | Resume | Inspect | Teach


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 for an error, 130 for an interruption.

    Args:
        argv: The arguments; those of the process unless given.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _do(parse(sys.argv[1:] if argv is None else argv))
    except CommentariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse(argv: Sequence[str]) -> Command:
    """The command that the arguments describe; a preset changes the defaults of the others.

    Raises:
        BadInput: A value is out of range.
        SystemExit: The arguments cannot be understood (2), or help was asked for (0).
    """
    command = _parse(argv, "default")
    if isinstance(command, LearnWeights) and command.preset != "default":
        return _parse(argv, command.preset)
    return command


def _parse(argv: Sequence[str], preset: str) -> Command:
    topics = tyro.extras.subcommand_type_from_defaults({"weights": LearnWeights(PRESETS[preset])})
    learn: Any = Annotated[topics, tyro.conf.subcommand("learn", description="Learn a commentary.")]
    commands: Any = (
        learn
        | Annotated[Resume, tyro.conf.subcommand("resume")]
        | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Teach, tyro.conf.subcommand("teach")]
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                commands,
                prog="commentaries",
                description="Learn how to teach a network.",
                args=argv,
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as exit:
        # tyro boxes the errors of nested options with internal names: ours say enough.
        cause: BaseException | None = exit
        while cause is not None:
            if isinstance(cause, CommentariesError):
                raise cause from None
            cause = cause.__context__
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _do(command: Command) -> None:
    if isinstance(command, LearnWeights):
        _learn_weights(command)
    elif isinstance(command, Resume):
        _resume(command)
    elif isinstance(command, Inspect):
        _inspect(command)
    else:
        _teach(command)


def _learn_weights(command: LearnWeights) -> None:
    job = command.job
    torch.set_num_threads(job.threads)
    make_task(job)  # what cannot work is refused before there is a folder
    _finish(job, RunFolder.create(command.out or default_path("weights"), job))


def _resume(command: Resume) -> None:
    folder = RunFolder.open(command.run)
    job = read_job(folder)
    torch.set_num_threads(job.threads)
    if not _is_finished(folder):
        _finish(job, folder)
        return
    print(f"The run {folder.path} is already finished.")
    if not (folder.path / "report.html").exists():
        print(f"Wrote {write_weights_page(folder, job, make_task(job))}.")


def _inspect(command: Inspect) -> None:
    folder = RunFolder.open(command.run)
    job, metrics = read_job(folder), folder.metrics()
    taken = metrics[-1]["step"] + 1 if metrics else 0
    print(
        f"{folder.path}: {job.data}, {job.train:,} training and {job.trusted:,} trusted examples, "
        f"{job.noise} noise at {job.rate:g}, seed {job.seed}, score {job.settings.score!r}, "
        f"controls {job.controls!r}"
    )
    print(f"{taken} of {job.settings.steps} steps")
    if metrics:
        print("last step: " + ", ".join(f"{name} {value}" for name, value in _shown(metrics[-1])))
    if not _is_finished(folder):
        print(f"not finished; go on with: commentaries resume {folder.path}")
        return
    result, lines = folder.read_json("result.json"), read_weights(folder)
    print(f"\n{_table(result)}\n\n{finding(result)} The most distrusted:\n")
    rows = [lines[row] for row in most_distrusted(lines, 10)]
    print(text_table(rows[0]._fields, rows))


def _teach(command: Teach) -> None:
    folder = RunFolder.open(command.run)
    job = read_job(folder)
    torch.set_num_threads(job.threads)
    found = teach(job, folder, command.student, seed=command.seed, on_method=_say_method)
    print(_table(found))


def _finish(job: Job, folder: RunFolder) -> None:
    """Takes a run from wherever it is to its report."""
    print(f"run folder: {folder.path}", file=sys.stderr)
    try:
        with tqdm(total=job.settings.steps, disable=None, unit="step") as bar:

            def on_step(step: int, metrics: dict[str, float | None]) -> None:
                bar.set_postfix(dict(_shown(metrics)), refresh=False)
                bar.update(step - bar.n)

            def on_method(name: str) -> None:
                bar.close()
                _say_method(name)

            finished = run(job, folder, on_step=on_step, on_method=on_method)
        page = write_weights_page(folder, job, finished.task)
    except KeyboardInterrupt:
        print(f"\nStopped. Go on with: commentaries resume {folder.path}", file=sys.stderr)
        raise
    result = folder.read_json("result.json")
    print(_table(result))
    print(f"\n{finding(result)} All weights: {folder.path / 'weights.csv'}. Report: {page}.")


def _is_finished(folder: RunFolder) -> bool:
    return (folder.path / "result.json").exists()


def _table(scores: Scores) -> str:
    return text_table(COLUMNS, method_rows(scores))


def _shown(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """Metrics by short names, without those that are not known."""
    names = {
        "loss": "loss",
        "outer_loss": "outer loss",
        "stationarity": "‖F‖",
        "relative_residual": "residual",
        "effective_sample_size": "effective share",
    }
    return [
        (short, f"{metrics[name]:.3g}")
        for name, short in names.items()
        if metrics.get(name) is not None
    ]


def _say_method(name: str) -> None:
    print(f"training: {name.replace('_', ' ')}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
