"""Max-pooling in whole-tensor operations is PyTorch's, and so are its derivatives."""

import pytest
import torch
from torch import nn

from commentaries import Student
from commentaries.fewshot import normalisation
from commentaries.fewshot.normalisation import NormalisedBy, ReverseMode
from commentaries.fewshot.pooling import halved, is_halving


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3)])
def test_values_and_gradients_with_ties_and_odd_sizes(size, generator):
    x = torch.randint(3, (2, 3, *size), generator=generator).double().requires_grad_()
    expected = nn.functional.max_pool2d(x, 2)
    found = halved(x)
    assert torch.equal(found, expected)
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad(y, x, cotangent)[0] for y in (found, expected)]
    assert torch.equal(*gradients)


def test_higher_derivatives(generator):
    x = torch.randn(2, 2, 4, 5, generator=generator, dtype=torch.float64).requires_grad_()

    def smooth(x):
        return halved(x.sin()).exp()

    assert torch.autograd.gradcheck(smooth, x)
    assert torch.autograd.gradgradcheck(smooth, x)
    found = []
    for pool in (halved, lambda x: nn.functional.max_pool2d(x, 2)):
        value = pool(x.sin()).exp().sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = (gradient * gradient.detach().cos()).sum()
        found.append(gradient.detach())
    assert torch.allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d((2, 2), stride=(2, 2))])
def test_a_student_in_reverse_mode_uses_it(pool, generator, monkeypatch):
    student = Student(nn.Sequential(nn.Conv2d(1, 2, 3), pool, nn.Flatten(), nn.Linear(18, 3)))
    theta, x = student.init(generator), torch.randn(2, 1, 8, 8, generator=generator)
    shown = []

    def seen(x):
        shown.append(x.shape)
        return halved(x)

    monkeypatch.setattr(normalisation, "halved", seen)
    assert torch.equal(NormalisedBy(student, ReverseMode())(theta, x), student(theta, x))
    assert shown == [(2, 2, 6, 6)]


@pytest.mark.parametrize(
    "arguments",
    [(3, 2, 0, 1, False), (2, 1, 0, 1, False), (2, 2, 1, 1, False), (2, 2, 0, 2, False),
     (2, 2, 0, 1, True), (2, 2, 0, 1, False, True)],
)  # fmt: skip
def test_any_other_pooling_is_left_to_pytorch(arguments):
    x = torch.zeros(1, 1, 4, 4)
    assert is_halving(x, 2)
    assert not is_halving(x, *arguments)
    assert not is_halving(x[0], 2, 2, 0, 1, False)
