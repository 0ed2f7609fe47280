"""Cells are measured in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import store
from experiments.parallel import measure_all
from experiments.store import Store


def square(number: int) -> list[store.Cell]:
    return [{"number": number, "seed": 0, "square": float(number**2)}]


def sleep(path: str) -> list[store.Cell]:
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)
    return []


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    return Store("squares", labels=("number",), metrics=("square",), preset="paper")


def test_everything_that_is_left_is_kept(kept, capsys):
    measure_all(square, [2, 3], kept, workers=2)
    assert [cell["square"] for cell in kept.cells] == [4.0, 9.0]
    assert kept.path.exists()
    assert "2/2 done, about 0.0 min left" in capsys.readouterr().out


def test_nothing_left_starts_no_process(kept, capsys):
    measure_all(square, [], kept, workers=2)
    assert capsys.readouterr().out == "Nothing is left to measure.\n"


def test_a_worker_ends_with_the_process_that_is_killed(tmp_path):
    told = tmp_path / "pid"
    script = (
        "from pathlib import Path\n"
        "from experiments import store\n"
        "from experiments.parallel import measure_all\n"
        f"from {__name__} import sleep\n"
        "if __name__ == '__main__':\n"
        f"    store.RESULTS = Path({str(tmp_path)!r})\n"
        "    kept = store.Store('none', labels=(), metrics=(), preset='paper')\n"
        f"    measure_all(sleep, [{str(told)!r}], kept, workers=1)\n"
    )
    (tmp_path / "run.py").write_text(script)
    paths = os.pathsep.join([str(Path(store.__file__).parents[1]), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py")], env=os.environ | {"PYTHONPATH": paths}
    )
    try:
        assert _comes_true(lambda: told.exists() and told.read_text())
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    worker = int(told.read_text())
    assert _comes_true(lambda: not _runs(worker))


def _comes_true(condition) -> bool:
    """Within two minutes."""
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.2)
    return False


def _runs(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
