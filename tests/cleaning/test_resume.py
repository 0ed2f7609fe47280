"""Runs that are killed at any moment and go on end bitwise as one that was left alone."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short import shorten

from commentaries.cleaning import methods
from commentaries.cleaning.job import Job, make_learner, make_task, run
from commentaries.cleaning.learner import Settings
from commentaries.training import RunFolder
from commentaries.training.run_folder import CONFIG

JOB = Job(
    train=120,
    trusted=30,
    test=100,
    controls="none",
    checkpoint_every=3,
    settings=Settings(steps=40, warm_up=4, refresh_every=7, batch=48),
)

# A server that has imported everything forks the processes that will be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["commentaries.cleaning.job", "sklearn.svm", "pytest"])


def work(path: Path, kill: tuple[str, int, str] | None = None) -> None:
    """Starts the run or goes on with it; ``kill`` is (function of os, which call, when)."""
    torch.set_num_threads(1)
    if kill is not None:
        name, count, when = kill
        original, calls = getattr(os, name), iter(range(1, 1_000_000))

        def deadly(*args):
            last = next(calls) == count
            if last and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            value = original(*args)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        setattr(os, name, deadly)
    exists = (path / CONFIG).exists()
    run(JOB, RunFolder.open(path) if exists else RunFolder.create(path, JOB))


def attempt(path: Path, *, seconds: float | None = None, kill=None) -> int:
    """Works in a process that is killed after some time, and returns how that one ended."""
    process = PROCESSES.Process(target=work, args=(path, kill))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def contents(path: Path) -> dict[str, bytes]:
    names = ("splits.json", "metrics.jsonl", "weights.csv", "cleaned.txt", "result.json")
    return {name: (path / name).read_bytes() for name in names}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint."""
    state = RunFolder.open(path).load_checkpoint(make_learner(JOB, make_task(JOB)).start())
    assert state.step == JOB.settings.steps
    found = {f"phi {name}": value for name, value in state.phi.items()}
    found |= {f"constants {name}": value for name, value in state.constants.items()}
    for number, student in enumerate(state.students):
        for field in ("theta", "average"):
            values = getattr(student, field)
            found |= {f"{field} {number} {name}": value for name, value in values.items()}
    return found


def assert_same_run(path: Path, other: Path) -> None:
    assert contents(path) == contents(other)
    ours, theirs = tensors(path), tensors(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    leftovers = [entry.name for entry in path.iterdir() if entry.name.startswith(".")]
    assert not leftovers


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that was left alone, and its seconds."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    assert attempt(tmp_path_factory.mktemp("warm") / "run", seconds=0.1) == -signal.SIGKILL
    begin = time.monotonic()
    assert attempt(path) == 0
    return path, time.monotonic() - begin


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_random_moments(undisturbed, tmp_path, seed):
    expected, seconds = undisturbed
    moments = random.Random(seed)
    path = tmp_path / "run"
    ends = []
    while len(ends) < 6 or (ends.count(-signal.SIGKILL) < 3 and len(ends) < 30):
        ends.append(attempt(path, seconds=moments.uniform(0, seconds)))
        if ends[-1] == 0:  # it ended before its time: the next life begins with a new run
            assert_same_run(path, expected)
            path = tmp_path / f"run-{len(ends)}"
    assert ends.count(-signal.SIGKILL) >= 3
    assert attempt(path) == 0
    assert_same_run(path, expected)


def test_kills_inside_writes(undisturbed, tmp_path):
    """Before and after the renaming of checkpoints, results and the first two files."""
    expected, _ = undisturbed
    path = tmp_path / "run"
    kills = [
        ("replace", 1, "before"),  # environment.json
        ("replace", 2, "before"),  # config.json
        ("replace", 3, "before"),  # splits.json
        ("replace", 3, "before"),  # the second checkpoint
        ("fsync", 7, "before"),
        ("replace", 3, "after"),
        ("fsync", 11, "after"),
    ]
    for kill in kills:
        assert attempt(path, kill=kill) == -signal.SIGKILL
    with open(path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 17, "loss": 0.')  # a line that a kill has torn
    assert attempt(path, kill=("replace", 10, "before")) == -signal.SIGKILL
    assert attempt(path) == 0
    assert_same_run(path, expected)


def test_kills_between_the_results(undisturbed, tmp_path):
    """After the last checkpoint and between weights.csv and result.json."""
    expected, _ = undisturbed
    path = tmp_path / "run"
    # environment, config, splits, 14 checkpoints, weights.csv, cleaned.txt, corrected.csv, result
    assert attempt(path, kill=("replace", 18, "after")) == -signal.SIGKILL
    assert (path / "weights.csv").exists()
    assert not (path / "cleaned.txt").exists()
    # the metrics once more, then the three tables, then result.json
    assert attempt(path, kill=("replace", 5, "before")) == -signal.SIGKILL
    assert (path / "corrected.csv").exists()
    assert not (path / "result.json").exists()
    assert attempt(path) == 0
    assert_same_run(path, expected)


class Stop(Exception):
    pass


def stopped_at(last: int, job: Job, path: Path) -> RunFolder:
    """The folder of a run that an error ended."""

    def stop(step, metrics):
        if step == last:
            raise Stop

    folder = RunFolder.create(path, job)
    with pytest.raises(Stop):
        run(job, folder, on_step=stop)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        Settings(score="table", normalise="softmax", momentum=0.0),
        Settings(score="loss", normalise="none"),
        Settings(score="image", batch=8),
        Settings(terms=0, inner_steps=2),
        Settings(terms=3, cross_fitted=False, cues=("loss", "margin")),
    ],
    ids=["table", "loss", "image", "unrolled", "not cross-fitted"],
)
def test_every_kind_of_commentary_goes_on_bitwise(tmp_path, monkeypatch, settings):
    shorten(monkeypatch, 5, methods)
    settings = replace(settings, steps=9, warm_up=1, refresh_every=4)
    job = Job(train=60, trusted=20, test=50, controls="none", checkpoint_every=2, settings=settings)
    whole = RunFolder.create(tmp_path / "whole", job)
    run(job, whole)
    folder = stopped_at(7, job, tmp_path / "stopped")  # the last checkpoint is of step 6
    run(job, folder)
    assert contents(folder.path) == contents(whole.path)


def test_another_thread_count_warns(tmp_path, monkeypatch):
    shorten(monkeypatch, 5, methods)
    job = Job(
        train=60, trusted=20, test=50, controls="none", checkpoint_every=1,
        settings=Settings(steps=3, warm_up=0),
    )  # fmt: skip
    folder = stopped_at(2, job, tmp_path / "run")
    torch.set_num_threads(2)
    try:
        with pytest.warns(UserWarning, match="began with 1 threads and goes on with 2"):
            run(job, folder)
    finally:
        torch.set_num_threads(1)
    assert (folder.path / "result.json").exists()
