"""A whole job: the same however often it is stopped, and clear where it cannot be."""

import json
import re
from dataclasses import replace

import lessons
import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Far
from lessons import SETTINGS
from pictures import write_digits
from torch.nn.functional import cross_entropy

from commentaries.commentary import calibrated_cross_entropy
from commentaries.errors import BadInput, BadRun, NonFinite
from commentaries.teaching import job as jobs
from commentaries.teaching.job import (
    KEPT,
    SNAPSHOTS,
    learned,
    make_learner,
    prepare,
    prepare_again,
    run,
    student_of,
    teach,
)
from commentaries.teaching.learner import Learner
from commentaries.teaching.methods import score
from commentaries.training import RunFolder, checkpoint, log_probabilities
from commentaries.training.recorded import HISTORY, history


@pytest.fixture(autouse=True)
def _invented(invented):
    """Nothing is read from the disk."""


class Stop(Exception):
    """What ends a run before its time."""


def stopped_at(last, job, path):
    """The folder of a run that an error ended after a step was logged."""

    def stop(step, metrics):
        if step == last:
            raise Stop

    folder = RunFolder.create(path, job)
    with pytest.raises(Stop):
        run(job, folder, on_step=stop)
    return folder


def contents(folder):
    names = ("splits.json", "metrics.jsonl", "result.json")
    found = {name: (folder.path / name).read_bytes() for name in names}
    for place in sorted(folder.path.glob("*/*.pt")):
        found[f"{place.parent.name}/{place.name}"] = place.read_bytes()
    return found


def whole(job, path):
    folder = RunFolder.create(path, job)
    run(job, folder)
    return folder


TINY = {"train": 50, "validation": 20, "test": 30, "checkpoint_every": 2}
JOBS = {
    "table": lessons.mixup(**TINY, controls="quick", alphas=(0.5,)),
    "drawn": lessons.mixup(**TINY, concentration=2.0, knots=2, low=0.0),
    "network": lessons.mixup(**TINY, ratio="network"),
    "unet": lessons.masks(**TINY, data="digits", area=0.1, controls="quick"),
    "window": lessons.masks(**TINY, mask="window", background=0.1, student="small_cnn"),
    "unrolled": lessons.mixup(**TINY, settings=replace(SETTINGS, terms=0, inner_steps=2)),
    "restarted": lessons.mixup(**TINY, settings=replace(SETTINGS, restart_every=4, momentum=0.0)),
    "augmented": lessons.masks(
        **TINY,
        data="digits",
        area=0.1,
        recipe=replace(lessons.mixup().recipe, augment="flip_crop"),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, name):
    job = JOBS[name]
    expected = whole(job, tmp_path / "whole")
    folder = stopped_at(5, job, tmp_path / "stopped")  # the last checkpoint is of step 4
    assert len(folder.metrics()) == 5
    leftover = folder.path / HISTORY / ".0000005.pt.1-00.tmp"
    leftover.touch()  # of a kill while it was written
    run(job, folder)
    assert contents(folder) == contents(expected)
    assert not leftover.exists()
    prepared = prepare(job)
    ours, theirs = (learned(job, each, prepared) for each in (folder, expected))
    assert ours.step == theirs.step == 6
    assert all(torch.equal(ours.phi[key], theirs.phi[key]) for key in ours.phi)
    first = make_learner(job, prepared).start().phi
    assert any(not torch.equal(ours.phi[key], first[key]) for key in first)


def test_a_run_that_was_stopped_after_it_had_learned(tmp_path):
    job = JOBS["table"]
    expected = whole(job, tmp_path / "whole")
    folder = RunFolder.create(tmp_path / "stopped", job)

    def stop(name):
        if name == "standard mixup":
            raise Stop

    with pytest.raises(Stop):
        run(job, folder, on_method=stop)
    assert (folder.path / "students" / KEPT["no mixing"]).exists()
    assert not (folder.path / "result.json").exists()
    run(job, folder)
    assert contents(folder) == contents(expected)


def test_what_a_run_leaves_behind(tmp_path):
    job = lessons.masks(**TINY, controls="quick")
    folder = RunFolder.create(tmp_path / "run", job)
    steps, said = [], []
    result = run(
        job, folder, on_step=lambda step, found: steps.append((step, found["loss"])),
        on_method=said.append,
    )  # fmt: skip
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    metrics = folder.metrics()
    assert [row["loss"] for row in metrics] == [loss for _, loss in steps]
    assert all(row["outer_loss"] > 0 for row in metrics)
    assert set(metrics[0]["commentary"]) == {"area", "mass", "pointing"}
    assert json.loads((folder.path / "result.json").read_text()) == result
    assert list(result["methods"]) == said
    assert (result["train"], result["validation"], result["test"]) == (50, 20, 30)
    assert result["inside"] == "label"
    splits = folder.read_json("splits.json")
    assert set(splits) == {"train", "validation", "test", "labels", "skipped"}
    assert len(splits["validation"]) == 20


@pytest.mark.parametrize("steps", [1, 5, 8, 9, 15, 17])
def test_a_run_keeps_few_commentaries_on_the_way(tmp_path, steps):
    job = lessons.mixup(**TINY, settings=replace(SETTINGS, steps=steps, warm_up=0))
    folder = whole(job, tmp_path / "run")
    like = make_learner(job, prepare(job)).start()
    kept = history(folder, like)
    assert min(steps, SNAPSHOTS // 2) <= len(kept) <= SNAPSHOTS
    logged = [row["step"] + 1 for row in folder.metrics() if "commentary" in row]
    assert [state.step for state in kept] == logged


def test_students_of_the_comparison_are_kept(tmp_path):
    job = JOBS["table"]
    folder = whole(job, tmp_path / "run")
    prepared = prepare(job)
    found = folder.read_json("result.json")["methods"]
    test, seen = prepared.parts.test, prepared.parts.train.x
    for name in ("ours", "no mixing"):
        theta = student_of(folder, name, prepared)
        opinion = log_probabilities(prepared.student, theta, test.x, seen=seen)
        assert score(opinion, test.y) == (found[name]["accuracy"], found[name]["loss"])
    assert student_of(folder, "no mask", prepared) is None
    assert len(list((folder.path / "students").iterdir())) == 2


def test_a_run_that_has_not_learned_teaches_nobody(tmp_path):
    job = JOBS["table"]
    folder = stopped_at(5, job, tmp_path / "run")
    with pytest.raises(BadRun, match=r"has taken 4 of 6 steps\. Resume it to its end first"):
        learned(job, folder, prepare(job))
    with pytest.raises(BadRun, match=r"has taken 4 of 6 steps"):
        teach(job, folder)


# teaching


def test_teaching_the_same_student_is_the_comparison_again(tmp_path):
    job = JOBS["table"]
    folder = whole(job, tmp_path / "run")
    found = teach(job, folder, seed=job.seed)
    assert (found["student"], found["seed"], found["steps"]) == ("small_cnn", 0, 6)
    assert found["methods"] == folder.read_json("result.json")["methods"]
    assert folder.read_json("teach-small_cnn-0.json") == found


def test_teaching_another_student(tmp_path):
    job = JOBS["unet"]
    folder = whole(job, tmp_path / "run")
    said = []
    found = teach(job, folder, "cbr", seed=3, steps=4, on_method=said.append)
    assert (found["student"], found["steps"]) == ("cbr", 4)
    assert said == list(found["methods"])
    assert folder.read_json("teach-cbr-3.json") == found
    assert teach(job, folder, "cbr", seed=4, steps=4)["methods"] != found["methods"]
    assert teach(job, folder, "cbr", seed=3, steps=4) == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1, but must not be negative. Choose 0 or more."),
        ({"steps": 0}, "steps is 0, but must be positive"),
        ({"name": "cbrs"}, "There is no student 'cbrs'. Did you mean 'cbr'?"),
    ],
)
def test_teaching_that_cannot_be(tmp_path, options, message):
    job = lessons.mixup(**TINY)
    folder = whole(job, tmp_path / "run")
    with pytest.raises(BadInput, match=re.escape(message)):
        teach(job, folder, **options)
    assert not list(folder.path.glob("teach-*"))


def test_the_rate_is_that_of_the_network(tmp_path):
    job = lessons.mixup(settings=replace(SETTINGS, lr=0.08))
    prepared = prepare(job)

    def rates(**options):
        changed = replace(job, **options)
        learner = make_learner(changed, prepared)
        recipe = jobs.recipe_for(changed, prepared, changed.student)
        return learner.settings.lr, recipe.lr

    lr = job.recipe.lr
    assert rates() == (0.08, lr)  # small_cnn
    assert rates(student="cbr") == (0.02, lr / 4)
    assert rates(student="cbr", lr_scale=0.5) == (0.04, lr / 2)


# what is learned from


@pytest.mark.parametrize("kind", [lessons.mixup, lessons.masks])
def test_masks_are_judged_through_masks_and_mixing_is_not(kind):
    """With the price of a mask's area, which the student does not pay."""
    job = kind(data="digits", **({"area": 0.1} if kind is lessons.masks else {}))
    prepared = prepare(job)
    learner = make_learner(job, prepared)
    state = learner.start()
    theta, batch = state.students[0].theta, learner._outer_batch(0)
    if kind is lessons.masks:  # every pixel has a mask of a half at first
        z = prepared.student(theta, batch.x / 2)
        expected = calibrated_cross_entropy(z, batch.y).mean() + job.area / 2
    else:
        expected = cross_entropy(prepared.student(theta, batch.x), batch.y)
    torch.testing.assert_close(learner._problem.outer(theta, state.phi, batch), expected)
    inner = learner._inner_batch(0)
    lesson = prepared.topic.commentary(state.phi, inner)
    shown = cross_entropy(prepared.student(theta, lesson.x), lesson.target)
    torch.testing.assert_close(learner._problem.inner(theta, state.phi, inner), shown)


@pytest.mark.parametrize("augment", ["flip_crop", "cutout", "autoaugment"])
def test_what_is_trained_on_is_augmented_and_what_judges_is_not(augment):
    job = lessons.mixup(data="digits")
    prepared = prepare(job)
    plain = make_learner(job, prepared)
    changed = make_learner(replace(job, recipe=replace(job.recipe, augment=augment)), prepared)
    assert not torch.equal(plain._inner_batch(0).x, changed._inner_batch(0).x)
    assert torch.equal(plain._outer_batch(0).x, changed._outer_batch(0).x)
    assert torch.equal(plain._inner_batch(0).y, changed._inner_batch(0).y)


def test_batches_know_how_far_a_student_has_come():
    """Progress runs from 0 to 1 in each life of a student, in its own steps."""
    job = lessons.mixup(settings=replace(SETTINGS, inner_steps=3, restart_every=2))
    learner = make_learner(job, prepare(job))
    inner = [learner._inner_batch(step).progress for step in range(12)]
    assert inner == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6] * 2)
    assert [learner._outer_batch(step).progress for step in range(4)] == [0, 0.5, 0, 0.5]
    seeds = [learner._inner_batch(step).seed for step in range(12)]
    seeds += [learner._outer_batch(step).seed for step in range(12)]
    assert len(set(seeds)) == 24


def test_steps_go_through_training_and_validation_examples(tmp_path):
    job = lessons.mixup(train=100, validation=40)
    prepared = prepare(job)
    learner = make_learner(job, prepared)
    rows = torch.cat([learner._inner_batch(step).index for step in range(3)])
    assert len(rows.unique()) == 96
    batch = learner._outer_batch(2)
    assert torch.equal(batch.x, prepared.parts.validation.x[batch.index])
    assert torch.equal(batch.y, prepared.parts.validation.y[batch.index])


def test_the_last_state_without_a_folder(tmp_path):
    job = lessons.mixup(**TINY)
    folder = whole(job, tmp_path / "run")
    prepared = prepare(job)
    learner = make_learner(job, prepared)
    assert isinstance(learner, Learner)
    expected = learned(job, folder, prepared)
    assert torch.equal(learner.last().phi["logits"], expected.phi["logits"])
    assert not torch.equal(learner.start().phi["logits"], expected.phi["logits"])


# bad input


def own(tmp_path, size, channels=1):
    rng = np.random.default_rng(0)
    shape = (40, size, size) if channels == 1 else (40, size, size, channels)
    np.savez(tmp_path / "own.npz", x=rng.random(shape), y=np.arange(40) % 4)
    return {"data": str(tmp_path / "own.npz"), "train": 20, "validation": 8, "test": 12}


@pytest.mark.parametrize("mask", ["unet", "window"])
def test_images_smaller_than_the_stride_are_refused_before_there_is_a_run(tmp_path, mask):
    job = lessons.masks(**own(tmp_path, 6), mask=mask)
    with pytest.raises(BadInput, match=r"at least 8 x 8 pixels, and these are 6 x 6\. Resize them"):
        prepare(job)


@pytest.mark.parametrize("size", [8, 11])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_stride_and_of_odd_size(tmp_path, size, channels):
    job = lessons.masks(**own(tmp_path, size, channels))
    result = run(job, RunFolder.create(tmp_path / "run", job))
    assert set(result["methods"]["ours"]) == {"accuracy", "loss", "validation"}


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (lessons.mixup(device="gpu"), "There is no device 'gpu' here"),
        (lessons.mixup(student="cbrs"), "There is no student 'cbrs'. Did you mean 'cbr'?"),
        (lessons.mixup(data="digits_on_photos"), "digits_on_photos is made for masks."),
        (lessons.mixup(concentration=1e-9), "concentration is 1e-09"),
    ],
)
def test_jobs_that_cannot_be_prepared(job, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        prepare(job)


@pytest.mark.parametrize("kind", [lessons.mixup, lessons.masks])
def test_steps_that_diverge_say_what_to_lower(tmp_path, kind):
    job = kind(**TINY, data="digits", settings=replace(SETTINGS, lr=1e6))
    folder = RunFolder.create(tmp_path / "run", job)
    with pytest.raises(NonFinite, match=r"lr = 1e\+06.*Lower it .*--settings\.lr"):
        run(job, folder)


def test_a_table_for_another_number_of_classes(tmp_path):
    """A checkpoint of ten classes beside data of four."""
    job = lessons.mixup(**TINY)
    folder = whole(job, tmp_path / "run")
    few = lessons.mixup(**own(tmp_path, 8))
    prepared = prepare(few)
    with pytest.raises(BadRun, match="was made by another configuration: at /phi/logits"):
        learned(few, folder, prepared)
    phi = checkpoint.load(
        folder.path / HISTORY / "0000006.pt", make_learner(job, prepare(job)).start().phi
    )
    with pytest.raises(BadInput, match="Build it with the knots and classes that the table was"):
        prepared.topic.summary(phi)


def test_data_that_changed_are_refused(tmp_path):
    data = write_digits(tmp_path / "data", range(80), classes=4)
    job = lessons.mixup(data=str(data), train=None, validation=4, test=8)
    folder = stopped_at(3, job, tmp_path / "run")
    prepare_again(job, folder)
    one = next((data / "one").iterdir())
    one.rename(data / "two" / one.name)
    with pytest.raises(BadRun, match=r"have changed since this run began .*Restore them"):
        prepare_again(job, folder)
    with pytest.raises(BadRun, match="have changed"):
        run(job, folder)


# devices


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (lessons.mixup, {"data": "digits", "alphas": (0.5,)}),
        (lessons.masks, {"data": "coloured_mnist"}),
    ],
)
def test_on_another_device(tmp_path, kind, options, monkeypatch):
    """The same numbers, and nothing that lies on two devices at once."""
    monkeypatch.setattr(jobs, "check_device", lambda name: None)
    job = kind(
        **TINY, **options, controls="all", student="small_cnn",
        settings=replace(SETTINGS, steps=2), recipe=replace(lessons.mixup().recipe, steps=2),
    )  # fmt: skip
    folder = whole(job, tmp_path / "here")
    far = replace(job, device=str(DEVICE))
    with Elsewhere():
        prepared = prepare(far)
        there = run(far, RunFolder.create(tmp_path / "there", job), prepared)
        theta = student_of(folder, "no mixing" if kind is lessons.mixup else "no mask", prepared)
        assert theta is not None
        assert all(isinstance(value, Far) for value in theta.values())
    assert there == folder.read_json("result.json")
