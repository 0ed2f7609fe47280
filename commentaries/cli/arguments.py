"""The commands and their options, and how arguments become them."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..cleaning.learner import Settings
from ..cleaning.options import Job
from ..errors import CommentariesError
from ..teaching.few_shot_options import FewShotJob
from ..teaching.options import MasksJob, MixupJob
from ..teaching.options import Settings as LessonSettings
from ..training import Recipe

Preset = Literal["default", "smoke"]

AnyJob = Job | MixupJob | MasksJob | FewShotJob

JOBS: dict[str, type[AnyJob]] = {
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
    jobs: dict[str, Any] = {kind: job() for kind, job in JOBS.items()}
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
