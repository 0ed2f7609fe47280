"""`learn mixup` and `learn masks`, and every other command on their runs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import lessons
import numpy as np
import pytest
from pictures import write_digits

from commentaries import cli
from commentaries.teaching.options import MasksJob, MixupJob
from commentaries.training import RunFolder

SMALL = [
    "--train", "60", "--validation", "30", "--test", "40", "--controls", "none",
    "--checkpoint-every", "2", "--settings.steps", "6", "--settings.warm-up", "1",
    "--settings.batch", "32", "--settings.validation-batch", "32", "--recipe.steps", "6",
]  # fmt: skip
MIXUP = ["learn", "mixup", *SMALL]
MASKS = ["learn", "masks", *SMALL, "--data", "digits"]
FILES = ("splits.json", "metrics.jsonl", "result.json", "checkpoint.pt", "report.html")


@pytest.fixture(scope="module", autouse=True)
def _no_figures():
    with pytest.MonkeyPatch.context() as patch:
        lessons.no_figures(patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished runs, and ones that were interrupted in their fifth step."""
    root = tmp_path_factory.mktemp("runs")
    log = RunFolder.log

    def interrupted(folder, step, **metrics):
        if step == 4:
            raise KeyboardInterrupt
        log(folder, step, **metrics)

    with pytest.MonkeyPatch.context() as patch:
        for name, learn in (("mixup", MIXUP), ("masks", MASKS)):
            argv = [*learn, "--controls", "quick", "--out"]
            assert cli.main([*argv, str(root / name)]) == 0
            with patch.context() as stop:
                stop.setattr(RunFolder, "log", interrupted)
                assert cli.main([*argv, str(root / f"{name}-stopped")]) == 130
    return root


@pytest.fixture
def runs(made, tmp_path):
    """Copies of all of them."""
    return shutil.copytree(made, tmp_path / "runs")


def fails(capsys, *argv: str | Path) -> str:
    """The one sentence of a command that must fail."""
    assert cli.main([str(arg) for arg in argv]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0][-1] in ".?"
    return lines[0]


# learn


@pytest.mark.parametrize(
    ("learn", "title"), [(MIXUP, "How to mix digits"), (MASKS, "Where to look in digits")]
)
def test_learn(capsys, tmp_path, learn, title):
    path = tmp_path / "deep" / "run"
    assert cli.main([*learn, "--seed", "3", "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split("  ")[0] == "method"
    assert re.search(r"^ours +0\.\d{3} +0\.\d{3} +\d\.\d{3}", out, re.M)
    assert "The student that was taught is right on" in out
    assert f"Report: {path / 'report.html'}." in out
    assert f"run folder: {path}" in err
    assert "method: ours" in err
    assert "warning" not in err
    assert title in (path / "report.html").read_text()
    config = json.loads((path / "config.json").read_text())
    assert (config["kind"], config["seed"], config["settings"]["steps"]) == (learn[1], 3, 6)
    files = {entry.name for entry in path.iterdir()}
    assert files == {"config.json", "environment.json", "history", "students", *FILES}


def test_digits_on_photos(capsys, tmp_path, monkeypatch):
    lessons.few_crops(monkeypatch)
    argv = ["learn", "masks", *SMALL, "--student", "small_cnn", "--out", str(tmp_path / "run")]
    assert cli.main(argv) == 0
    out, _ = capsys.readouterr()
    assert re.search(r"mass in box +pointing$", out, re.M)
    assert "lies in the boxes of what the label is about" in out


def test_controls_are_named_while_they_run_and_stand_in_the_table(capsys, tmp_path):
    argv = [*MIXUP, "--controls", "quick", "--alphas", "0.3", "--out", str(tmp_path / "run")]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    for name in ("ours", "no mixing", "standard mixup", "constant ratio"):
        assert f"method: {name}\n" in err
        assert re.search(f"^{name} +0", out, re.M)
    assert re.search(r"^standard mixup .* 0\.300$", out, re.M)
    assert "the best control, " in out


def test_a_run_goes_to_runs_unless_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(MIXUP) == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"mixup-\d{8}-\d{6}", path.name)


def test_own_images(capsys, tmp_path):
    data = write_digits(tmp_path / "data", range(60), classes=3)
    (data / "one" / "broken.png").write_bytes(b"no image")
    argv = ["learn", "masks", *SMALL[6:], "--data", str(data), "--size", "9", "--out",
            str(tmp_path / "run")]  # fmt: skip
    assert "one/broken.png" in fails(capsys, *argv)
    assert not (tmp_path / "run").exists()
    assert cli.main([*argv, "--skip-unreadable"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"warning: .*one/broken\.png", err)
    assert "1 images were left out" in (tmp_path / "run" / "report.html").read_text()
    assert "ours" in out


def test_presets_change_the_defaults_of_the_other_options():
    smoke = cli.parse(["learn", "masks", "--preset", "smoke", "--background", "0.5"])
    assert isinstance(smoke, cli.LearnMasks)
    expected = cli.SMOKE["masks"]
    assert isinstance(expected, MasksJob)
    assert smoke.job == replace(expected, background=0.5)
    plain = cli.parse(["learn", "mixup"])
    assert isinstance(plain, cli.LearnMixup)
    assert plain.job == MixupJob()
    command = cli.parse([*MIXUP, "--alphas", "0.1", "1", "--concentration", "2", "--low", "0"])
    assert isinstance(command, cli.LearnMixup)
    job = command.job
    assert (job.alphas, job.concentration, job.low) == ((0.1, 1.0), 2.0, 0.0)


# what cannot be


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*MIXUP, "--low", "0.8", "--high", "0.3"], "The ratios run from 0.8 to 0.3"),
        ([*MIXUP, "--concentration", "-1"], "concentration is -1.0, but must be positive"),
        ([*MIXUP, "--concentration", "1e-9"], "concentration is 1e-09"),
        ([*MIXUP, "--knots", "0"], "knots is 0, but must be positive"),
        ([*MIXUP, "--ratio", "network", "--knots", "2"], "knots is 2, but a network has no"),
        ([*MIXUP, "--ratio", "network", "--centred"], "centred is True, but a network has no"),
        ([*MIXUP, "--data", "digit"], "There is no data set 'digit'. Did you mean 'digits'?"),
        ([*MIXUP, "--data", "pasted_digits"], "pasted_digits is made for masks. Choose digits,"),
        ([*MIXUP, "--train", "1790"], "more than the 1797 there are. Ask for fewer."),
        ([*MIXUP, "--validation", "9"], "9 validation examples cannot cover 10 classes."),
        ([*MIXUP, "--test", "mine"], "test is 'mine', but digits is a data set by name"),
        ([*MIXUP, "--size", "12"], "size is for your own images, and digits is"),
        ([*MIXUP, "--student", "cbrs"], "There is no student 'cbrs'. Did you mean 'cbr'?"),
        ([*MIXUP, "--student", "resnet18", "--device", "gpu"], "There is no device 'gpu' here"),
        ([*MIXUP, "--settings.lr", "nan"], "lr is nan, but must be positive"),
        ([*MIXUP, "--settings.terms", "-1"], "terms is -1"),
        ([*MIXUP, "--recipe.batch", "0"], "batch is 0"),
        ([*MASKS, "--background", "1"], "background is 1.0, but must be at least 0 and below 1"),
        ([*MASKS, "--background", "-0.1"], "background is -0.1, but must be at least 0"),
        ([*MASKS, "--correlation", "1.5"], "correlation is 1.5, but must be from 0 to 1"),
        ([*MASKS, "--area", "-1"], "area is -1.0"),
        ([*MASKS, "--area", "1"], "area is 1.0, but a window that keeps its size"),
        ([*MASKS, "--deviation", "0"], "deviation is 0.0"),
        ([*MASKS, "--data", "digits_on_photo"], "Did you mean 'digits_on_photos'?"),
        ([*MASKS, "--data", "digits_on_photos", "--test", "mine"], "test is 'mine', but digits_on"),
        ([*MASKS, "--data", "coloured_mnist", "--root", "nowhere"], "mnist is not in "),
        ([*MASKS, "--data", "./nowhere"], "There is no folder or file"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_before_there_is_a_folder(
    capsys, tmp_path, monkeypatch, argv, message
):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *argv, "--out", tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", ["unet", "window"])
def test_images_smaller_than_the_stride(capsys, tmp_path, mask):
    data = write_digits(tmp_path / "data", range(60), classes=3)
    argv = ["learn", "masks", *SMALL[6:], "--data", data, "--size", "7", "--mask", mask, "--out",
            tmp_path / "run"]  # fmt: skip
    message = fails(capsys, *argv)
    assert "takes images of at least 8 x 8 pixels, and these are 7 x 7. Resize them" in message
    assert not (tmp_path / "run").exists()


def test_images_of_which_some_have_other_channels(capsys, tmp_path):
    """Grey arrays to learn from and colour to test: they are made alike, or refused."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "grey.npz", x=rng.random((40, 8, 8)), y=np.arange(40) % 4)
    np.savez(tmp_path / "colour.npz", x=rng.random((20, 8, 8, 3)), y=np.arange(20) % 4)
    argv = ["learn", "masks", *SMALL[6:], "--data", tmp_path / "grey.npz", "--test",
            tmp_path / "colour.npz", "--out", tmp_path / "run"]  # fmt: skip
    assert cli.main([str(arg) for arg in argv]) == 0
    assert re.search(r"^ours +\d\.\d{3}", capsys.readouterr().out, re.M)


def test_the_folder_must_be_free(capsys, tmp_path, runs):
    assert "already holds a run" in fails(capsys, *MIXUP, "--out", runs / "mixup")
    (tmp_path / "note.txt").write_text("mine")
    assert "is not empty" in fails(capsys, *MASKS, "--out", tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("learn", [MIXUP, MASKS])
@pytest.mark.parametrize("terms", ["0", "1", "2"])
def test_steps_that_diverge(capsys, tmp_path, learn, terms):
    path = tmp_path / "run"
    argv = [*learn, "--settings.lr", "1e6", "--settings.terms", terms, "--out", path]
    assert "lr = 1e+06" in (message := fails(capsys, *argv))
    assert "Lower it (on the command line --settings.lr)." in message
    assert cli.main(["inspect", str(path)]) == 0
    assert re.search(r"^\d of 6 steps$", capsys.readouterr().out, re.M)


# resume


def same(path: Path, other: Path) -> bool:
    students = [
        place.read_bytes() == (other / place.relative_to(path)).read_bytes()
        for place in sorted(path.glob("*/*.pt"))
    ]
    return bool(students) and all(students) and all(
        (path / name).read_bytes() == (other / name).read_bytes() for name in FILES
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_resume_ends_as_if_it_had_not_been_stopped(capsys, runs, kind):
    stopped = runs / f"{kind}-stopped"
    assert not (stopped / "result.json").exists()
    assert cli.main(["resume", str(stopped)]) == 0
    assert re.search(r"^ours +0\.\d{3}", capsys.readouterr().out, re.M)
    assert same(stopped, runs / kind)


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "commentaries", *map(str, argv)]


def test_resume_after_a_kill(tmp_path):
    """Wherever it came."""
    argv = [*MIXUP, "--settings.steps", "60", "--concentration", "2", "--out"]
    path = tmp_path / "killed"
    process = subprocess.Popen(
        command(*argv, path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not (path / "checkpoint.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (path / "result.json").exists()
    assert cli.main(["resume", str(path)]) == 0
    assert cli.main([*argv, str(tmp_path / "whole")]) == 0
    assert same(path, tmp_path / "whole")


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_resume_of_a_finished_run(capsys, runs, kind):
    path = runs / kind
    before = {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")}
    assert cli.main(["resume", str(path)]) == 0
    assert "already finished" in capsys.readouterr().out
    assert {entry: entry.stat().st_mtime_ns for entry in path.rglob("*")} == before
    page = (path / "report.html").read_bytes()
    (path / "report.html").unlink()
    assert cli.main(["resume", str(path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (path / "report.html").read_bytes() == page


def edited(path: Path, **changes) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("mixup", {"speed": 3}, "it has speed, which is not known"),
        ("mixup", {"ratio": "net"}, "ratio is 'net'"),
        ("mixup", {"alphas": [0.1, "x"]}, "alphas[1] is 'x'"),
        ("mixup", {"kind": "masks"}, "it has ratio, which is not known"),
        ("mixup", {"kind": "weights"}, "which is not known"),
        ("masks", {"kind": "mask"}, "its kind is 'mask', not one of weights, mixup, masks"),
        ("masks", {"background": None}, "background is None"),
    ],
)
def test_a_foreign_configuration(capsys, runs, kind, changes, message):
    path = runs / f"{kind}-stopped"
    edited(path, **changes)
    for name in ("resume", "inspect", "teach"):
        error = fails(capsys, name, path)
        assert "config.json was made by another version or edited: " in error
        assert message in error


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_a_value_out_of_range_in_a_configuration(capsys, runs, kind):
    path = runs / f"{kind}-stopped"
    edited(path, seed=-4)
    assert "seed is -4, but must not be negative" in fails(capsys, "resume", path)


def test_a_checkpoint_of_another_kind_of_commentary(capsys, runs):
    edited(runs / "mixup-stopped", ratio="network")
    message = fails(capsys, "resume", runs / "mixup-stopped")
    assert "was made by another configuration: at /phi" in message


# inspect


def test_inspect_mixing(capsys, runs):
    assert cli.main(["inspect", str(runs / "mixup")]) == 0
    out = capsys.readouterr().out
    assert "mixing, digits, 60 train, 30 validation, 40 test examples, seed 0" in out
    assert "6 of 6 steps" in out
    assert re.search(r"last step: loss \d.*outer loss .*‖F‖ ", out)
    assert re.search(r"^constant ratio +0\.\d{3}", out, re.M)
    assert "The learned share of an example itself is 0.7" in out
    assert "not finished" not in out


def test_inspect_masks(capsys, runs):
    assert cli.main(["inspect", str(runs / "masks")]) == 0
    out = capsys.readouterr().out
    assert "masks, digits, 60 train" in out
    assert re.search(r"^shuffled masks +0\.\d{3}", out, re.M)
    assert re.search(r"The masks let \d+% of the test images through", out)


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_inspect_of_an_unfinished_run(capsys, runs, kind):
    path = runs / f"{kind}-stopped"
    assert cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "4 of 6 steps" in out
    assert f"not finished; go on with: commentaries resume {path}" in out


# teach and review


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mixup", ["ours", "no mixing", "standard mixup", "constant ratio"]),
        ("masks", ["ours", "no mask", "centre window", "mean mask", "shuffled masks"]),
    ],
)
def test_teach(capsys, runs, kind, names):
    argv = ["teach", str(runs / kind), "--student", "cbr", "--seed", "5", "--steps", "4"]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    for name in names:
        assert re.search(f"^{name} +[01]", out, re.M)
        assert f"method: {name}\n" in err
    found = json.loads((runs / kind / "teach-cbr-5.json").read_text())
    assert (found["student"], found["seed"], found["steps"]) == ("cbr", 5, 4)
    assert list(found["methods"]) == names


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_teach_needs_a_run_that_has_learned(capsys, runs, kind):
    path = runs / f"{kind}-stopped"
    assert "has taken 4 of 6 steps. Resume it" in fails(capsys, "teach", path)
    assert "seed is -1" in fails(capsys, "teach", runs / kind, "--seed", "-1")
    assert "steps is 0" in fails(capsys, "teach", runs / kind, "--steps", "0")
    message = fails(capsys, "teach", runs / kind, "--student", "cbrs")
    assert "There is no student 'cbrs'. Did you mean 'cbr'?" in message


@pytest.mark.parametrize("kind", ["mixup", "masks"])
def test_there_is_nothing_to_review(capsys, tmp_path, runs, kind):
    (tmp_path / "mine.csv").write_text("file,label\n")
    message = fails(capsys, "review", runs / kind, "--accept", tmp_path / "mine.csv")
    assert f"{runs / kind} is a run of `learn {kind}`, which doubts no labels." in message
    assert "Review a run of `learn weights`." in message
    assert sorted(entry.name for entry in runs.iterdir()) == [
        "masks", "masks-stopped", "mixup", "mixup-stopped"
    ]  # fmt: skip


def test_data_that_changed(capsys, tmp_path):
    data = write_digits(tmp_path / "data", range(60), classes=3)
    path = tmp_path / "run"
    argv = ["learn", "mixup", *SMALL[6:], "--data", str(data), "--out", str(path)]
    assert cli.main(argv) == 0
    capsys.readouterr()
    one = next((data / "one").iterdir())
    one.rename(data / "two" / one.name)
    for name in ("teach", "resume"):
        (path / "report.html").unlink(missing_ok=True)
        assert "have changed since this run began" in fails(capsys, name, path)


def test_a_set_that_is_made_of_others(capsys, tmp_path, monkeypatch):
    lessons.invent(monkeypatch)
    lessons.few_crops(monkeypatch)
    argv = ["learn", "masks", *SMALL, "--data", "swapped_backgrounds", "--student", "small_cnn"]
    assert cli.main([*argv, "--out", str(tmp_path / "run")]) == 0
    assert re.search(r"cue shifted +worst group", capsys.readouterr().out)
