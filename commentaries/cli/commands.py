"""What each command does."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from ..cleaning.job import SPLITS
from ..cleaning.options import Job
from ..cleaning.review import begin, review
from ..cleaning.sources import draw_trusted_list
from ..errors import BadInput, CommentariesError
from ..report.terminal import short_metrics
from ..training import RunFolder, default_path
from ..training.config import read_config
from .arguments import JOBS, AnyJob, Command, Inspect, Learn, Resume, Review, Teach, parse
from .kinds import KINDS

SKIPPED_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0, 1 for an error, 130 for an interruption.

    Args:
        argv: The arguments; those of the process unless given.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's, to whoever develops it
            warnings.showwarning = _show_warning
            _do(parse(sys.argv[1:] if argv is None else argv))
    except CommentariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _do(command: Command) -> None:
    if isinstance(command, Learn):
        _learn(command)
    elif isinstance(command, Resume):
        _resume(command)
    elif isinstance(command, Inspect):
        _inspect(command)
    elif isinstance(command, Teach):
        _teach(command)
    else:
        _review(command)


def _learn(command: Learn) -> None:
    job = command.job.settled()
    torch.set_num_threads(job.threads)
    if isinstance(job, Job) and job.trusted_list is not None and not job.trusted_list.exists():
        count = draw_trusted_list(job)
        print(
            f"Wrote {count:,} images with their given labels to {job.trusted_list}. Look at these "
            "images, correct the labels there, and run the same command again."
        )
        return
    prepared = KINDS[job.kind].prepare(job)  # what cannot work is refused before there is a folder
    folder = RunFolder.create(command.out or default_path(job.kind), job, device=job.device)
    _finish(job, folder, prepared)


def _resume(command: Resume) -> None:
    folder, job = _opened(command)
    kind = KINDS[job.kind]
    if not _is_finished(folder):
        _finish(job, folder, kind.prepare_again(job, folder))
        return
    print(f"The run {folder.path} is already finished.")
    if not (folder.path / "report.html").exists():
        page = kind.write_page(folder, job, kind.prepare_again(job, folder))
        print(f"Wrote {page}.")


def _inspect(command: Inspect) -> None:
    folder, job = _opened(command)
    kind, metrics = KINDS[job.kind], folder.metrics()
    taken = metrics[-1]["step"] + 1 if metrics else 0
    print(f"{folder.path}: {kind.describe(job, folder)}")
    print(f"{taken} of {kind.steps(job)} steps")
    if metrics:
        last = short_metrics(metrics[-1])
        print("last step: " + ", ".join(f"{name} {value}" for name, value in last.items()))
    if not _is_finished(folder):
        print(f"not finished; go on with: commentaries resume {folder.path}")
        return
    print(kind.result(job, folder))
    details = kind.details(folder)
    if details:
        print(details)


def _teach(command: Teach) -> None:
    folder, job = _opened(command)
    teach = KINDS[job.kind].teach
    if teach is None:
        raise BadInput(
            f"{folder.path} is a run of `learn {job.kind}`, which teaches no other student. Give a "
            "run of `learn weights`, `learn mixup` or `learn masks`."
        )
    student, options = command.student, {"seed": command.seed, "steps": command.steps}
    print(teach(job, folder, student, **options, on_method=_say_method))


def _review(command: Review) -> None:
    old, job = _opened(command)
    if not isinstance(job, Job):
        raise BadInput(
            f"{old.path} is a run of `learn {job.kind}`, which doubts no labels. Review a run of "
            "`learn weights`."
        )
    found = review(job, old, command.accept)
    folder = begin(found, old, command.out)
    _finish(found.job, folder, found.prepared)


def _opened(command: Resume | Inspect | Teach | Review) -> tuple[RunFolder, AnyJob]:
    folder = RunFolder.open(command.run)
    job = read_config(folder, JOBS)
    torch.set_num_threads(job.threads)
    return folder, job


def _finish(job: AnyJob, folder: RunFolder, prepared: Any) -> None:
    """Takes a run from wherever it is to its report."""
    kind = KINDS[job.kind]
    _say_skipped(kind.skipped(prepared))
    with _shown(kind.steps(job), folder) as said:
        kind.run(job, folder, prepared, **said)
        page = kind.write_page(folder, job, prepared)
    print(kind.result(job, folder))
    print(f"{kind.files(folder)}Report: {page}.")


@contextlib.contextmanager
def _shown(steps: int, folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Progress on the screen while a run goes on, and how to go on where it is interrupted."""
    print(f"run folder: {folder.path}", file=sys.stderr)
    try:
        with tqdm(total=steps, disable=None, unit="step") as bar:

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


def _is_finished(folder: RunFolder) -> bool:
    return (folder.path / "result.json").exists()


def _say_method(name: str) -> None:
    print(f"method: {name.replace('_', ' ')}", file=sys.stderr)


def _say_skipped(skipped: Sequence[str]) -> None:
    for text in skipped[:SKIPPED_SHOWN]:
        print(f"warning: {text}", file=sys.stderr)
    more = len(skipped) - SKIPPED_SHOWN
    if more > 0:
        print(f"warning: {more:,} more images were left out; see {SPLITS}.", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
