"""From a job to its examples: own folders, trusted lists, corrections, splits."""

import csv
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pictures import NAMES, write_digits, write_parts
from short import shorten

from commentaries.cleaning import untrusted
from commentaries.cleaning.learner import Settings
from commentaries.cleaning.options import Job
from commentaries.cleaning.prepared import (
    assemble,
    prepare,
    splits,
)
from commentaries.cleaning.sources import draw_trusted_list, gather
from commentaries.data import LabelledImages, load
from commentaries.data.record import check_unchanged
from commentaries.errors import BadInput, BadRun
from commentaries.networks import build
from commentaries.training.students import network_name, student_for

WRONG = {row: (row + 3) % 10 for row in range(0, 60, 10)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """120 digits of which a few are in the wrong folder, 40 trusted and 50 test ones."""
    root = tmp_path_factory.mktemp("digits")
    return write_parts(root, range(120), range(200, 240), range(300, 350), wrong=WRONG)


@pytest.fixture
def job(root):
    return Job(data=str(root / "data"), trusted=root / "trusted", test=root / "test")


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    shorten(monkeypatch, 60, untrusted)


# own data


def test_a_folder_with_trusted_and_test_folders(job):
    prepared = prepare(job)
    task = prepared.task
    assert (task.size, len(task.trusted), len(task.test), task.truth) == (120, 40, 50, None)
    assert task.train.classes == tuple(sorted(NAMES))
    assert task.train.file(0).startswith("eight/")
    assert (prepared.trusted_from, prepared.fair, prepared.checked) == ("folder", 40, ())
    pixels = dict(zip(task.train.files, task.train.x, strict=True))
    torch.testing.assert_close(pixels["two/12.png"], load("digits").x[12], atol=2e-3, rtol=0)


def test_noise_on_own_data_makes_the_given_labels_the_truth(job):
    prepared = prepare(replace(job, noise="uniform", rate=0.25))
    assert int(prepared.task.wrong.sum()) == 30
    assert torch.equal(prepared.task.truth, prepare(job).task.train.y)


def test_some_of_the_data(job):
    prepared = prepare(replace(job, train=60))
    assert prepared.task.size == 60
    assert prepared.task.train.y.bincount().min() >= 4
    with pytest.raises(BadInput, match="121 examples are asked for, and data has 120"):
        prepare(replace(job, train=121))


@pytest.mark.parametrize("name", ["trusted", "test"])
def test_the_data_are_not_their_own_judge(job, name):
    with pytest.raises(BadInput, match=f"The {name} images and the data are the same"):
        prepare(replace(job, **{name: Path(job.data)}))


def test_a_trusted_class_that_the_data_lack(job, root, tmp_path):
    write_digits(tmp_path / "two", range(40), classes=2)
    with pytest.raises(BadInput, match="which the training set lacks"):
        prepare(replace(job, data=str(tmp_path / "two")))
    with pytest.raises(BadInput, match=r"The \d trusted examples hold none of class 'eight'"):
        prepare(replace(job, trusted=tmp_path / "two"))


def test_pixels_of_all_sets_are_prepared_alike(job):
    prepared = prepare(replace(job, size=12))
    task = prepared.task
    assert (
        task.train.x.shape[1:] == task.trusted.x.shape[1:] == task.test.x.shape[1:] == (1, 12, 12)
    )


def test_unreadable_images_are_listed_and_left_out_by_choice_only(job, tmp_path):
    data = write_digits(tmp_path / "data", range(100))
    (data / "one" / "broken.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match=r"one/broken\.png"):
        prepare(replace(job, data=str(data)))
    prepared = prepare(replace(job, data=str(data), skip_unreadable=True))
    assert prepared.task.size == 100
    assert len(prepared.skipped) == len(splits(prepared)["skipped"]) == 1
    assert "one/broken.png" in prepared.skipped[0]


# trusted list


def test_a_trusted_list_is_drawn_corrected_and_leaves_the_training_set(job, tmp_path):
    listed = replace(job, trusted=None, trusted_list=tmp_path / "list.csv")
    with pytest.raises(BadInput, match=r"There is no file .*list\.csv.*--trusted-per-class"):
        draw_trusted_list(listed)
    listed = replace(listed, trusted_per_class=2)
    assert draw_trusted_list(listed) == 20
    with open(tmp_path / "list.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["label"] = "two"
    rows.append({"file": "nine/9.png", "label": "nine"})
    with open(tmp_path / "list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "label"])
        writer.writeheader()
        writer.writerows(rows)
    prepared = prepare(replace(listed, trusted_per_class=None))
    task = prepared.task
    taken = {row["file"] for row in rows}
    assert set(task.trusted.files) == taken
    assert set(task.train.files) == set(prepare(job).task.train.files) - taken
    assert task.train.classes[int(task.trusted.y[0])] == "two"
    given = rows[0]["file"].split("/")[0]
    assert prepared.checked[0] == (rows[0]["file"], given, "two")
    assert (prepared.trusted_from, prepared.fair) == ("list", len(taken))
    assert len(prepare(replace(listed, trusted_per_class=1)).task.trusted) == 10


def test_a_list_of_all_images_leaves_nothing_to_clean(job, tmp_path):
    listed = replace(job, trusted=None, trusted_list=tmp_path / "list.csv", trusted_per_class=1000)
    draw_trusted_list(listed)
    with pytest.raises(BadInput, match="so that none is left to clean"):
        prepare(listed)


# no trusted set


def test_without_trusted_examples_agreement_chooses_them(root):
    job = Job(data=str(root / "data"))
    prepared = prepare(job)
    task = prepared.task
    assert (prepared.trusted_from, prepared.fair) == ("agreement", 0)
    assert task.size == 120  # they stay in the training set, too
    assert set(task.trusted.files) <= set(task.train.files)
    assert task.trusted.y.bincount().min() >= 5
    wrong = {f"{row}.png" for row in WRONG}
    mistaken = [file for file in task.trusted.files if file.split("/")[1] in wrong]
    assert len(mistaken) <= 3
    assert splits(prepare(job)) == splits(prepared)


def test_a_run_that_goes_on_keeps_those_that_were_chosen(root, monkeypatch):
    job = Job(data=str(root / "data"))
    first = prepare(job)
    monkeypatch.setattr(untrusted, "fit", None)  # nothing is fitted again
    again = assemble(job, gather(job), chosen=splits(first)["trusted"])
    assert splits(again) == splits(first)


# corrections


def test_corrections(job):
    files = prepare(job).task.train.files
    job = replace(
        job, corrections=((files[3], "two"), (files[5], ""), (files[9], files[9].split("/")[0]))
    )
    prepared = prepare(job)
    task = prepared.task
    assert task.train.files == tuple(file for i, file in enumerate(files) if i not in (3, 5, 9))
    assert task.trusted.files[-2:] == (files[3], files[9])
    names = [task.train.classes[int(label)] for label in task.trusted.y[-2:]]
    assert names == ["two", files[9].split("/")[0]]
    assert (prepared.fair, len(task.trusted)) == (40, 42)
    assert [each.file for each in prepared.checked] == [files[3], files[9]]


def test_corrections_of_a_set_by_name_leave_the_other_labels_as_they_were():
    before = prepare(Job(train=100, trusted=20, test=50)).task
    gone = before.train.file(4)
    after = prepare(Job(train=100, trusted=20, test=50, corrections=((gone, "3"),))).task
    stays = torch.arange(100) != 4
    assert torch.equal(after.train.y, before.train.y[stays])
    assert torch.equal(after.truth, before.truth[stays])
    assert int(after.trusted.y[-1]) == 3


def test_dropping_only(root):
    job = Job(data=str(root / "data"))
    files = gather(job).train.files
    dropped = prepare(replace(job, corrections=((files[0], ""),)))
    assert dropped.task.size == 119
    assert files[0] not in dropped.task.trusted.files
    assert dropped.checked == ()


def test_corrections_of_what_is_not_there(job):
    with pytest.raises(BadInput, match="The corrections name 'x'"):
        prepare(replace(job, corrections=(("x", ""),)))


# networks


@pytest.mark.parametrize(
    ("shape", "name", "expected"),
    [
        ((1, 8, 8), None, "small_cnn"),
        ((3, 16, 16), None, "conv2"),
        ((3, 8, 8), "conv4", "conv4"),
        ((5,), None, "linear"),
    ],
)
def test_the_network_suits_the_images(shape, name, expected):
    images = LabelledImages(torch.rand(6, *shape), torch.tensor([0, 1, 2] * 2), ("a", "b", "c"))
    assert network_name(images, name) == expected
    student = student_for(images, name)
    theta = student.init(torch.Generator().manual_seed(0))
    assert student(theta, images.x).shape == (6, 3)
    normalises = any(type(part).__name__ == "Normalise" for part in student.modules())
    assert normalises == (expected in ("conv2", "conv4"))


def test_a_backbone_gives_features(job, tmp_path, root):
    torch.save(build("small_cnn", 4, channels=1, size=8).state_dict(), tmp_path / "weights.pt")
    job = replace(job, backbone="small_cnn", backbone_weights=tmp_path / "weights.pt")
    prepared = prepare(job)
    task = prepared.task
    assert task.train.x.shape == (120, 64)
    assert task.trusted.x.shape == (40, 64)
    assert task.test.x.shape == (50, 64)
    assert prepared.pictures.x.shape == (120, 1, 8, 8)
    torch.testing.assert_close(task.train.x.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(task.train.x.square().sum(1).mean().sqrt(), torch.tensor(5.0))
    corrected = replace(job, corrections=((task.train.files[0], "one"), (task.train.files[1], "")))
    assert prepare(corrected).task.trusted.x.shape == (41, 64)
    with pytest.raises(BadInput, match="with a backbone it is a linear layer"):
        prepare(replace(job, student="cbr"))


# splits.json


def test_splits_name_every_example(job):
    found = splits(prepare(job))
    assert len(found["train"]) == 120
    assert found["trusted"][0] == "eight/206.png"
    assert set(found) == {"trusted_from", "train", "trusted", "test", "labels", "skipped"}
    assert found["labels"] != splits(prepare(replace(job, noise="pair")))["labels"]


def test_positions_name_the_examples_of_a_set_by_name():
    found = splits(prepare(Job(train=100, trusted=20, test=50)))
    everything = [*found["train"], *found["trusted"], *found["test"]]
    assert len(set(everything)) == 170
    assert all(re.fullmatch(r"digits/\d+", name) for name in everything)
    images = load("digits")
    first = int(found["trusted"][0].split("/")[1])
    assert torch.equal(
        prepare(Job(train=100, trusted=20, test=50)).task.trusted.x[0], images.x[first]
    )


def test_data_that_changed_are_refused(tmp_path):
    data = write_digits(tmp_path / "data", range(100))
    trusted = write_digits(tmp_path / "trusted", range(200, 230))
    job = Job(
        data=str(data),
        trusted=trusted,
        controls="none",
        settings=Settings(steps=2, warm_up=0, refresh_every=1, batch=32),
    )
    written = splits(prepare(job))
    check_unchanged(splits(prepare(job)), written, "data")
    one = next((data / "one").iterdir())
    os.rename(one, data / "two" / one.name)
    with pytest.raises(BadRun, match=r"have changed since this run began \(train, labels\)"):
        check_unchanged(splits(prepare(job)), written, "data")


# sets that are not embedded


def test_a_set_with_a_test_part(monkeypatch):
    if not (place := os.environ.get("COMMENTARIES_DATA")) or not Path(place, "MNIST").is_dir():
        pytest.skip("needs MNIST in $COMMENTARIES_DATA")
    job = Job(data="mnist", train=300, test=200)
    prepared = prepare(job)
    task = prepared.task
    assert (task.size, len(task.trusted), len(task.test)) == (300, 100, 200)
    assert int(task.wrong.sum()) == 120
    assert prepared.task.test.files[0].startswith("mnist-test/")
    assert network_name(task.train, None) == "conv2"
    assert len(prepare(replace(job, train=None, test=None, noise="none")).task.train) == 59_900
