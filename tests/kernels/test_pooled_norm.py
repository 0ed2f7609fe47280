"""Batch normalisation and pooling in one, beside the two layers one after the other."""

import pytest
import torch
from oracles import relative_error
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional

from commentaries import Student
from commentaries.fewshot.normalisation import NormalisedBy, SupportStatistics
from commentaries.kernels.pooled_norm import normalised_maxima
from commentaries.networks.layers import PooledBatchNorm2d
from commentaries.primitives import moments, standardise

EPS = 1e-5


def drawn(generator, signs=(1.0, -1.0, 1.0), size=(4, 5)):
    """Images, and scales of given signs and a shift of their channels."""
    shape = (3, len(signs), *size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    weight = torch.rand(len(signs), generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(len(signs), generator=generator, dtype=torch.float64)
    return [value.requires_grad_() for value in (x, weight * torch.tensor(signs).double(), bias)]


def one_after_the_other(x, weight, bias, eps=EPS):
    found = standardise(x, *moments(x, [0, 2, 3]), eps)
    return functional.max_pool2d(found * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1), 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("signs", [(1.0, 1.0), (1.0, -1.0), (-1.0,)])
def test_first_and_second_derivatives(signs, layout, generator):
    x, weight, bias = drawn(generator, signs)
    x = x.detach().contiguous(memory_format=layout).requires_grad_()
    expected = one_after_the_other(x, weight, bias)
    assert relative_error(normalised_maxima(x, weight, bias, EPS), expected) < 1e-12

    def maxima(x, weight, bias):
        return normalised_maxima(x, weight, bias, EPS)

    assert torch.autograd.gradcheck(maxima, (x, weight, bias))
    assert torch.autograd.gradgradcheck(maxima, (x, weight, bias))


@pytest.mark.parametrize("signs", [(1.0, 1.0), (1.0, -1.0)])
def test_third_derivatives_as_through_primitives(signs, generator):
    inputs = drawn(generator, signs)
    found = []
    for function in (normalised_maxima, one_after_the_other):
        value = function(*inputs, EPS).tanh().sum()
        for _ in range(3):
            gradient = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum((each * each.detach().sin()).sum() for each in gradient)
        found.append(torch.cat([each.detach().flatten() for each in gradient]))
    assert relative_error(found[0], found[1]) < 1e-11


def test_a_scale_of_zero_chooses_as_pooling_does(generator):
    """All of a window are equal then; the gradient of the scale says which was taken."""
    x, weight, bias = drawn(generator, (0.0, 1.0))
    gradients = [
        torch.autograd.grad(function(x, weight, bias, EPS).square().sum(), (x, weight, bias))
        for function in (normalised_maxima, one_after_the_other)
    ]
    for ours, expected in zip(*gradients, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_student_is_as_the_two_layers(offset, generator):
    """Far from zero too, where a variance taken in one pass would be lost."""
    fused = nn.Sequential(nn.Conv2d(1, 4, 1), PooledBatchNorm2d(4), nn.ReLU())
    plain = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.ReLU())
    student = Student(fused)
    theta = student.init(generator)
    x = offset + torch.randn(8, 1, 6, 6, generator=generator)
    z = student(theta, x)
    assert relative_error(z, functional_call(plain.train(), theta, x)) < 1e-3
    assert relative_error(z, functional_call(fused.train(), theta, x)) < 1e-3


def test_as_an_ordinary_module_it_keeps_running_statistics(generator):
    fused, plain = PooledBatchNorm2d(3), nn.BatchNorm2d(3)
    x = 2 + torch.randn(5, 3, 4, 4, generator=generator)
    assert torch.equal(fused(x), functional.max_pool2d(plain(x), 2))
    assert torch.equal(fused.running_var, plain.running_var)
    assert torch.equal(fused.eval()(x), functional.max_pool2d(plain.eval()(x), 2))


def test_given_statistics_and_forward_mode_are_kept(generator):
    """Running statistics, those of a support set, and J v: each as of the two layers."""
    students = [
        Student(nn.Sequential(PooledBatchNorm2d(3)).double()),
        Student(nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2)).double()),
    ]
    x, weight, bias = (value.detach() for value in drawn(generator))
    theta = {"0.weight": weight, "0.bias": bias}
    v = {"0.weight": bias, "0.bias": weight}
    running = {"0.running_mean": bias, "0.running_var": weight.abs()}
    found = []
    for student in students:
        by_support = NormalisedBy(student, SupportStatistics(2))
        _, slope = jvp(lambda theta: student(theta, x), (theta,), (v,))  # noqa: B023
        found.append([student(theta, x, buffers=running), by_support(theta, x), slope])
    for ours, expected in zip(*found, strict=True):
        assert relative_error(ours, expected) < 1e-12
