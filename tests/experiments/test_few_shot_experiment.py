"""The few-shot experiment has every cell once, and its rows come out."""

from dataclasses import replace

import pytest
from made_up_classes import made_up

from commentaries.teaching import few_shot
from experiments import few_shot as module
from experiments import store
from experiments.few_shot import Arguments, Job, cells, measure, print_verdict
from experiments.store import Store

SMALL = {"way": 3, "shot": 2, "width": 2, "query": 2, "steps": 2, "tasks": 1, "episodes": 3}


@pytest.fixture(autouse=True)
def _data(monkeypatch, tmp_path):
    monkeypatch.setattr(few_shot, "few_shot", made_up)
    monkeypatch.setattr(module, "load", lambda name, part: made_up(name, part))
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "FEATURES", tmp_path / "features")


def small(index):
    cell = cells(Arguments(seeds=(0,)))[index]
    return Job(replace(cell.job, meta_steps=2, **SMALL), cell.method)


def test_every_cell_once():
    found = cells(Arguments())
    keys = [(each.job.seed, *each.labels.values(), each.method) for each in found]
    assert len(set(keys)) == len(keys) == 3 * (2 * 3 * 3 + 2)
    paper = cells(Arguments(preset="paper", device="cuda"))
    assert {(each.job.width, each.job.device) for each in paper} == {(64, "cuda")}


def test_rows_of_weights_and_of_no_weights(tmp_path, capsys):
    kept = Store("trial", labels=module.LABELS, metrics=module.METRICS, preset="small")
    for index in (0, 2):
        kept.add(measure(small(index)))
    methods = {cell["method"]: cell for cell in kept.cells}
    assert set(methods) == {"MAML", "rates and weights", "rates and weights, equal"}
    for cell in kept.cells:
        assert 0 <= cell["accuracy"] <= 1
        assert 0 <= cell["elsewhere"] <= 1
        assert cell["seconds"] > 0
    assert "wrong_weight" in methods["rates and weights"]
    assert methods["rates and weights, equal"]["wrong_weight"] == pytest.approx(1)
    assert "wrong_weight" not in methods["MAML"]
    assert len(list((tmp_path / "features").iterdir())) == 1  # one start for all
    print_verdict(kept)
    assert "weights ahead" in capsys.readouterr().out


def test_learn2learn_learns_the_same_in_as_many_steps():
    pytest.importorskip("learn2learn", reason="not installed: the README says how to build it")
    ours, steps, seconds = measure(small(3))
    assert (ours["method"], steps["method"]) == ("MAML", "learn2learn, same steps")
    assert seconds["method"] == "learn2learn, same seconds"
    assert ours["accuracy"] == pytest.approx(steps["accuracy"], abs=0.06)  # one query example
