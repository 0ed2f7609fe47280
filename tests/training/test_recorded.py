"""Steps that leave metrics, checkpoints and earlier commentaries in a folder."""

import math

import pytest
import torch

from commentaries.hypergradient import Implicit
from commentaries.inner import SGD
from commentaries.problem import Bilevel
from commentaries.solvers import Neumann
from commentaries.training import RunFolder, Schedule, StepResult, start, train
from commentaries.training.recorded import HISTORY, diagnostics, history, resumed, take
from commentaries.types import Batch

PROBLEM = Bilevel(
    lambda theta, phi, batch: 0.5 * ((theta["w"] - phi["v"] - batch.x) ** 2).sum(),
    lambda theta, phi, batch: 0.5 * ((theta["w"] - batch.y) ** 2).sum(),
)
OPTIMIZERS = {"inner_optimizer": SGD(0.1), "outer_optimizer": SGD(0.3)}


def draw(generator):
    return {"w": torch.randn(2, generator=generator)}


def first():
    return start(draw, {"v": torch.zeros(2)}, seed=0, **OPTIMIZERS)


def steps(state, last=7):
    def batch(student, step):
        x = torch.tensor([float(step), 1.0])
        return Batch(x, x / 2, torch.arange(2))

    return train(
        PROBLEM, state, hypergradient=Implicit(Neumann(2, step_size=0.1)), inner=batch, outer=batch,
        schedule=Schedule(last), theta=draw, **OPTIMIZERS,
    )  # fmt: skip


def taken(folder, state, last=7, **options):
    more = {"last": last, "checkpoint_every": 3, "metrics": diagnostics} | options
    return take(folder, state, steps(state, last), **more)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", {})


def test_every_step_is_logged_and_shown(folder):
    shown = []
    state = taken(
        folder, first(), on_step=lambda step, found: shown.append((step, found)),
        more=lambda state: {"squared": state.step**2} if state.step % 2 else {},
    )  # fmt: skip
    metrics = folder.metrics()
    assert [row["step"] for row in metrics] == list(range(7))
    assert [step for step, _ in shown] == list(range(1, 8))
    for row, (step, found) in zip(metrics, shown, strict=True):
        assert {name: row[name] for name in found} == found
        assert row.get("squared") == (step**2 if step % 2 else None)
    assert state.step == 7
    assert not (folder.path / HISTORY).exists()


@pytest.mark.parametrize(("every", "expected"), [(1, [*range(1, 8)]), (3, [3, 6, 7]), (50, [7])])
def test_checkpoints_come_every_so_often_and_at_the_end(folder, monkeypatch, every, expected):
    saved = []
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda self, state: saved.append(state.step))
    taken(folder, first(), checkpoint_every=every)
    assert saved == expected


def test_commentaries_on_the_way_are_kept(folder):
    states = {result.state.step: result.state for result in steps(first())}
    taken(folder, first(), history_every=2)
    kept = history(folder, first())
    assert [state.step for state in kept] == [2, 4, 6]
    for state in kept:
        assert torch.equal(state.phi["v"], states[state.step].phi["v"])
    assert not torch.equal(kept[0].phi["v"], kept[1].phi["v"])


def test_a_run_without_history(folder):
    assert history(folder, first()) == []


def test_resumed_is_the_start_before_the_first_checkpoint(folder):
    began = first()
    assert resumed(folder, began) is began
    folder.log(0, loss=1.0)
    assert resumed(folder, began).step == 0
    assert folder.metrics() == []


def test_resumed_drops_what_came_after_the_checkpoint(folder):
    taken(folder, first(), checkpoint_every=2, last=5, history_every=1)
    expected = folder.metrics()
    folder.log(5, loss=1.0)
    place = folder.path / HISTORY
    (place / ".0000006.pt.77-ab.tmp").touch()
    state = resumed(folder, first())
    assert state.step == 5
    assert folder.metrics() == expected
    assert all(path.suffix == ".pt" for path in place.iterdir())
    assert taken(folder, state).step == 7
    assert [row["step"] for row in folder.metrics()] == list(range(7))
    assert len(history(folder, state)) == 5


def test_diagnostics_are_means_over_the_students():
    given = (
        {"inner_loss": 1.0, "stationarity": 2.0, "relative_residual": None},
        {"inner_loss": torch.tensor(4.0), "stationarity": 3.0},
    )
    found = diagnostics(StepResult(first(), 0.5, given))
    assert found == {
        "loss": 2.5, "outer_loss": 0.5, "stationarity": 2.5, "relative_residual": None
    }  # fmt: skip


def test_diagnostics_of_steps_are_finite():
    for result in steps(first()):
        found = diagnostics(result)
        assert all(value is not None and math.isfinite(value) for value in found.values())
