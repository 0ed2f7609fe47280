"""The benchmark of the commentaries compares what agrees, and its rows come out."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from commentaries import MixingCoefficients
from commentaries.commentary import ClassPairs
from commentaries.student import Student
from commentaries.types import Batch
from experiments import store
from experiments.benchmarks import commentary as module
from experiments.benchmarks.commentary import AIMS, METHODS, METRICS, Arguments, run, verdict
from experiments.benchmarks.loops import looped, looped_ratios
from experiments.benchmarks.side_by_side import interleaved, operations, peak_memory, ratio
from experiments.benchmarks.variants import LOOPS, MIXING, Bench
from experiments.store import Store

CLASSES, COUNT, SIDE = 3, 6, 8
FORMS = (looped_ratios, looped)
every_method = pytest.mark.parametrize("method", METHODS)


def bench(method):
    """A smooth student on tiny images."""
    hypergradient, steps = METHODS[method]
    generator = torch.Generator().manual_seed(0)

    def batch(seed):
        x = torch.rand(COUNT, 2, SIDE, SIDE, generator=generator)
        y = torch.randint(CLASSES, (COUNT,), generator=generator)
        return Batch(x, y, torch.arange(seed * COUNT, (seed + 1) * COUNT), 0.5, seed)

    student = Student(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, CLASSES)
        )
    )
    inner = [batch(seed) for seed in range(steps)]
    return Bench(student, hypergradient, inner, batch(0), classes=CLASSES), student


@every_method
def test_loops_agree_with_ours_and_silent_commentaries_with_none(method):
    made, _ = bench(method)
    made.check(1e-12)
    # in single precision too, up to its rounding
    assert max(made.disagreement(name) for name in made.variants) < 1e-5


@every_method
def test_the_loops_teach_something_that_moves_the_commentary(method):
    made, _ = bench(method)
    for name in (MIXING, *LOOPS):
        result, phi = made.step(name)
        assert float(result.value["logits"].norm()) > 0
        assert not torch.equal(phi["logits"], made.variants[name].phi["logits"])


@pytest.mark.parametrize(("name", "form"), [*zip(LOOPS, FORMS, strict=True)])
def test_a_loop_with_other_ratios_is_refused(name, form):
    made, student = bench("implicit, 1 term")
    wrong = form(student, MixingCoefficients(ClassPairs(CLASSES), CLASSES, low=0.499))
    variant = made.variants[name]
    problem = replace(variant.problem, inner=wrong)
    made.variants[name] = variant._replace(problem=problem)
    with pytest.raises(ArithmeticError, match=name):
        made.check()


@pytest.mark.parametrize("name", ["example weights", MIXING, "U-Net mask", "Gaussian window"])
def test_a_commentary_that_is_not_silent_is_refused(name):
    made, _ = bench("implicit, 1 term")
    variant = made.variants[name]
    made.variants[name] = variant._replace(silent=variant.phi)
    with pytest.raises(ArithmeticError, match=name):
        made.check()


def test_every_round_takes_every_way_once_in_an_order_of_its_own():
    taken = []
    names = ["a", "b", "c", "d"]
    steps = {name: lambda name=name: taken.append(name) for name in names}
    seconds = interleaved(steps, rounds=6, warm_up=2)
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(names, 6)
    rounds = [tuple(taken[start : start + 4]) for start in range(0, len(taken), 4)]
    assert all(sorted(each) == names for each in rounds)
    assert len(rounds) == 8
    assert len(set(rounds)) > 1


def test_a_ratio_is_of_medians_and_its_quartiles_of_the_rounds():
    found = ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0])
    assert found.of_medians == pytest.approx(4 / 3)
    # by round 2, 1 and 3
    assert (found.lower, found.upper) == (1.5, 2.5)


def test_memory_and_operations_are_those_of_the_step():
    a, b = torch.ones(100, 200), torch.ones(200, 300)

    def step():
        for _ in range(3):
            once = torch.empty(50_000)  # freed before the next, and smaller than the product
            del once
        return a @ b

    assert peak_memory(step) == max(50_000, 100 * 300) * 4
    assert operations(step) == 2 * 100 * 200 * 300


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    return tmp_path


def test_smoke_rows_come_out(results, monkeypatch):
    method = "implicit, 1 term"
    monkeypatch.setattr(module, "METHODS", {method: METHODS[method]})
    kept = run(Arguments(preset="smoke", batch=4))
    made, _ = bench(method)
    content = json.loads((results / "benchmark_commentary_smoke.json").read_text())
    rows = {(row["hypergradient"], row["variant"], row["metric"]): row for row in content["rows"]}
    assert len(rows) == len(content["rows"])
    assert set(rows) == {(method, a, b) for a in made.variants for b in METRICS}
    assert rows[method, "example weights", "ratio"]["value"] == 1
    for variant in made.variants:
        of = {metric: rows[method, variant, metric]["value"] for metric in METRICS}
        assert of["ms"] > 0
        assert of["peak MiB"] > 0
        assert of["lower quartile"] <= of["upper quartile"]
        assert of["disagreement, 1e-6"] < 10
    # what a step needs more of does not depend on the machine
    for metric in ("GFLOP", "peak MiB"):
        weights, mixing, masks = (
            rows[method, variant, metric]["value"]
            for variant in ("example weights", MIXING, "U-Net mask")
        )
        assert weights < mixing < masks
    assert {row[4] for row in verdict(kept)} == set(AIMS)


def test_another_device_adds_rows_and_leaves_those_there(results, monkeypatch):
    monkeypatch.setattr(module, "METHODS", {name: METHODS[name] for name in [*METHODS][:1]})
    arguments = Arguments(seeds=(0,), batch=2, rounds=1, name="trial")
    path = run(arguments).path
    content = json.loads(path.read_text())
    here = content["device"]
    for cell in content["cells"]:
        cell["device"] = "elsewhere"
    path.write_text(json.dumps(content | {"device": "elsewhere, cuda"}))
    elsewhere = content["cells"]

    both = run(arguments)
    assert json.loads(path.read_text())["device"] == f"elsewhere, cuda; {here}"
    assert len(both.cells) == 2 * len(elsewhere)
    assert all(cell in both.cells for cell in elsewhere)
    assert run(arguments).cells == both.cells  # nothing is left to measure


def test_a_file_names_every_device_and_version_once(results):
    options = {"labels": ("device",), "metrics": ("ms",), "preset": "test"}
    Store("trial", **options).add([{"device": "a", "seed": 0, "ms": 1.0}])
    path = results / "trial.json"
    content = json.loads(path.read_text())
    torch_here = content["versions"]["torch"]
    content["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(content))
    for seed in (1, 2):
        Store("trial", **options).add([{"device": "a", "seed": seed, "ms": 2.0}])
    after = json.loads(path.read_text())
    assert after["device"] == content["device"]
    assert after["versions"]["torch"] == f"1.0; {torch_here}"
