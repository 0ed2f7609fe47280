"""The few-shot benchmark compares what agrees, leaves out what is absent, and its rows come out."""

import json

import pytest
import torch

from experiments import store
from experiments.benchmarks import fewshot as module
from experiments.benchmarks.fewshot import (
    AT_ONCE,
    METRICS,
    OURS,
    RECOMPUTED,
    Arguments,
    check,
    run,
    verdict,
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "SMOKE", module.Setting(8, 1, 2, 1, 2))
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "TASKS", 2)
    return tmp_path


def test_smoke_rows_come_out(results):
    kept = run(Arguments(preset="smoke"))
    rows = json.loads((results / "benchmark_fewshot_smoke.json").read_text())["rows"]
    found = {(row["way"], row["metric"]): row["value"] for row in rows}
    ways = {OURS, RECOMPUTED, AT_ONCE, *module.found_peers()}
    assert set(found) == {(way, metric) for way in ways for metric in METRICS}
    assert found[OURS, "ratio"] == found[RECOMPUTED, "memory ratio"] == 1
    assert all(found[way, "meta-steps/s"] > 0 for way in ways)
    if ways > {OURS, RECOMPUTED, AT_ONCE}:
        assert [line[2] for line in verdict(kept, "cpu")] == ["time", "memory"]


def test_a_peer_with_another_answer_is_refused(results):
    def halved(network, episodes, *, lr, steps):
        def loss():
            zeros = {name: torch.zeros_like(v) for name, v in network.named_parameters()}
            return torch.ones(()), zeros

        return loss

    with pytest.raises(ArithmeticError, match=r"halved is .* from commentaries"):
        check(module.SMOKE, 0, "cpu", {"halved": halved})


def test_a_peer_that_is_not_installed_is_left_out(results, monkeypatch, capsys):
    def absent():
        raise ImportError("No module named 'absent'")

    monkeypatch.setattr(module, "PEERS", {"absent": absent})
    assert module.found_peers() == {}
    assert capsys.readouterr().out == "absent is left out: No module named 'absent'\n"
