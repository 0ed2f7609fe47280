"""The commands on a user's own images, from the arguments to what they print and write."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import NAMES, write_digits, write_parts
from PIL import Image
from short import shorten

from commentaries import cli
from commentaries.cleaning import controls, methods, untrusted
from commentaries.cleaning.job import read_job
from commentaries.cleaning.weights_table import read_weights
from commentaries.training import RunFolder

LEARN = ["learn", "weights"]
SMALL = [
    "--settings.steps", "8", "--settings.warm-up", "2", "--settings.refresh-every", "3",
    "--settings.batch", "32",
]  # fmt: skip
WRONG = {row: (row + 4) % 10 for row in range(0, 80, 8)}


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    shorten(monkeypatch, 15, methods, controls, untrusted)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """80 digits of which ten are in the wrong folder, 30 trusted and 50 test ones."""
    root = tmp_path_factory.mktemp("digits")
    return write_parts(root, range(80), range(100, 130), range(200, 250), wrong=WRONG)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A finished run with trusted and test images."""
    path = tmp_path_factory.mktemp("runs") / "run"
    argv = [*LEARN, *SMALL, *given(digits), "--controls", "none", "--out", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, 15, methods)
        assert cli.main(argv) == 0
    return path


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def given(root: Path) -> list[str]:
    names = ("data", "trusted", "test")
    return [word for name in names for word in (f"--{name}", str(root / name))]


def fails(capsys, *argv: str | Path) -> str:
    """The one sentence of a command that must fail."""
    assert cli.main([str(arg) for arg in argv]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = (line for line in error.splitlines() if line.startswith("error: "))
    return line


# learn


def test_a_folder_with_trusted_and_test_images(capsys, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(digits)
    path = tmp_path / "run"
    argv = ["--data", "./data", "--trusted", "trusted", "--test", "test", "--out", str(path)]
    assert cli.main([*LEARN, *SMALL, *argv]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^ours +0\.\d{3} +– +–$", out, re.M)
    assert "of 80 labels" in out
    assert f"Images to keep: {path / 'cleaned.txt'}." in out
    assert "method: svm alone" in err
    job = read_job(RunFolder.open(path))
    assert job.data == str(digits / "data")
    assert (job.trusted, job.test) == (digits / "trusted", digits / "test")
    on_disk = {str(file.relative_to(digits / "data")) for file in digits.glob("data/*/*.png")}
    lines = read_weights(RunFolder.open(path))
    assert {line.file for line in lines} == on_disk
    assert all(line.file.startswith(f"{line.label}/") for line in lines)
    kept = (path / "cleaned.txt").read_text().splitlines()
    assert kept == [line.file for line in lines if line.suggested == line.label]
    page = (path / "report.html").read_text()
    assert "Which labels of data to trust" in page
    assert "80 training examples; 30 trusted examples; 50 test examples; seed 0." in page
    assert "true label" not in page
    capsys.readouterr()
    assert cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{digits / 'data'}, 80 training and 30 trusted examples, seed 0" in out


def test_without_trusted_images_it_is_said_what_was_given_up(capsys, digits, tmp_path):
    path = tmp_path / "run"
    argv = [*LEARN, *SMALL, "--data", str(digits / "data"), "--out", str(path)]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert "No trusted examples were given" in out
    assert "wrong in a systematic way" in out
    assert "method" not in out  # there is nothing to score methods by
    assert "method: unweighted" not in err
    assert json.loads((path / "result.json").read_text())["trusted_from"] == "agreement"
    assert "No trusted examples were given" in (path / "report.html").read_text()
    (path / "result.json").unlink()
    assert cli.main(["resume", str(path)]) == 0


def test_a_trusted_list_from_drawing_to_learning(capsys, digits, tmp_path):
    listed, path = tmp_path / "list.csv", tmp_path / "run"
    argv = [*LEARN, *SMALL, "--data", str(digits / "data"), "--trusted-list", str(listed),
            "--controls", "none", "--out", str(path)]  # fmt: skip
    message = fails(capsys, *argv)
    assert f"There is no file {listed}" in message
    assert "--trusted-per-class" in message
    assert cli.main([*argv, "--trusted-per-class", "2"]) == 0
    out = capsys.readouterr().out
    assert f"Wrote 20 images with their given labels to {listed}. Look at these images" in out
    assert not path.exists()
    assert cli.main([*argv, "--trusted-per-class", "2"]) == 0
    assert "of 60 labels" in capsys.readouterr().out
    assert len(RunFolder.open(path).read_json("splits.json")["trusted"]) == 20


def test_images_that_are_left_out_are_named(capsys, digits, tmp_path):
    data = shutil.copytree(digits / "data", tmp_path / "data")
    for number in range(12):
        (data / "one" / f"broken{number:02}.png").write_bytes(b"no image")
    argv = [*LEARN, *SMALL, *given(digits), "--data", data, "--controls", "none"]
    assert "12 of 92 images" in fails(capsys, *argv, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    argv = [str(arg) for arg in (*argv, "--skip-unreadable", "--out", tmp_path / "run")]
    assert cli.main(argv) == 0
    err = capsys.readouterr().err
    assert err.count("warning: ") == 11
    assert "warning: Left out 'one/broken00.png'" in err
    assert "warning: 2 more images were left out; see splits.json." in err
    assert "12 images were left out" in (tmp_path / "run" / "report.html").read_text()


def test_other_students_by_name(capsys, digits, tmp_path):
    argv = [*LEARN, *SMALL, *given(digits), "--controls", "none", "--out", str(tmp_path / "run")]
    assert "There is no student 'linear'" in fails(capsys, *argv, "--student", "linear")
    assert cli.main([*argv, "--student", "conv4"]) == 0


# bad data: a clear sentence, and no folder


def save(path: Path, image: Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def missing(root):
    pass


def empty(root):
    (root / "data").mkdir()


def of_one_image(root):
    write_digits(root / "data", range(40), classes=3)
    extra = Image.new("L", (8, 8))
    save(root / "data" / "four" / "1.png", extra)


def unreadable(root):
    write_digits(root / "data", range(40))
    (root / "data" / "one" / "x.jpg").write_bytes(b"\xff\xd8\xff")


def by_case(root):
    write_digits(root / "data", range(40))
    shutil.copytree(root / "data" / "one", root / "data" / "ONE")


def lacking(root):
    write_digits(root / "data", range(80), classes=9)


def table_of_missing(root):
    write_digits(root / "images", range(40))
    (root / "data").mkdir()
    lines = [f"../images/{NAMES[row % 10]}/{row}.png,{NAMES[row % 10]}" for row in range(30)]
    (root / "data.csv").write_text("\n".join(["file,label", *lines, "gone.png,one", ""]))
    shutil.rmtree(root / "data")


def sixteen_bit(root):
    write_digits(root / "data", range(40))
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    save(root / "data" / "one" / "deep.png", deep)


def animated(root):
    write_digits(root / "data", range(40))
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    save(root / "data" / "one" / "film.gif", frames[0], save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "There is no folder or file"),
        (empty, "is empty. Put one folder for each class into it"),
        (of_one_image, "the class 'four' has only one image"),
        (unreadable, "one/x.jpg"),
        (by_case, "differ in upper and lower case only"),
        (lacking, "has the label 'nine', which the training set lacks"),
        (table_of_missing, "do not exist"),
        (sixteen_bit, "one/deep.png"),
        (animated, "one/film.gif"),
    ],
)
def test_data_that_cannot_be_used(capsys, digits, tmp_path, make, message):
    make(tmp_path)
    data = tmp_path / ("data.csv" if make is table_of_missing else "data")
    argv = [*LEARN, *SMALL, *given(digits), "--data", data, "--out", tmp_path / "run"]
    assert message in fails(capsys, *argv)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trusted", "30"], "trusted is 30, but which of your own labels are right"),
        (["--trusted", "nowhere"], "There is no folder or file"),
        (["--trusted-list", "x.csv"], "Both trusted and trusted_list are given"),
        (["--trusted-per-class", "3"], "trusted_per_class is 3 without a trusted_list"),
        (["--test", "5"], "test is 5, but which of your own labels are right"),
        (["--train", "500"], "500 examples are asked for, and data has 80"),
        (["--size", "-1"], "size is -1, but must be positive"),
        (["--backbone", "small_cnn"], "Of backbone and backbone_weights only one is given"),
        (["--backbone", "small_cnn", "--backbone-weights", "none.pt"], "none.pt"),
    ],
)
def test_options_that_cannot_be_used(capsys, digits, tmp_path, options, message):
    argv = [*LEARN, *SMALL, *given(digits), *options, "--out", tmp_path / "run"]
    assert message in fails(capsys, *argv)
    assert not (tmp_path / "run").exists()


def test_data_that_changed_since(capsys, digits, finished, tmp_path):
    data = shutil.copytree(digits / "data", tmp_path / "data")
    config = json.loads((finished / "config.json").read_text()) | {"data": str(data)}
    (finished / "config.json").write_text(json.dumps(config))
    (finished / "result.json").unlink()
    next((data / "one").iterdir()).unlink()
    assert "have changed since this run began" in fails(capsys, "resume", finished)
    shutil.rmtree(data)
    assert "There is no folder or file" in fails(capsys, "resume", finished)


# review


def test_review(capsys, finished, tmp_path):
    with open(finished / "weights.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [row for row in rows if int(Path(row["file"]).stem) in WRONG]
    for row in rows:
        truth = int(Path(row["file"]).stem)
        row["label"] = {0: "naught", 8: "eight"}.get(truth, "-")
    with open(tmp_path / "accepted.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    argv = ["review", str(finished), "--accept", str(tmp_path / "accepted.csv")]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    following = tmp_path / "run-review"
    assert "Reviewed: 0 labels confirmed, 2 changed, 8 images dropped. Test accuracy" in out
    assert "of 70 labels" in out
    assert f"run folder: {following}" in err
    assert (following / "report.html").exists()
    assert cli.main(["inspect", str(following)]) == 0
    assert "Reviewed: 0 labels confirmed, 2 changed, 8 images dropped." in capsys.readouterr().out
    argv = [*argv, "--out", str(tmp_path / "other")]
    assert cli.main(argv) == 0
    assert (tmp_path / "other" / "result.json").read_bytes() == (
        following / "result.json"
    ).read_bytes()
    assert "already holds a run" in fails(capsys, *argv)


def test_review_of_files_that_cannot_be_used_leaves_nothing(capsys, finished, tmp_path):
    (tmp_path / "a.csv").write_text("file,label\nnowhere.png,one\n")
    assert "names 'nowhere.png'" in fails(
        capsys, "review", finished, "--accept", tmp_path / "a.csv"
    )
    assert "cannot be read" in fails(capsys, "review", finished, "--accept", tmp_path / "b.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "run"]


# teach


def test_teach_another_student(finished):
    assert cli.main(["teach", str(finished), "--student", "conv4"]) == 0
    found = json.loads((finished / "teach-conv4-1.json").read_text())
    assert set(found["accuracy"]) == {"ours", "unweighted", "shuffled weights", "constant weight"}
