"""`learn fewshot`, and every other command on its runs."""

import re

import pytest
from lessons import no_figures
from made_up_classes import made_up

from commentaries import cli
from commentaries.teaching import few_shot
from commentaries.training import RunFolder

LEARN = [
    "learn", "fewshot", "--data", "cifar_fs", "--way", "3", "--shot", "2", "--query", "2",
    "--steps", "2", "--meta-steps", "3", "--tasks", "1", "--episodes", "3", "--width", "2",
    "--checkpoint-every", "1", "--commentary", "losses", "--wrong", "0.3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(few_shot, "few_shot", made_up)
    no_figures(monkeypatch)


def fails(capsys, *argv):
    assert cli.main([str(arg) for arg in argv]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_learn_stop_resume_and_inspect(capsys, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert cli.main([*LEARN, "--out", str(whole)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["method", "steps", "accuracy", "±"]
    assert re.search(
        r"After 2 steps on 2 examples of each of 3 new classes, [\d.]+% ± [\d.]+%", out
    )
    assert "Few-shot learning on cifar_fs" in (whole / "report.html").read_text()

    log = RunFolder.log

    def interrupted(folder, step, **metrics):
        if step == 2:
            raise KeyboardInterrupt
        log(folder, step, **metrics)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", interrupted)
        assert cli.main([*LEARN, "--out", str(stopped)]) == 130
    assert cli.main(["inspect", str(stopped)]) == 0
    assert "2 of 3 steps" in capsys.readouterr().out
    assert cli.main(["resume", str(stopped)]) == 0
    for name in ("checkpoint.pt", "result.json", "metrics.jsonl", "report.html"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes(), name
    capsys.readouterr()
    assert cli.main(["resume", str(whole)]) == 0
    assert "already finished" in capsys.readouterr().out
    assert cli.main(["inspect", str(whole)]) == 0
    assert "3-way 2-shot, 30% wrong support labels" in capsys.readouterr().out
    assert "teaches no other student" in fails(capsys, "teach", whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--way", "9"], "way is 9, but there are 5 classes"),
        (["--shot", "8"], "8 support and 2 query examples"),
        (["--student", "conv5"], "conv5"),
    ],
)
def test_bad_input_is_one_sentence_and_makes_no_folder(capsys, tmp_path, options, message):
    path = tmp_path / "run"
    assert message in fails(capsys, *LEARN, *options, "--out", path)
    assert not path.exists()
