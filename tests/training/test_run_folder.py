from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commentaries.errors import BadInput, BadRun
from commentaries.training import atomic, environment
from commentaries.training.run_folder import RunFolder, default_path


@dataclasses.dataclass(frozen=True)
class Solver:
    terms: int = 5
    step_size: float | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    data: Path = Path("digits")
    solver: Solver = Solver()
    widths: tuple[int, ...] = (8, 16)
    rate: float = 0.1


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "one", Config())


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.path.iterdir())


def test_a_new_run_holds_its_configuration_and_environment(run: RunFolder) -> None:
    assert names(run) == ["config.json", "environment.json"]
    found = RunFolder.open(str(run.path))
    assert found == run
    assert found.config() == {
        "data": "digits",
        "solver": {"terms": 5, "step_size": None},
        "widths": [8, 16],
        "rate": 0.1,
    }
    recorded = found.environment()
    assert recorded["versions"]["torch"] == torch.__version__
    assert recorded["versions"]["numpy"] == np.__version__
    assert recorded["threads"] == torch.get_num_threads()
    assert recorded["device"] == "cpu"
    assert recorded["device_name"] == recorded["processor"] != ""
    assert set(recorded) >= {"python", "platform", "commit"}


def test_the_commit_is_that_of_the_checkout_that_tracks_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    module = tmp_path / "environment.py"
    module.write_text("first")
    monkeypatch.setattr(environment, "__file__", str(module))
    assert environment.commit() is None  # no checkout
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "empty")
    assert environment.commit() is None  # a checkout that does not track us
    git("add", "environment.py")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert environment.commit() == head
    module.write_text("second")
    assert environment.commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert environment.commit() is None  # no git


def test_no_run_is_overwritten(run: RunFolder, tmp_path: Path) -> None:
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(BadRun, match=r"already holds a run\. Resume it, or choose another"):
        RunFolder.create(run.path, Config(rate=0.2))
    assert (run.path / "config.json").read_bytes() == before
    with pytest.raises(BadRun, match=r"not empty \(it has runs\). Choose another folder"):
        RunFolder.create(tmp_path, Config())
    (tmp_path / "file").touch()
    with pytest.raises(BadRun, match=r"is a file\. Choose another folder"):
        RunFolder.create(tmp_path / "file", Config())
    with pytest.raises(BadRun, match="Check the path"):
        RunFolder.create(tmp_path / "file" / "run", Config())


def test_an_empty_folder_and_an_interrupted_creation_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert RunFolder.create(tmp_path, {"rate": 1}).config() == {"rate": 1}
    write, calls = atomic.write_bytes, []

    def interrupted(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(tmp_path / "new", Config())
    (tmp_path / "new" / ".config.json.1-2.tmp").touch()
    with pytest.raises(BadRun, match=r"has no config\.json"):
        RunFolder.open(tmp_path / "new")
    assert RunFolder.create(tmp_path / "new", Config()).config()["rate"] == 0.1


def test_of_two_processes_only_one_makes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # the other one comes right after
    (tmp_path / "run").mkdir()
    with pytest.raises(BadRun, match="File exists"):
        RunFolder.create(tmp_path / "run", Config())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"solver": {"clip": float("inf")}}, r"solver\.clip is inf.*None for no limit"),
        ({"widths": [1, float("nan")]}, r"widths\[1\] is nan"),
        ({"loss": torch.nn.functional.relu}, "function .loss. cannot be written as JSON"),
    ],
)
def test_a_configuration_that_would_not_return_is_refused(
    config: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        RunFolder.create(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_run_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match="does not exist"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(BadRun, match=r"no config\.json and no environment\.json\. Give the folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadRun, match=r"it has no environment\.json\."):
        RunFolder.open(tmp_path)
    with pytest.raises(BadRun, match="is a file"):
        RunFolder.open(tmp_path / "config.json")


def test_metrics_are_strict_json_in_order(run: RunFolder) -> None:
    assert run.metrics() == []
    run.log(0, loss=torch.tensor(0.5), accuracy=np.float32(0.25), note="ü", tried=[1, None])
    run.log(1, loss=float("nan"), bound=float("-inf"), norms=torch.tensor([1.0, float("inf")]))
    assert run.metrics() == [
        {"step": 0, "loss": 0.5, "accuracy": 0.25, "note": "ü", "tried": [1, None]},
        {"step": 1, "loss": None, "bound": None, "norms": [1.0, None]},
    ]
    text = (run.path / "metrics.jsonl").read_text()
    assert not re.search("NaN|Infinity", text)
    assert text.count("\n") == 2
    with pytest.raises(BadInput, match="cannot be written as JSON"):
        run.log(2, loss=object())
    assert len(run.metrics()) == 2


def test_a_torn_last_line_is_ignored_cut_and_never_glued(run: RunFolder) -> None:
    path = run.path / "metrics.jsonl"
    run.log(0, loss=1.0)
    whole = path.read_bytes()
    run.log(1, loss=0.5)
    second = path.read_bytes()[len(whole) :]
    for length in range(len(second)):
        path.write_bytes(whole + second[:length])
        assert run.metrics() == [{"step": 0, "loss": 1.0}]
        run.log(1, loss=0.25)
        assert run.metrics() == [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.25}]
    path.write_bytes(second[:5])
    assert run.metrics() == []
    run.log(0, loss=2.0)
    assert run.metrics() == [{"step": 0, "loss": 2.0}]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}', '{"step": "1"}', ""])
def test_a_foreign_line_is_named(run: RunFolder, line: str) -> None:
    run.log(0)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    run.log(1)
    with pytest.raises(BadRun, match=r"Line 2 of .*metrics\.jsonl.*Delete that line"):
        run.metrics()


def test_rewind_keeps_exactly_the_earlier_steps(run: RunFolder) -> None:
    run.rewind(0)
    assert names(run) == ["config.json", "environment.json"]
    for step in range(6):
        run.log(step, part="inner")
        run.log(step, part="outer")
    path = run.path / "metrics.jsonl"
    first = b"".join(path.read_bytes().splitlines(keepends=True)[:8])
    with open(path, "a") as file:
        file.write('{"step": 2, "torn')
    (run.path / ".checkpoint.pt.9-ab.tmp").write_bytes(b"left by a kill")
    run.rewind(4)
    assert path.read_bytes() == first
    assert [line["step"] for line in run.metrics()] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert names(run) == ["config.json", "environment.json", "metrics.jsonl"]
    run.rewind(0)
    assert run.metrics() == []


def test_checkpoints_pass_through_the_folder(run: RunFolder) -> None:
    assert not run.checkpoint.exists()
    with pytest.raises(BadRun, match="There is no checkpoint"):
        run.load_checkpoint({"w": torch.zeros(3)})
    state = {"w": torch.randn(3)}
    run.save_checkpoint(state, meta={"step": 1})
    assert torch.equal(run.load_checkpoint({"w": torch.zeros(3)})["w"], state["w"])


def test_metrics_reach_the_disk_before_the_checkpoint(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, fsync, replace = [], os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        order.append(f"-> {os.path.basename(target)}")
        replace(source, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    run.log(0, loss=1.0)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    run.save_checkpoint({"step": 1})
    temporary = order.pop(1)
    assert temporary.startswith(".checkpoint.pt.")
    assert order == ["metrics.jsonl", "-> checkpoint.pt", "one"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs POSIX file size limits")
def test_a_full_disk_keeps_the_earlier_metrics(run: RunFolder) -> None:
    resource = pytest.importorskip("resource")
    run.log(0, loss=1.0)
    size = (run.path / "metrics.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, limits[1]))  # stops within the line
    try:
        with pytest.raises(BadRun, match=r"Could not write .*metrics\.jsonl"):
            run.log(1, loss=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (run.path / "metrics.jsonl").stat().st_size == size
    run.log(1, loss=0.25)
    assert run.metrics() == [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.25}]


def test_json_files_are_replaced_in_one_step(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_json("result.json", {"solver": Solver(), "auroc": np.float64("nan"), "n": (1, 2)})
    result = {"solver": {"terms": 5, "step_size": None}, "auroc": None, "n": [1, 2]}
    assert run.read_json("result.json") == result
    json.loads((run.path / "result.json").read_text(), parse_constant=pytest.fail)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(BadRun, match="disk is full"):
            run.write_json("result.json", {})
    assert run.read_json("result.json") == result
    assert names(run) == ["config.json", "environment.json", "result.json"]


def test_unreadable_json_is_said(run: RunFolder) -> None:
    with pytest.raises(BadRun, match=r"result\.json.*missing"):
        run.read_json("result.json")
    (run.path / "result.json").write_text('{"a": ')
    with pytest.raises(BadRun, match=r"is not JSON .*Restore it"):
        run.read_json("result.json")


def test_another_thread_count_is_warned_of(run: RunFolder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.warn_if_threads_differ()
    recorded = run.environment()
    run.write_json("environment.json", recorded | {"threads": recorded["threads"] + 1})
    with pytest.warns(UserWarning, match=rf"torch\.set_num_threads\({recorded['threads'] + 1}\)"):
        run.warn_if_threads_differ()


def test_default_paths_are_free(tmp_path: Path) -> None:
    first = default_path("learn", root=tmp_path)
    assert re.fullmatch(r"learn-\d{8}-\d{6}", first.name)
    assert default_path("learn").parent == Path("runs")
    paths = []
    for _ in range(3):
        paths.append(default_path("learn", root=tmp_path))
        RunFolder.create(paths[-1], {})
    assert len(set(paths)) == 3


TRAIN_FOREVER = """
import sys
import torch
from commentaries.training.run_folder import RunFolder

torch.set_num_threads(1)
run = RunFolder.open(sys.argv[1])
state = {"step": 0, "w": torch.zeros(1000)}
if run.checkpoint.exists():
    state = run.load_checkpoint(state)
run.rewind(state["step"])
print("resumed", flush=True)
while True:
    step = state["step"]
    run.log(step, total=float(state["w"].sum()), filler="x" * 200)
    state = {"step": step + 1, "w": state["w"] + 1}
    if state["step"] % 3 == 0:
        run.save_checkpoint(state)
"""


def test_killed_at_any_moment_a_run_goes_on_where_its_checkpoint_stands(run: RunFolder) -> None:
    delays, reached = random.Random(3), 0
    source = Path(sys.modules["commentaries.training.run_folder"].__file__ or "").parents[2]
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN_FOREVER, str(run.path)],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(source)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"resumed\n"
        time.sleep(delays.uniform(0.05, 0.15))
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        found = RunFolder.open(run.path)
        steps = [line["step"] for line in found.metrics()]
        assert steps == list(range(len(steps)))
        if not found.checkpoint.exists():
            continue
        state = found.load_checkpoint({"step": 0, "w": torch.zeros(1000)})
        assert torch.equal(state["w"], torch.full((1000,), float(state["step"])))
        assert reached <= state["step"] <= len(steps)
        reached = state["step"]
        found.rewind(reached)
        lines = found.metrics()
        assert [line["step"] for line in lines] == list(range(reached))
        assert all(line["total"] == 1000.0 * line["step"] for line in lines)
    assert reached > 0
