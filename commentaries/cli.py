"""The command line: arguments become typed options, and options become calls."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tqdm import tqdm

from .cleaning.job import SPLITS, prepare_again, run
from .cleaning.learner import Settings
from .cleaning.options import Job
from .cleaning.prepared import Prepared, prepare
from .cleaning.review import begin, review
from .cleaning.sources import draw_trusted_list
from .cleaning.teach import teach
from .cleaning.weights_table import most_distrusted, read_weights
from .errors import BadInput, CommentariesError
from .report import text_table
from .report.few_shot_page import few_shot_text, write_few_shot_page
from .report.lesson_page import write_lesson_page
from .report.terminal import (
    describe,
    describe_few_shot,
    describe_lesson,
    lesson_table,
    lesson_text,
    result_text,
    scores_table,
    short_metrics,
)
from .report.weights_page import write_weights_page
from .teaching import few_shot
from .teaching import job as lessons
from .teaching.few_shot_options import FewShotJob
from .teaching.options import LessonJob, MasksJob, MixupJob
from .teaching.options import Settings as LessonSettings
from .training import Recipe, RunFolder, default_path
from .training.config import read_config

SKIPPED_SHOWN = 10

Preset = Literal["default", "smoke"]

AnyJob = Job | MixupJob | MasksJob | FewShotJob

KINDS: dict[str, type[AnyJob]] = {
    "weights": Job,
    "mixup": MixupJob,
    "masks": MasksJob,
    "fewshot": FewShotJob,
}
"""What a run may be, by the ``kind`` in its configuration."""

_BRIEF: dict[str, Any] = {
    "controls": "none",
    "settings": LessonSettings(steps=40, warm_up=5),
    "recipe": Recipe(steps=60, weight_decay=5e-4),
}
SMOKE: dict[str, AnyJob] = {
    "weights": Job(controls="none", settings=Settings(steps=60, warm_up=5, refresh_every=10)),
    "mixup": MixupJob(**_BRIEF),
    "masks": MasksJob(**_BRIEF),
    "fewshot": FewShotJob(meta_steps=5, tasks=2, query=5, width=8, steps=2, episodes=10),
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
class LearnMixup:
    """Learn in which ratio examples of two classes are mixed, and train a student so.

    Attributes:
        job: What to do.
        out: The run's folder, missing or empty; runs/mixup-DATE if not given.
        preset: Where the other options start from: "smoke" takes seconds and proves only that
            everything works.
    """

    job: Annotated[MixupJob, tyro.conf.arg(name="")] = field(default_factory=MixupJob)
    out: Path | None = None
    preset: Preset = "default"


@dataclass(frozen=True)
class LearnMasks:
    """Learn where in an image a student should look, and train a student so.

    Attributes:
        job: What to do. Besides the sets by name, data may be one that is made for masks:
            digits_on_photos (needs no download), coloured_mnist, pasted_digits, pasted_photos or
            swapped_backgrounds.
        out: The run's folder, missing or empty; runs/masks-DATE if not given.
        preset: Where the other options start from: "smoke" takes seconds and proves only that
            everything works.
    """

    job: Annotated[MasksJob, tyro.conf.arg(name="")] = field(default_factory=MasksJob)
    out: Path | None = None
    preset: Preset = "default"


@dataclass(frozen=True)
class LearnFewShot:
    """Learn an initialisation that a few steps adapt to classes of which it has seen none.

    Attributes:
        job: What to do.
        out: The run's folder, missing or empty; runs/fewshot-DATE if not given.
        preset: Where the other options start from: "smoke" takes seconds and proves only that
            everything works.
    """

    job: Annotated[FewShotJob, tyro.conf.arg(name="")] = field(default_factory=FewShotJob)
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
        student: The network of the new student: small_cnn, conv2, cbr, conv4, resnet18,
            resnet32, resnet34, wide_resnet, shake_shake, pyramidnet, pyramidnet_shakedrop,
            torchvision:NAME or timm:NAME; that which suits the images if not given.
        seed: Of the new student.
        steps: Of its training; if not given, as many as the final students of a run take.
    """

    run: RunPath
    student: str | None = None
    seed: int = 1
    steps: int | None = None


@dataclass(frozen=True)
class Review:
    """Correct labels of a finished run and go on, in a new run, from where it ended.

    Attributes:
        run: The finished run's folder, of which nothing changes.
        accept: A .csv with the columns file and label: the right label of each image that you
            have looked at, - for an image to be dropped. weights.csv will do, with the labels put
            right and without the lines that you have not looked at.
        out: The new run's folder; RUN-review if not given.
    """

    run: RunPath
    accept: Path
    out: Path | None = None


Learn = LearnWeights | LearnMixup | LearnMasks | LearnFewShot
_LEARN: dict[str, type[Learn]] = {
    "weights": LearnWeights,
    "mixup": LearnMixup,
    "masks": LearnMasks,
    "fewshot": LearnFewShot,
}
Command = Learn | Resume | Inspect | Teach | Review


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
    if isinstance(command, Learn) and command.preset != "default":
        return _parse(argv, command.preset)
    return command


def _parse(argv: Sequence[str], preset: str) -> Command:
    jobs: dict[str, Any] = {kind: job() for kind, job in KINDS.items()}
    if preset == "smoke":
        jobs |= SMOKE
    topics = tyro.extras.subcommand_type_from_defaults(
        {kind: learn(jobs[kind]) for kind, learn in _LEARN.items()}
    )
    learn: Any = Annotated[topics, tyro.conf.subcommand("learn", description="Learn a commentary.")]
    commands: Any = (
        learn
        | Annotated[Resume, tyro.conf.subcommand("resume")]
        | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Teach, tyro.conf.subcommand("teach")]
        | Annotated[Review, tyro.conf.subcommand("review")]
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
    elif isinstance(command, LearnMixup | LearnMasks):
        _learn_lesson(command)
    elif isinstance(command, LearnFewShot):
        _learn_few_shot(command)
    elif isinstance(command, Resume):
        _resume(command)
    elif isinstance(command, Inspect):
        _inspect(command)
    elif isinstance(command, Teach):
        _teach(command)
    else:
        _review(command)


def _learn_weights(command: LearnWeights) -> None:
    job = command.job.settled()
    torch.set_num_threads(job.threads)
    if job.trusted_list is not None and not job.trusted_list.exists():
        count = draw_trusted_list(job)
        print(
            f"Wrote {count:,} images with their given labels to {job.trusted_list}. Look at these "
            "images, correct the labels there, and run the same command again."
        )
        return
    prepared = prepare(job)  # what cannot work is refused before there is a folder
    folder = RunFolder.create(command.out or default_path("weights"), job, device=job.device)
    _finish(job, folder, prepared)


def _learn_lesson(command: LearnMixup | LearnMasks) -> None:
    job = command.job.settled()
    torch.set_num_threads(job.threads)
    prepared = lessons.prepare(job)  # what cannot work is refused before there is a folder
    folder = RunFolder.create(command.out or default_path(job.kind), job, device=job.device)
    _finish_lesson(job, folder, prepared)


def _learn_few_shot(command: LearnFewShot) -> None:
    job = command.job.settled()
    torch.set_num_threads(job.threads)
    prepared = few_shot.prepare(job)  # what cannot work is refused before there is a folder
    folder = RunFolder.create(command.out or default_path(job.kind), job, device=job.device)
    _finish_few_shot(job, folder, prepared)


def _resume(command: Resume) -> None:
    folder = RunFolder.open(command.run)
    job = read_config(folder, KINDS)
    torch.set_num_threads(job.threads)
    if not _is_finished(folder):
        if isinstance(job, Job):
            _finish(job, folder, prepare_again(job, folder))
        elif isinstance(job, FewShotJob):
            _finish_few_shot(job, folder, few_shot.prepare_again(job, folder))
        else:
            _finish_lesson(job, folder, lessons.prepare_again(job, folder))
        return
    print(f"The run {folder.path} is already finished.")
    if not (folder.path / "report.html").exists():
        print(f"Wrote {_write_page(folder, job)}.")


def _write_page(folder: RunFolder, job: AnyJob) -> Path:
    if isinstance(job, Job):
        return write_weights_page(folder, job, prepare_again(job, folder))
    if isinstance(job, FewShotJob):
        return write_few_shot_page(folder, job)
    return write_lesson_page(folder, job, lessons.prepare_again(job, folder))


def _inspect(command: Inspect) -> None:
    folder = RunFolder.open(command.run)
    job, metrics = read_config(folder, KINDS), folder.metrics()
    taken = metrics[-1]["step"] + 1 if metrics else 0
    if isinstance(job, FewShotJob):
        about = describe_few_shot(job)
    else:
        about = describe(job, folder) if isinstance(job, Job) else describe_lesson(job, folder)
    print(f"{folder.path}: {about}")
    print(f"{taken} of {_steps(job)} steps")
    if metrics:
        last = short_metrics(metrics[-1])
        print("last step: " + ", ".join(f"{name} {value}" for name, value in last.items()))
    if not _is_finished(folder):
        print(f"not finished; go on with: commentaries resume {folder.path}")
        return
    if not isinstance(job, Job):
        few = isinstance(job, FewShotJob)
        print(few_shot_text(job, folder) if few else lesson_text(job, folder))
        return
    print(result_text(folder))
    print("The most distrusted:\n")
    lines = read_weights(folder)
    rows = [lines[row] for row in most_distrusted(lines, 10)]
    print(text_table(rows[0]._fields, rows))


def _teach(command: Teach) -> None:
    folder = RunFolder.open(command.run)
    job = read_config(folder, KINDS)
    torch.set_num_threads(job.threads)
    name, seed, steps = command.student, command.seed, command.steps
    if isinstance(job, Job):
        found = teach(job, folder, name, seed=seed, steps=steps, on_method=_say_method)
        print(scores_table(found))
    elif isinstance(job, FewShotJob):
        raise BadInput(
            f"{folder.path} is a run of `learn fewshot`, which teaches no other student. Give a "
            "run of `learn weights`, `learn mixup` or `learn masks`."
        )
    else:
        found = lessons.teach(job, folder, name, seed=seed, steps=steps, on_method=_say_method)
        print(lesson_table(found["methods"]))


def _review(command: Review) -> None:
    old = RunFolder.open(command.run)
    job = read_config(old, KINDS)
    if not isinstance(job, Job):
        raise BadInput(
            f"{old.path} is a run of `learn {job.kind}`, which doubts no labels. Review a run of "
            "`learn weights`."
        )
    torch.set_num_threads(job.threads)
    found = review(job, old, command.accept)
    folder = begin(found, old, command.out)
    _finish(found.job, folder, found.prepared)


def _finish(job: Job, folder: RunFolder, prepared: Prepared) -> None:
    """Takes a run from wherever it is to its report."""
    _say_skipped(prepared.skipped)
    with _shown(job, folder) as said:
        run(job, folder, prepared, **said)
        page = write_weights_page(folder, job, prepared)
    print(result_text(folder))
    print(
        f"All weights: {folder.path / 'weights.csv'}. Images to keep: "
        f"{folder.path / 'cleaned.txt'}. Report: {page}."
    )


def _finish_lesson(job: LessonJob, folder: RunFolder, prepared: lessons.Prepared) -> None:
    """Takes a run on mixing or masks from wherever it is to its report."""
    _say_skipped(prepared.parts.skipped)
    with _shown(job, folder) as said:
        lessons.run(job, folder, prepared, **said)
        page = write_lesson_page(folder, job, prepared)
    print(lesson_text(job, folder))
    print(f"Report: {page}.")


def _finish_few_shot(job: FewShotJob, folder: RunFolder, prepared: few_shot.Prepared) -> None:
    """Takes a run on few-shot learning from wherever it is to its report."""
    with _shown(job, folder) as said:
        few_shot.run(job, folder, prepared, **said)
        page = write_few_shot_page(folder, job)
    print(few_shot_text(job, folder))
    print(f"Report: {page}.")


@contextlib.contextmanager
def _shown(job: Job | LessonJob | FewShotJob, folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Progress on the screen while a run goes on, and how to go on where it is interrupted."""
    print(f"run folder: {folder.path}", file=sys.stderr)
    try:
        with tqdm(total=_steps(job), disable=None, unit="step") as bar:

            def on_step(step: int, metrics: dict[str, float | None]) -> None:
                bar.set_postfix(short_metrics(metrics), refresh=False)
                bar.update(step - bar.n)

            def on_method(name: str) -> None:
                bar.close()
                _say_method(name)

            yield {"on_step": on_step, "on_method": on_method}
    except KeyboardInterrupt:
        print(f"\nStopped. Go on with: commentaries resume {folder.path}", file=sys.stderr)
        raise


def _steps(job: Job | LessonJob | FewShotJob) -> int:
    return job.meta_steps if isinstance(job, FewShotJob) else job.settings.steps


def _is_finished(folder: RunFolder) -> bool:
    return (folder.path / "result.json").exists()


def _say_method(name: str) -> None:
    print(f"training: {name.replace('_', ' ')}", file=sys.stderr)


def _say_skipped(skipped: Sequence[str]) -> None:
    for text in skipped[:SKIPPED_SHOWN]:
        print(f"warning: {text}", file=sys.stderr)
    more = len(skipped) - SKIPPED_SHOWN
    if more > 0:
        print(f"warning: {more:,} more images were left out; see {SPLITS}.", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
