"""A person's corrections: what they change, what they leave alone, and the run that follows."""

import csv
import multiprocessing
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import write_parts
from short import shorten

from commentaries.cleaning import controls, methods
from commentaries.cleaning.job import make_learner, prepare_again, read_job, run
from commentaries.cleaning.learner import Settings
from commentaries.cleaning.options import Job
from commentaries.cleaning.review import begin, free_path, review, sentence, warm
from commentaries.cleaning.weights_table import read_weights
from commentaries.errors import BadInput, BadRun
from commentaries.training import RunFolder

SETTINGS = Settings(steps=10, warm_up=2, refresh_every=3, batch=32)
PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    shorten(monkeypatch, 10, methods, controls)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A finished run on 60 digits of which six are in the wrong folder."""
    path = tmp_path_factory.mktemp("review")
    wrong = {row: (row + 1) % 10 for row in range(6)}
    write_parts(path, range(60), range(100, 130), range(200, 240), wrong=wrong)
    job = Job(
        data=str(path / "data"),
        trusted=path / "trusted",
        test=path / "test",
        controls="none",
        settings=SETTINGS,
    )
    run(job, RunFolder.create(path / "run", job))
    return path


@pytest.fixture
def old(root, tmp_path):
    return RunFolder.open(shutil.copytree(root / "run", tmp_path / "run"))


@pytest.fixture
def accepted(tmp_path):
    """Writes a file of corrections."""

    def write(*rows, header=("file", "label")):
        with open(tmp_path / "accepted.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return tmp_path / "accepted.csv"

    return write


FIRST = [("one/0.png", "naught"), ("two/1.png", "one"), ("six/6.png", "six"), ("seven/7.png", "-")]


def followed(old, file, out=None):
    """The folder of a review that has run to its end."""
    found = review(read_job(old), old, file)
    folder = begin(found, old, out)
    run(found.job, folder, found.prepared)
    return folder


def contents(folder):
    names = ("splits.json", "metrics.jsonl", "weights.csv", "cleaned.txt", "result.json")
    return [(folder.path / name).read_bytes() for name in names]


def test_a_review_goes_on_in_a_new_folder(old, accepted):
    before = {path: path.read_bytes() for path in old.path.iterdir()}
    folder = followed(old, accepted(*FIRST))
    assert {path: path.read_bytes() for path in old.path.iterdir()} == before
    assert folder.path == old.path.with_name("run-review")
    job, was = read_job(folder), read_job(old)
    corrections = (("one/0.png", "naught"), ("two/1.png", "one"), ("six/6.png", "six"),
                   ("seven/7.png", ""))  # fmt: skip
    settings = replace(SETTINGS, steps=3, warm_up=0)
    assert job == replace(was, corrections=corrections, settings=settings)
    names = [line.file for line in read_weights(folder)]
    assert len(names) == 56
    assert not set(names) & {file for file, _ in FIRST}
    splits = folder.read_json("splits.json")
    assert splits["trusted"][-3:] == ["one/0.png", "two/1.png", "six/6.png"]
    kept = (folder.path / "cleaned.txt").read_text().splitlines()
    assert "six/6.png" in kept
    assert "seven/7.png" not in kept
    corrected = (folder.path / "corrected.csv").read_text()
    assert "one/0.png,naught\n" in corrected
    assert "seven/7.png" not in corrected
    assert [line["step"] for line in folder.metrics()] == [0, 1, 2]
    assert folder.read_json("review.json") == {
        "of": str(old.path),
        "accuracy": old.read_json("result.json")["accuracy"]["ours"],
        "confirmed": 1,
        "changed": 2,
        "dropped": 1,
    }
    assert folder.read_json("result.json")["checked"] == 3


def test_it_begins_where_the_old_run_ended(old, accepted):
    found = review(read_job(old), old, accepted(*FIRST))
    job = read_job(old)
    prepared = prepare_again(job, old)
    end = old.load_checkpoint(make_learner(job, prepared.task, prepared.student).start())
    assert (end.step, found.state.step) == (10, 0)
    for name, value in end.phi.items():
        assert torch.equal(found.state.phi[name], value)
    for ours, theirs in zip(found.state.students, end.students, strict=True):
        for part in ("theta", "average"):
            for name, value in getattr(theirs, part).items():
                assert torch.equal(getattr(ours, part)[name], value)
        assert all(float(value.abs().sum()) == 0 for value in ours.optimizer[0].values())


def test_a_table_of_weights_starts_anew(old):
    job = read_job(old)
    job = replace(job, settings=replace(job.settings, score="table"))
    prepared = prepare_again(read_job(old), old)
    fresh = make_learner(job, prepared.task).start()
    other = fresh._replace(phi={name: torch.ones(3) for name in fresh.phi})
    assert warm(fresh, other).phi is fresh.phi
    assert warm(fresh, fresh._replace(step=5)).step == 0


def test_a_review_of_a_review_carries_all_corrections(old, accepted):
    first = followed(old, accepted(*FIRST))
    second = followed(first, accepted(("eight/8.png", "eight"), ("two/1.png", "")))
    assert second.path == old.path.with_name("run-review-2")
    job = read_job(second)
    assert job.corrections == (
        ("one/0.png", "naught"), ("two/1.png", ""), ("six/6.png", "six"), ("seven/7.png", ""),
        ("eight/8.png", "eight"),
    )  # fmt: skip
    assert job.settings == read_job(first).settings  # not shorter still
    assert len(read_weights(second)) == 55


def test_an_edited_table_of_weights_will_do(old, accepted):
    with open(old.path / "weights.csv", newline="") as file:
        header, *rows = csv.reader(file)
    row = next(row for row in rows if row[0] == "one/0.png")
    row[1] = "naught"
    found = review(read_job(old), old, accepted(row, header=header))
    assert found.counts == {"confirmed": 0, "changed": 1, "dropped": 0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no line below its header"),
        ([("one/00.png", "one")], "Did you mean 'one/0.png'?"),
        ([("one/0.png", "nought")], "There is no class 'nought'. Did you mean 'naught'?"),
        ([("one/0.png", "naught"), ("one/0.png", "one")], "two labels, 'naught' and 'one'"),
        ([("one/0.png", "naught"), ("one/0.png", "-")], "two labels, 'naught' and '-'"),
    ],
)
def test_files_that_cannot_be_used(old, accepted, rows, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        review(read_job(old), old, accepted(*rows))


def test_all_images_cannot_be_named(old, accepted):
    every = [(line.file, line.label) for line in read_weights(old)]
    with pytest.raises(BadInput, match="all 60 training images are named"):
        review(read_job(old), old, accepted(*every))


def test_only_finished_runs_are_reviewed(old, accepted):
    (old.path / "result.json").unlink()
    with pytest.raises(BadRun, match="is not finished"):
        review(read_job(old), old, accepted(*FIRST))


def test_data_that_changed_are_refused(old, accepted, root, tmp_path):
    data = shutil.copytree(root / "data", tmp_path / "data")
    job = replace(read_job(old), data=str(data))
    (data / "six" / "6.png").rename(data / "seven" / "6.png")
    with pytest.raises(BadRun, match="have changed since this run began"):
        review(job, old, accepted(*FIRST))


# resume


def work(path: Path, kill: int | None = None) -> None:
    """Goes on with a review; killed after so many files were replaced."""
    torch.set_num_threads(1)
    if kill is not None:
        original, calls = os.replace, iter(range(1, 1_000_000))

        def deadly(*args):
            value = original(*args)
            if next(calls) == kill:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        os.replace = deadly
    shorten(pytest.MonkeyPatch(), 10, methods)
    folder = RunFolder.open(path)
    run(read_job(folder), folder)


def test_a_killed_review_ends_as_if_it_had_not_been(old, accepted, tmp_path):
    found = review(read_job(old), old, accepted(*FIRST))
    found = found._replace(job=replace(found.job, checkpoint_every=1))
    whole = begin(found, old, tmp_path / "whole")
    run(found.job, whole, found.prepared)
    killed = begin(found, old, tmp_path / "killed")
    # splits, (rewound metrics,) checkpoints, weights, cleaned, corrected
    for kill in (1, 1, 2, 3):
        process = PROCESSES.Process(target=work, args=(killed.path, kill))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert not (killed.path / "result.json").exists()
    run(read_job(killed), killed)
    assert contents(killed) == contents(whole)


def test_a_review_that_never_began_says_so(old, accepted, tmp_path):
    found = review(read_job(old), old, accepted(*FIRST))
    folder = begin(found, old, tmp_path / "new")
    folder.checkpoint.unlink()
    with pytest.raises(BadRun, match=r"was stopped before it began\. Remove the folder"):
        run(found.job, folder, found.prepared)


# names and sentences


def test_free_paths(tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert free_path(run) == tmp_path / "run-review"
    (tmp_path / "run-review").mkdir()
    assert free_path(run) == free_path(tmp_path / "run-review") == tmp_path / "run-review-2"
    (tmp_path / "run-review-2").touch()
    assert free_path(tmp_path / "run-review-2") == tmp_path / "run-review-3"
    monkeypatch.chdir(tmp_path / "run-review")
    assert free_path(Path(".")) == tmp_path / "run-review-3"


def test_sentences():
    counts = {"confirmed": 1, "changed": 2000, "dropped": 0, "accuracy": 0.5}
    text = "Reviewed: 1 labels confirmed, 2,000 changed, 0 images dropped."
    assert sentence(counts, None) == text
    assert sentence(counts | {"accuracy": None}, 0.5) == text
    assert sentence(counts, 0.625) == f"{text} Test accuracy 50.0% before, 62.5% after."
