"""Every command from its arguments to what it prints and writes."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short import shorten

from commentaries import cli
from commentaries.cleaning import controls, methods
from commentaries.cleaning.job import read_job
from commentaries.cleaning.options import Job
from commentaries.cleaning.weights_table import read_weights
from commentaries.cli import commands
from commentaries.errors import BadInput
from commentaries.training import RunFolder

SIZES = ["--train", "120", "--trusted", "30", "--test", "100", "--checkpoint-every", "5"]
SMALL = [
    *SIZES, "--controls", "none", "--settings.steps", "12", "--settings.warm-up", "2",
    "--settings.refresh-every", "5",
]  # fmt: skip
LEARN = ["learn", "weights"]


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    shorten(monkeypatch, 15, methods, controls)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run, and one that was interrupted in its ninth step."""
    root = tmp_path_factory.mktemp("runs")
    log = RunFolder.log

    def interrupted(folder, step, **metrics):
        if step == 8:
            raise KeyboardInterrupt
        log(folder, step, **metrics)

    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, 15, methods)
        assert cli.main([*LEARN, *SMALL, "--out", str(root / "finished")]) == 0
        patch.setattr(RunFolder, "log", interrupted)
        assert cli.main([*LEARN, *SMALL, "--out", str(root / "stopped")]) == 130
    return root


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made / "finished", tmp_path / "finished")


@pytest.fixture
def stopped(made, tmp_path):
    return shutil.copytree(made / "stopped", tmp_path / "stopped")


def same_results(path: Path, other: Path) -> bool:
    names = ("metrics.jsonl", "weights.csv", "cleaned.txt", "corrected.csv", "splits.json",
             "result.json")  # fmt: skip
    return all((path / name).read_bytes() == (other / name).read_bytes() for name in names)


def fails(capsys, *argv: str | Path, code: int = 1) -> str:
    """The one sentence of a command that must fail."""
    assert cli.main([str(arg) for arg in argv]) == code
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def refused(capsys, *argv: str) -> str:
    """What is said of arguments that cannot be understood."""
    with pytest.raises(SystemExit) as exit:
        cli.main(list(argv))
    assert exit.value.code == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return " ".join(re.sub("[│╭╮╰╯─]", " ", out + err).split())


# learn


def test_learn(capsys, tmp_path):
    path = tmp_path / "deep" / "run"
    assert cli.main([*LEARN, *SMALL, "--seed", "3", "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split("  ")[0] == "method"
    assert "test accuracy  AUROC  AUROC by final loss" in out
    assert re.search(r"^ours +0\.\d{3} +0\.\d{3} +0\.\d{3}$", out, re.M)
    result = json.loads((path / "result.json").read_text())
    assert f"{result['suggested_differs']} of 120 labels" in out
    assert str(path / "weights.csv") in out
    assert str(path / "report.html") in out
    assert "method: ours" in err
    assert "it/s" not in err  # a bar only on a terminal
    page = (path / "report.html").read_text()
    for title in ("Most distrusted labels", "All methods", "Learned weights",
                  "Weights over training", "Training", "true label: "):  # fmt: skip
        assert title in page
    assert page.count('class="note"') == 120
    assert len(re.findall('class="item[^"]* first', page)) == 48
    job = read_job(RunFolder.open(path))
    assert (job.seed, job.train, job.settings.steps, job.settings.refresh_every) == (3, 120, 12, 5)


def test_controls_are_named_while_they_run_and_stand_in_the_table(capsys, tmp_path):
    argv = [*LEARN, *SMALL, "--controls", "quick", "--out", str(tmp_path / "run")]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    for name in ("ours", "unweighted", "svm alone", "oracle"):
        assert f"method: {name}\n" in err
        assert re.search(f"^{name} +0", out, re.M)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Test accuracy</h2>" in page
    assert "Wrong labels found (AUROC)</h2>" in page


@pytest.mark.parametrize("score", ["table", "loss"])
def test_scores_without_cues(capsys, tmp_path, score):
    path = tmp_path / "run"
    assert cli.main([*LEARN, *SMALL, "--settings.score", score, "--out", str(path)]) == 0
    assert cli.main(["inspect", str(path)]) == 0
    assert f"score '{score}'" in capsys.readouterr().out


def test_without_noise_there_is_no_auroc(capsys, tmp_path):
    path = tmp_path / "run"
    assert cli.main([*LEARN, *SMALL, "--noise", "none", "--out", str(path)]) == 0
    assert re.search(r"^ours +0\.\d{3} +– +–$", capsys.readouterr().out, re.M)
    assert "Wrong labels found" not in (path / "report.html").read_text()


def test_a_run_goes_to_runs_unless_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*LEARN, *SMALL]) == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"weights-\d{8}-\d{6}", path.name)


def test_a_preset_changes_the_defaults_of_the_other_options():
    smoke = cli.parse([*LEARN, "--preset", "smoke", "--seed", "4", "--settings.lr", "0.05"])
    assert isinstance(smoke, cli.LearnWeights)
    expected = cli.SMOKE["weights"]
    assert isinstance(expected, Job)
    settings = replace(expected.settings, lr=0.05)
    assert smoke.job == replace(expected, seed=4, settings=settings)
    plain = cli.parse(LEARN)
    assert isinstance(plain, cli.LearnWeights)
    assert plain.job == Job()


def test_cues_are_chosen_by_name():
    command = cli.parse([*LEARN, "--settings.cues", "margin", "loss"])
    assert isinstance(command, cli.LearnWeights)
    assert command.job.settings.cues == ("margin", "loss")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trusted", "9"], "9 trusted examples cannot cover 10 classes."),
        (["--data", "digit"], "There is no data set 'digit'. Did you mean 'digits'?"),
        (["--noise", "pear"], "There is no kind of noise 'pear'. Did you mean 'pair'?"),
        (["--train", "0"], "train is 0, but must be positive"),
        (["--test", "-5"], "test is -5, but must be positive"),
        (["--trusted", "-1"], "trusted is -1, but must be positive"),
        (["--threads", "0"], "threads is 0, but must be positive"),
        (["--checkpoint-every", "0"], "checkpoint_every is 0, but must be positive"),
        (["--train", "1700"], "are more than the 1797 there are. Ask for fewer."),
        (["--rate", "1.5"], "The noise rate is 1.5"),
        (["--seed", "-1"], "seed is -1, but must not be negative"),
        (["--settings.steps", "-2"], "steps is -2, but must be positive"),
        (["--settings.lr", "nan"], "lr is nan, but must be positive"),
        (["--settings.momentum", "1.5"], "momentum"),
        (["--settings.average", "-0.1"], "average"),
        (["--settings.share", "2"], "share is 2.0, but must be at least 0 and below 1"),
        (["--settings.terms", "-1"], "terms is -1, but must be finite and not negative"),
        (["--settings.weight-decay", "-1"], "weight_decay is -1.0"),
        (["--settings.width", "0"], "width is 0, but must be positive"),
        (["--settings.warm-up", "-3"], "warm_up is -3"),
        (["--trusted", "mine"], "trusted is 'mine', but digits is a data set by name"),
        (["--test", "mine"], "test is 'mine', but digits is a data set by name"),
        (["--trusted-list", "a.csv"], "trusted_list is for your own images, and digits is"),
        (["--size", "32"], "size is for your own images, and digits is a data set by name"),
        (["--student", "cbrs"], "There is no student 'cbrs'. Did you mean 'cbr'?"),
        (["--student", "torchvision:vgg11"], "torchvision:vgg11 does not take images of"),
        (["--backbone", "torchvision:resnet18"], "Of backbone and backbone_weights only one"),
        (["--device", "gpu"], "There is no device 'gpu' here"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_before_there_is_a_folder(
    capsys, tmp_path, argv, message
):
    assert message in fails(capsys, *LEARN, *SMALL, "--out", tmp_path / "run", *argv)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*LEARN, "--controls", "quik"], "Expected one of ('quick', 'all', 'none')"),
        ([*LEARN, "--settings.cues", "margins"], "margin"),
        ([*LEARN, "--preset", "smoky"], "smoke"),
        ([*LEARN, "--train", "many"], "--train"),
        ([*LEARN, "--trian", "3"], "--train"),
        (["lern"], "learn, resume, inspect, teach"),
        (["learn"], "weights"),
        ([], "learn"),
        (["resume"], "RUN"),
    ],
)
def test_arguments_that_cannot_be_understood(capsys, argv, message):
    assert message in refused(capsys, *argv)


def test_the_folder_must_be_free(capsys, tmp_path, finished):
    assert "already holds a run" in fails(capsys, *LEARN, *SMALL, "--out", finished)
    (tmp_path / "note.txt").write_text("mine")
    message = fails(capsys, *LEARN, *SMALL, "--out", tmp_path)
    assert "is not empty" in message
    assert (tmp_path / "note.txt").read_text() == "mine"


@pytest.mark.parametrize("terms", ["0", "1"])
def test_steps_that_diverge(capsys, tmp_path, terms):
    path = tmp_path / "run"
    argv = [*LEARN, *SMALL, "--settings.lr", "1e6", "--settings.terms", terms, "--out", path]
    message = fails(capsys, *argv)
    assert re.search(r"[Ll]ower", message)
    assert cli.main(["inspect", str(path)]) == 0
    assert re.search(r"^\d+ of 12 steps$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("full_at", [1, 3, 6, 9])
def test_a_full_disk(capsys, tmp_path, monkeypatch, made, full_at):
    """Whatever was saved stays readable, and the run goes on once there is space."""
    path, calls, fsync = tmp_path / "run", [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) >= full_at + 6:  # the first six make the folder and splits.json
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = fails(capsys, *LEARN, *SMALL, "--out", path)
    assert "The disk is full" in message
    assert "resume" in message
    assert cli.main(["inspect", str(path)]) == 0
    assert cli.main(["resume", str(path)]) == 0
    assert same_results(path, made / "finished")


# resume


def test_an_interrupted_run_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_checkpoint", interrupted)
    path = tmp_path / "run"
    assert cli.main([*LEARN, *SMALL, "--out", str(path)]) == 130
    error = capsys.readouterr().err
    assert f"commentaries resume {path}" in error
    assert "Traceback" not in error


def test_resume_ends_as_if_it_had_not_been_stopped(capsys, stopped, made):
    assert cli.main(["resume", str(stopped)]) == 0
    assert re.search(r"^ours +0\.\d{3}", capsys.readouterr().out, re.M)
    assert same_results(stopped, made / "finished")
    assert (stopped / "report.html").exists()


def test_resume_of_a_finished_run(capsys, finished):
    before = {entry: entry.stat().st_mtime_ns for entry in finished.iterdir()}
    assert cli.main(["resume", str(finished)]) == 0
    assert "already finished" in capsys.readouterr().out
    assert {entry: entry.stat().st_mtime_ns for entry in finished.iterdir()} == before
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    assert cli.main(["resume", str(finished)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (finished / "report.html").read_bytes() == page


@pytest.mark.filterwarnings("default")
def test_another_thread_count_warns_and_goes_on(capsys, stopped):
    path = stopped / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": 7}))
    assert cli.main(["resume", str(stopped)]) == 0
    assert "warning: The run" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_what_libraries_say_to_their_developers_is_not_shown(capsys, finished, monkeypatch):
    def warn(command):
        warnings.warn("will go away", FutureWarning, stacklevel=1)
        warnings.warn("look here", UserWarning, stacklevel=1)

    monkeypatch.setattr(commands, "_do", warn)
    assert cli.main(["inspect", str(finished)]) == 0
    assert capsys.readouterr().err == "warning: look here\n"


@pytest.mark.parametrize("command", ["resume", "inspect", "teach"])
def test_what_is_not_a_run(capsys, tmp_path, command):
    assert "does not exist" in fails(capsys, command, tmp_path / "nowhere")
    assert "is not a run folder" in fails(capsys, command, tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in fails(capsys, command, tmp_path / "file")


def edited(path: Path, **changes) -> None:
    config = json.loads((path / "config.json").read_text())
    for name, value in changes.items():
        place, (*parents, last) = config, name.split("__")
        for parent in parents:
            place = place[parent]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, "it has speed, which is not known"),
        ({"settings__speed": 3}, "it has settings.speed, which is not known"),
        ({"seed": KeyError}, "it lacks seed"),
        ({"settings__lr": KeyError}, "it lacks settings.lr"),
        ({"train": "many"}, "train is 'many'"),
        ({"train": 120.0}, "train is 120.0"),
        ({"train": True}, "train is True"),
        ({"rate": None}, "rate is None"),
        ({"controls": "few"}, "controls is 'few'"),
        ({"settings": [1]}, "settings is not an object"),
        ({"settings__cues": "margin"}, "settings.cues is 'margin'"),
        ({"settings__cues": ["margin", "taste"]}, "settings.cues[1] is 'taste'"),
    ],
)
def test_a_foreign_configuration(capsys, stopped, changes, message):
    edited(stopped, **changes)
    for command in ("resume", "inspect", "teach"):
        error = fails(capsys, command, stopped)
        assert "config.json was made by another version or edited: " + message in error


def test_a_configuration_that_is_not_json(capsys, stopped):
    (stopped / "config.json").write_text('{"data": ')
    assert "is not JSON" in fails(capsys, "resume", stopped)
    (stopped / "config.json").write_text("[]")
    assert "it is not an object" in fails(capsys, "resume", stopped)


def test_a_configuration_is_read_as_it_was(finished):
    command = cli.parse([*LEARN, *SMALL])
    assert isinstance(command, cli.LearnWeights)
    assert read_job(RunFolder.open(finished)) == command.job


def test_numbers_without_a_point_are_floats_too(stopped):
    edited(stopped, rate=0)
    rate = read_job(RunFolder.open(stopped)).rate
    assert (rate, type(rate)) == (0.0, float)


def test_a_value_out_of_range_in_a_configuration(stopped):
    edited(stopped, rate=3)
    with pytest.raises(BadInput, match="The noise rate is 3"):
        read_job(RunFolder.open(stopped))


@pytest.mark.parametrize("command", ["resume", "teach"])
def test_a_checkpoint_that_cannot_be_read(capsys, stopped, command):
    whole = (stopped / "checkpoint.pt").read_bytes()
    metrics = (stopped / "metrics.jsonl").read_bytes()
    (stopped / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    assert "is cut short or damaged" in fails(capsys, command, stopped)
    torch.save({"weights": torch.zeros(3)}, stopped / "checkpoint.pt")
    assert "is not a checkpoint of commentaries" in fails(capsys, command, stopped)
    (stopped / "checkpoint.pt").write_bytes(whole)
    edited(stopped, settings__width=8)
    assert "was made by another configuration" in fails(capsys, command, stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == metrics


# inspect


def test_inspect(capsys, finished):
    assert cli.main(["inspect", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "12 of 12 steps" in out
    assert re.search(r"last step: loss \d.*outer loss .*‖F‖ .*effective share", out)
    assert re.search(r"^ours +0\.\d{3}", out, re.M)
    shown = re.findall(r"^digits/\d+ +\d +[0-9.e-]+ +([0-9.e-]+) ", out, re.M)
    suspicion = [line.suspicion for line in read_weights(RunFolder.open(finished))]
    assert shown == [f"{value:.3f}" for value in sorted(suspicion, reverse=True)[:10]]
    assert "not finished" not in out


def test_inspect_of_an_unfinished_run(capsys, stopped):
    assert cli.main(["inspect", str(stopped)]) == 0
    out = capsys.readouterr().out
    assert "8 of 12 steps" in out
    assert f"not finished; go on with: commentaries resume {stopped}" in out


def test_inspect_before_the_first_step(capsys, stopped):
    (stopped / "metrics.jsonl").unlink()
    (stopped / "checkpoint.pt").unlink()
    assert cli.main(["inspect", str(stopped)]) == 0
    assert "0 of 12 steps" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "file,label\n", None])
def test_weights_that_cannot_be_read(capsys, finished, content):
    path = finished / "weights.csv"
    if content is None:
        path.write_text(path.read_text().replace("0.", "O.", 1))
    else:
        path.write_text(content)
    assert "is not a table of weights" in fails(capsys, "inspect", finished)


# teach


@pytest.mark.parametrize("student", ["small_cnn", "cbr"])
def test_teach(capsys, finished, student):
    assert cli.main(["teach", str(finished), "--student", student, "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    names = ["ours", "unweighted", "shuffled weights", "constant weight", "oracle"]
    for name in names:
        assert re.search(f"^{name} +0", out, re.M)
        assert f"method: {name}\n" in err
    found = json.loads((finished / f"teach-{student}-5.json").read_text())
    assert (found["student"], found["seed"]) == (student, 5)
    assert list(found["accuracy"]) == list(found["auroc"]) == names


def test_teach_is_deterministic(finished):
    contents = []
    for _ in range(2):
        assert cli.main(["teach", str(finished)]) == 0
        contents.append((finished / "teach-small_cnn-1.json").read_bytes())
    assert contents[0] == contents[1]


def test_teach_needs_a_run_that_has_learned(capsys, stopped, finished):
    assert "has taken 5 of 12 steps. Resume it" in fails(capsys, "teach", stopped)
    (stopped / "checkpoint.pt").unlink()
    assert "There is no checkpoint" in fails(capsys, "teach", stopped)
    assert "seed is -1" in fails(capsys, "teach", finished, "--seed", "-1")
    message = fails(capsys, "teach", finished, "--student", "cbrs")
    assert "There is no student 'cbrs'. Did you mean 'cbr'?" in message


# processes


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "commentaries", *map(str, argv)]


def test_exit_codes_of_a_process(tmp_path):
    result = subprocess.run(
        command("inspect", tmp_path), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def _hear_control_c() -> None:
    """Tests may run in the background of a shell, which ignores it for all that follows."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_control_c(tmp_path):
    path = tmp_path / "run"
    argv = command(*LEARN, *SMALL, "--settings.steps", "100000", "--out", path)
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_control_c)
    try:
        deadline = time.monotonic() + 60
        while not (path / "checkpoint.pt").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"commentaries resume {path}" in error
    assert "Traceback" not in error
    assert RunFolder.open(path).metrics()
