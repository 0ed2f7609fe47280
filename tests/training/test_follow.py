"""Training on the lessons of a commentary that stays as it is."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from commentaries.commentary import ClassPairs, Lesson, MixingCoefficients
from commentaries.errors import BadInput, NonFinite
from commentaries.student import Student
from commentaries.training import Examples, Recipe, fit, follow

N, CLASSES = 48, 3
RECIPE = Recipe(steps=7, batch=16, lr=0.1)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, 2, 6, 6, generator=generator)
    return x, torch.randint(CLASSES, (N,), generator=generator)


def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.Tanh(), nn.Linear(8, CLASSES))


STUDENT = Student(network)


class Nothing:
    """A commentary that shows each batch as it is, and notes it."""

    def __init__(self):
        self.batches = []

    def init(self, generator):
        return {}

    def __call__(self, phi, batch):
        self.batches.append(batch)
        return Lesson(batch.x, batch.y)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("augment", ["none", "flip_crop"])
@pytest.mark.parametrize("passes", [0, 5])
def test_without_a_commentary_it_is_ordinary_training(data, augment, passes):
    """Bitwise: the mean over 16 examples is a sum of sixteenths."""
    recipe = Recipe(steps=7, passes=passes, batch=16, lr=0.1, augment=augment)
    nothing = Nothing()
    found = follow(STUDENT, nothing, {}, *data, recipe, seed=3)
    expected = fit(STUDENT, Examples(*data, torch.ones(N)), recipe, seed=3)
    assert equal(found, expected)
    assert len(nothing.batches) == (15 if passes else 7)


def test_what_a_commentary_is_told(data):
    nothing = Nothing()
    x, y = data
    follow(STUDENT, nothing, {}, x, y, RECIPE, seed=3)
    assert [batch.progress for batch in nothing.batches] == [step / 7 for step in range(7)]
    assert len({batch.seed for batch in nothing.batches}) == 7
    for batch in nothing.batches:
        assert torch.equal(batch.x, x[batch.index])
        assert torch.equal(batch.y, y[batch.index])
    first_epoch = torch.cat([batch.index for batch in nothing.batches[:3]])
    assert len(first_epoch.unique()) == N
    other = Nothing()
    follow(STUDENT, other, {}, x, y, RECIPE, seed=4)
    assert not {batch.seed for batch in nothing.batches} & {batch.seed for batch in other.batches}


def test_one_step_by_hand(data):
    """From the initial parameters along the gradient of the lesson, and averaged."""
    x, y = data
    mixing = MixingCoefficients(ClassPairs(CLASSES), CLASSES)
    phi = {"logits": torch.randn(1, CLASSES, CLASSES, generator=torch.Generator().manual_seed(5))}
    recipe = Recipe(steps=1, batch=16, lr=0.1, momentum=0.9, weight_decay=0.01)
    nothing = Nothing()
    follow(STUDENT, nothing, {}, x, y, recipe, seed=3)
    lesson = mixing(phi, nothing.batches[0])
    theta = STUDENT.init(torch.Generator().manual_seed(3))
    leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
    loss = cross_entropy(STUDENT(leaves, lesson.x), lesson.target)
    gradient = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    found = follow(STUDENT, mixing, phi, x, y, recipe, seed=3)
    for name, value in theta.items():
        decayed = gradient[name] + 0.01 * value
        moved = value - 0.1 * (1 + 0.9) * decayed  # Nesterov's first step
        expected = 0.1 * value + 0.9 * moved  # the first decay of the average is 1/10
        torch.testing.assert_close(found[name], expected)


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe(lr=0.4, warm_up=0.25)
    rates = [recipe.rate(step, 8) for step in range(8)]
    cosines = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
    assert rates[:2] == pytest.approx([0.2 * cosines[0], 0.4 * cosines[1]])
    assert rates[2:] == pytest.approx([0.4 * cosine for cosine in cosines[2:]])
    assert replace(recipe, warm_up=0.0).rate(0, 8) == 0.4
    with pytest.raises(BadInput, match=r"^warm_up is 1\.0"):
        replace(recipe, warm_up=1.0)


def test_weights_of_a_lesson_count(data):
    x, y = data

    class Half(Nothing):
        def __call__(self, phi, batch):
            return Lesson(batch.x, batch.y, weight=(batch.index < N // 2) * phi["scale"])

    phi = {"scale": torch.tensor(2.0)}
    found = follow(STUDENT, Half(), phi, x, y, RECIPE, seed=0)
    wrong = torch.where(torch.arange(N) < N // 2, y, (y + 1) % CLASSES)
    assert equal(follow(STUDENT, Half(), phi, x, wrong, RECIPE, seed=0), found)
    assert not equal(follow(STUDENT, Nothing(), {}, x, y, RECIPE, seed=0), found)


def test_it_is_a_function_of_the_seed_and_leaves_phi_alone(data):
    mixing = MixingCoefficients(ClassPairs(CLASSES), CLASSES, concentration=1.0)
    phi = mixing.init(torch.Generator())
    torch.rand(3)
    once = follow(STUDENT, mixing, phi, *data, RECIPE, seed=1)
    assert equal(follow(STUDENT, mixing, phi, *data, RECIPE, seed=1), once)
    assert not equal(follow(STUDENT, mixing, phi, *data, RECIPE, seed=2), once)
    assert float(phi["logits"].abs().max()) == 0
    assert not phi["logits"].requires_grad
    assert not any(value.requires_grad for value in once.values())


def test_another_criterion(data):
    x, y = data

    def doubled(z, target):
        return 2 * cross_entropy(z, target, reduction="none")

    plain = Recipe(steps=4, batch=16, lr=0.1, weight_decay=0.0)
    twice = Recipe(steps=4, batch=16, lr=0.05, weight_decay=0.0)
    found = follow(STUDENT, Nothing(), {}, x, y, twice, seed=0, criterion=doubled)
    expected = follow(STUDENT, Nothing(), {}, x, y, plain, seed=0)
    for name in found:
        torch.testing.assert_close(found[name], expected[name])


def test_a_loss_that_is_not_finite(data):
    x, y = data
    with pytest.raises(NonFinite, match=r"The training loss is nan at step 0\. Lower the learning"):
        follow(STUDENT, Nothing(), {}, x * torch.nan, y, RECIPE, seed=0)
