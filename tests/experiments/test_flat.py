"""What experiments on flat minima compute besides training."""

import math

import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.curvature import Hessian
from commentaries.data import LabelledImages
from commentaries.inner import SAM, SGD
from commentaries.student import Student
from commentaries.types import Batch
from experiments import (
    fine_tuning,
    flat,
    m_sharpness,
    sam_label_noise,
    sam_noisy,
    sam_variants,
    store,
)
from experiments.flat import Against, print_verdict
from experiments.store import Store

generator = torch.Generator().manual_seed(0)


def smooth_student():
    torch.manual_seed(0)
    return Student(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 3)))


def examples(count):
    x = torch.randn(count, 3, 2, 2, generator=generator, dtype=torch.float64)
    return Batch(x, torch.arange(count) % 3, torch.arange(count))


def in_double(student):
    return {name: value.double() for name, value in student.parameters().items()}


# Who is ahead


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    made = Store("trial", labels=("rate", "method"), metrics=("accuracy",), preset="test")
    for seed, (own, other) in enumerate(((0.8, 0.5), (0.7, 0.6), (0.9, 0.6))):
        made.add([{"rate": 0.4, "method": "SAM", "seed": seed, "accuracy": own}])
        found = {"accuracy": other, "picked": own}
        made.add([{"rate": 0.4, "method": "SGD", "seed": seed} | found])
    made.add([{"rate": 0.4, "method": "SAM", "seed": 7, "accuracy": 0.1}])
    return made


def test_differences_are_taken_seed_by_seed(kept):
    found = kept.by_seed("accuracy", method="SAM"), kept.by_seed("accuracy", method="SGD")
    mean, half, seeds = flat.ahead(*found)
    # 0.3, 0.1, 0.3; t(2) = 4.30265; the seed that SGD lacks does not count
    assert mean == pytest.approx(0.7 / 3)
    assert half == pytest.approx(4.30265 * math.sqrt(0.04 / 3) / math.sqrt(3), rel=1e-5)
    assert seeds == 3


def test_the_verdict_names_the_metric_of_the_other_one(kept, capsys):
    pairs = [Against("SAM", "SGD", metric) for metric in ("accuracy", "picked")]
    print_verdict(kept, ["rate"], [*pairs, Against("SAM", "not measured")])
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["0.4", "SAM", "SGD", "0.233", "0.287", "3"]
    assert second.split() == ["0.4", "SAM", "SGD,", "picked", "0.000", "0.000", "3"]


# Variants of SAM


@pytest.mark.parametrize("name", [name for name in sam_variants.VARIANTS if name != "SGD"])
def test_all_variants_climb_equally_far(name):
    student = smooth_student()
    theta = in_double(student)
    made = sam_variants.VARIANTS[name](SGD(0.1), 0.05, sum(v.numel() for v in theta.values()))
    assert isinstance(made, SAM)
    batch = examples(9)

    def loss(theta, phi, batch):
        return functional.cross_entropy(student(theta, batch.x), batch.y)

    epsilon, _, _ = made.epsilon(Hessian()(loss, {}, batch), theta, made.init(theta))
    length = float(p.norm(epsilon))
    # several steps turn on the way; at no turn of any size is the sum this short
    low = 0.05 * (1 - 1e-9) if made.steps == 1 else 0.045
    assert low <= length <= 0.05 * (1 + 1e-9)


# m-sharpness


@pytest.mark.parametrize("m", [1, 3, 7])
def test_m_sharpness_is_what_one_ascent_step_of_each_group_finds(m):
    student, batch = smooth_student(), examples(7)
    theta = in_double(student)
    inputs, rises = batch.x, []
    assert isinstance(inputs, torch.Tensor)
    for start in range(0, 7 - m + 1, m):
        rows = torch.arange(start, start + m)
        x, y = inputs[rows], batch.y[rows]
        live = [value.clone().requires_grad_() for value in theta.values()]
        before = functional.cross_entropy(student(dict(zip(theta, live, strict=True)), x), y)
        gradient = torch.autograd.grad(before, live)
        norm = torch.cat([value.flatten() for value in gradient]).norm()
        moved = {k: v + 0.1 * g / norm for (k, v), g in zip(theta.items(), gradient, strict=True)}
        after = functional.cross_entropy(student(moved, x), y)
        rises.append(float((after - before).detach()))
    found = m_sharpness.m_sharpness(student, theta, batch, m, 0.1)
    assert found == pytest.approx(sum(rises) / len(rises), rel=1e-9)


def test_information_is_that_of_the_signs():
    drawn = torch.randn(2, 12, generator=generator)
    measure, gap = drawn[0].tolist(), drawn.sum(0).tolist()
    found = m_sharpness.information(measure, gap, [[0] * 12])
    pairs = [(i, j) for i in range(12) for j in range(12) if i != j]
    signs = [[one[i] > one[j] for i, j in pairs] for one in (measure, gap)]
    assert found.plain == pytest.approx(mutual_info_score(*signs) / math.log(2))
    assert found.conditional == pytest.approx(found.plain)
    agree = sum(a == b for a, b in zip(*signs, strict=True)) / len(pairs)
    assert found.kendall == pytest.approx(2 * agree - 1)


def test_a_perfect_measure_knows_all_and_a_reversed_one_too():
    gap = [0.3, 0.1, 0.2, 0.5]
    other = [["a", "b", "a", "b"]]
    assert m_sharpness.information(gap, gap, other) == pytest.approx((1.0, 1.0, 1.0))
    found = m_sharpness.information([-each for each in gap], gap, other)
    assert found == pytest.approx((1.0, 1.0, -1.0))


def test_what_only_repeats_a_hyperparameter_knows_nothing_beyond_it():
    rho = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    gap = [each + 0.1 * number for number, each in enumerate(rho)]
    found = m_sharpness.information(rho, gap, [rho, [0] * 9])
    assert found.plain == pytest.approx(1.0)
    assert found.conditional == pytest.approx(0.0)


# Fine-tuning


def test_a_pretrained_student_keeps_its_statistics_and_its_body():
    def network(outputs):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, outputs)
        )

    drawn = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, 4, 4, generator=drawn)
    source = Student(lambda: network(5))
    theta = source.init(drawn)
    statistics = source.statistics(theta, [Batch(x, torch.zeros(8), torch.arange(8))])
    student = fine_tuning.Pretrained(lambda: network(2), theta, statistics)
    start = student.init(drawn)
    for name, value in start.items():
        assert torch.equal(value, theta[name]) == name.startswith(("0.", "1.")), name
    # in training an example does not feel the others of its batch, nor the batches asked about
    assert torch.allclose(student(start, x)[:1], student(start, x[:1]), atol=1e-6)
    assert student.statistics(start, []) is statistics
    before = {name: value.clone() for name, value in statistics.items()}
    student(start, 3 * x)
    assert all(torch.equal(statistics[name], value) for name, value in before.items())


# Label noise


def test_half_precision_is_close_and_leaves_parameters_in_single():
    x = torch.rand(16, 3, 32, 32, generator=generator)
    images = LabelledImages(x, torch.arange(16) % 4, tuple("abcd"))
    student = sam_noisy.student_in_bfloat16(images, "conv2")
    theta = p.live(student.init(generator))
    z = student(theta, images.x)
    plain = {name.removeprefix("network."): value for name, value in theta.items()}
    exact = sam_noisy.student_for(images, "conv2")(plain, images.x)
    assert z.dtype == torch.float32
    assert not torch.equal(z, exact)
    assert torch.allclose(z, exact, atol=0.05)
    assert {value.dtype for value in p.gradients(z.sum(), theta).values()} == {torch.float32}


def test_an_accelerator_measures_what_says_most_first_and_nothing_twice():
    arguments = sam_label_noise.Arguments("gpu", seeds=(0, 1))
    made = sam_label_noise.cells(arguments, lambda planned: [])
    assert [(each.rate, *each.methods) for each in made[:3]] == [
        (0.4, "SGD"),
        (0.4, "SAM"),
        (0.4, "learned weights + SAM"),
    ]
    assert {each.methods[0] for each in made[: len(made) // 2]} == set(sam_label_noise.UNITS)
    assert len({(each.rate, each.methods, each.seed) for each in made}) == len(made) == 2 * 4 * 8
    radii = {(each.rhos, each.asam_rhos) for each in made if each.rate == 0.8}
    assert radii == {((0.05,), (0.5,))}
    left = sam_label_noise.cells(arguments, lambda planned: [*sam_label_noise.UNITS][1:])
    assert {each.methods for each in left} == {("SGD",)}
    assert len(left) == 8
