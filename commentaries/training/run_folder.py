"""One folder per run: its configuration, environment, metrics and checkpoint.

A process may be killed at any moment and the folder is still readable: every file but the metrics
is replaced in one step, and of the metrics only the last line can be torn. The metrics are on the
disk before the checkpoint that follows them, so a checkpoint never knows of steps they lack.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import BadRun
from . import atomic, checkpoint, environment, strict_json

State = TypeVar("State")

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"


def default_path(kind: str, *, root: str | Path = "runs") -> Path:
    """A folder that does not exist yet, ``runs/<kind>-<YYYYmmdd-HHMMSS>``; makes nothing."""
    stem = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = Path(root) / stem, 1
    while os.path.lexists(path):
        count += 1
        path = Path(root) / f"{stem}-{count}"
    return path


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's folder, made by `create` or found by `open`; one process at a time writes to it.

    Attributes:
        path: The folder.
    """

    path: Path

    @classmethod
    def create(
        cls, path: str | Path, config: Any, *, device: str | torch.device = "cpu"
    ) -> RunFolder:
        """Makes the folder of a new run, with ``config.json`` and ``environment.json``.

        Args:
            path: A folder that is missing or empty; parents are made.
            config: A dataclass (nested ones become objects), or a dict.
            device: Where the run computes, for the environment.

        Raises:
            BadInput: The configuration holds something JSON cannot, a non-finite number included.
            BadRun: The path is taken, or cannot be written.
        """
        path = Path(path)
        written = strict_json.encode(config, finite=True)
        with atomic.explained(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path):
                _check_free(path)
            else:
                path.mkdir()  # fails if another process was quicker
        atomic.write_bytes(path / ENVIRONMENT, strict_json.encode(environment.describe(device)))
        atomic.write_bytes(path / CONFIG, written)  # last: from here on the folder is a run
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Finds the folder of an existing run.

        Raises:
            BadRun: There is no such folder, or it is not that of a run.
        """
        path = Path(path)
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise BadRun(f"The run folder {path} {what}. Give the folder that a run has made.")
        missing = [name for name in (CONFIG, ENVIRONMENT) if not (path / name).is_file()]
        if missing:
            raise BadRun(
                f"{path} is not a run folder: it has no {' and no '.join(missing)}. "
                "Give the folder that a run has made, or start a new run."
            )
        return cls(path)

    @property
    def checkpoint(self) -> Path:
        """The checkpoint file, which exists after the first `save_checkpoint`."""
        return self.path / CHECKPOINT

    def config(self) -> dict[str, Any]:
        """The configuration as `create` was given it, tuples as lists."""
        return self.read_json(CONFIG)

    def environment(self) -> dict[str, Any]:
        """The machine and software of the run: see `environment.describe`."""
        return self.read_json(ENVIRONMENT)

    def log(self, step: int, **metrics: Any) -> None:
        """Appends one line of metrics, ``{"step": step, ...}``, with null for non-finite numbers.

        Args:
            step: The step they belong to; `rewind` cuts by it.
            **metrics: Numbers, str, bool, None, tensors, arrays, or lists and dicts of those.

        Raises:
            BadInput: A metric is something JSON cannot hold.
            BadRun: The disk is full or not writable. The earlier lines remain.
        """
        line = strict_json.encode({"step": step, **metrics}, indent=None)
        path = self.path / METRICS
        with atomic.explained(path, "write"), open(path, "a+b", buffering=0) as file:
            end = _cut_torn_line(file.fileno())
            try:
                while line:  # a disk that fills up takes a part first, then raises
                    line = line[file.write(line) :]
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise

    def metrics(self) -> list[dict[str, Any]]:
        """All logged lines in order, without a last line that a kill has torn.

        Raises:
            BadRun: The file cannot be read, or a line is not one of `log`.
        """
        return [record for record, _ in self._lines()]

    def rewind(self, step: int) -> None:
        """Drops the metrics of ``step`` and later, as a run does that resumes there.

        Also removes what killed writers left behind. On return, `metrics` holds exactly the
        lines of earlier steps; a kill in between leaves all lines or those.

        Args:
            step: The first step that the resumed run will take.

        Raises:
            BadRun: The metrics cannot be read or written.
        """
        atomic.remove_temporaries(self.path)
        path = self.path / METRICS
        if path.exists():
            kept = [line + b"\n" for record, line in self._lines() if record["step"] < step]
            atomic.write_bytes(path, b"".join(kept))

    def save_checkpoint(self, state: Any, *, meta: dict[str, Any] | None = None) -> None:
        """Replaces the checkpoint, once all metrics logged so far are on the disk.

        Raises:
            BadInput: The state cannot be saved: see `checkpoint.save`.
            BadRun: The disk is full or not writable. The older checkpoint remains.
        """
        path = self.path / METRICS
        if path.exists():
            with atomic.explained(path, "write"):
                atomic.synchronise(path)
        checkpoint.save(self.checkpoint, state, meta=meta)

    def load_checkpoint(self, like: State) -> State:
        """The last saved state, with the structure of ``like``: see `checkpoint.load`.

        Raises:
            BadRun: There is no checkpoint, it is damaged, or another configuration made it.
        """
        return checkpoint.load(self.checkpoint, like)

    def write_json(self, name: str, value: Any) -> None:
        """Replaces one JSON file of the folder in one step; null for non-finite numbers.

        Args:
            name: Its name in the folder, such as ``result.json``.
            value: Dataclasses, dicts, lists, tensors, arrays, numbers, str, bool, None, paths.

        Raises:
            BadInput: The value holds something JSON cannot.
            BadRun: The disk is full or not writable. The older file remains.
        """
        atomic.write_bytes(self.path / name, strict_json.encode(value))

    def read_json(self, name: str) -> Any:
        """Reads one JSON file of the folder.

        Raises:
            BadRun: It is missing, or not JSON.
        """
        path = self.path / name
        with atomic.explained(path, "read"):
            data = path.read_bytes()
        try:
            return json.loads(data)
        except ValueError as error:
            raise BadRun(
                f"{path} is not JSON ({error}). Restore it, or start a new run."
            ) from error

    def warn_if_threads_differ(self) -> None:
        """Warns when torch has another thread count than the run began with.

        Sums are split among the threads, so the same run with another count rounds otherwise:
        resumed results then agree closely but not bit for bit.
        """
        recorded, present = self.environment().get("threads"), torch.get_num_threads()
        if recorded != present:
            warnings.warn(
                f"The run {self.path} began with {recorded} threads and goes on with {present}: "
                "its results will not be bitwise those of an uninterrupted run. "
                f"Call torch.set_num_threads({recorded}) or set OMP_NUM_THREADS={recorded}.",
                UserWarning,
                stacklevel=2,
            )

    def _lines(self) -> list[tuple[dict[str, Any], bytes]]:
        """Each complete line of the metrics, read and as it stands."""
        path = self.path / METRICS
        if not path.exists():
            return []
        with atomic.explained(path, "read"):
            complete = path.read_bytes().split(b"\n")[:-1]  # what follows the last \n is torn
        lines = []
        for number, line in enumerate(complete, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise BadRun(
                    f"Line {number} of {path} is not a line of metrics. "
                    "Delete that line, or start a new run."
                )
            lines.append((record, line))
        return lines


def _check_free(path: Path) -> None:
    """Refuses a file, a run, and a folder with anything in it but an unfinished `create`."""
    if not path.is_dir():
        raise BadRun(f"{path} is a file. Choose another folder for the new run.")
    if (path / CONFIG).exists():
        raise BadRun(f"The folder {path} already holds a run. Resume it, or choose another folder.")
    taken = sorted(
        entry.name
        for entry in path.iterdir()
        if entry.name != ENVIRONMENT and not atomic.is_temporary(entry)
    )
    if taken:
        raise BadRun(
            f"The folder {path} is not empty (it has {taken[0]}). "
            "Choose another folder for the new run."
        )


def _cut_torn_line(descriptor: int) -> int:
    """Cuts what a killed writer left after the last line break; returns the size that remains."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    while end > 0:
        os.lseek(descriptor, end - 1, os.SEEK_SET)
        if os.read(descriptor, 1) == b"\n":
            break
        end -= 1
    if end < size:
        os.ftruncate(descriptor, end)
    return end
