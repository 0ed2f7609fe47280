"""Batch normalisation by PyTorch's kernel with a gradient that can be differentiated."""

import pytest
import torch
from oracles import relative_error
from torch import nn

from commentaries import Student
from commentaries.fewshot.normalisation import NormalisedBy, ReverseMode
from commentaries.primitives import Primitives


@pytest.mark.parametrize("shape", [(5, 2), (3, 2, 2, 3)])
def test_first_and_second_derivatives(shape, generator):
    x = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    weight, bias = (
        torch.randn(2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    )

    def normalised(x, weight, bias):
        with ReverseMode():
            return nn.functional.batch_norm(x, None, None, weight, bias, True)

    assert torch.autograd.gradcheck(normalised, (x, weight, bias))
    assert torch.autograd.gradgradcheck(normalised, (x, weight, bias))


def test_third_derivatives_as_through_primitives(generator):
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    found = []
    for mode in (ReverseMode(), Primitives()):
        with mode:
            value = nn.functional.batch_norm(x, None, None, weight, bias, True).tanh().sum()
        for _ in range(3):
            gradient = torch.autograd.grad(value, (x, weight), create_graph=True)
            value = sum((each * each.detach().sin()).sum() for each in gradient)
        found.append(torch.cat([each.detach().flatten() for each in gradient]))
    assert relative_error(found[0], found[1]) < 1e-12


def test_what_is_frozen_or_has_no_scale_stays_as_it_was(generator):
    frozen = nn.BatchNorm1d(3)
    frozen.running_mean += 2
    student = Student(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)))
    x = torch.randn(8, 4, generator=generator)
    theta = student.init(generator)
    fast = NormalisedBy(student, ReverseMode())
    assert torch.equal(fast(theta, x), student(theta, x))
    with ReverseMode():
        shown = frozen.eval()(x[:, :3])
    assert relative_error(shown.detach(), (x[:, :3] - 2) / (1 + frozen.eps) ** 0.5) < 1e-6


def test_the_student_is_the_same_but_for_rounding(generator):
    student = Student(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    x = 100 + torch.randn(8, 4, generator=generator)
    theta = student.init(generator)
    fast = NormalisedBy(student, ReverseMode())
    assert relative_error(fast(theta, x), student(theta, x)) < 1e-4
    buffers = {"1.running_mean": torch.zeros(3), "1.running_var": torch.ones(3)}
    assert torch.equal(fast(theta, x, buffers=buffers), student(theta, x, buffers=buffers))
