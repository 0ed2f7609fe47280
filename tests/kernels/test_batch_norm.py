"""Batch normalisation by PyTorch's kernel with a gradient that can be differentiated."""

import pytest
import torch
from oracles import relative_error
from torch import nn
from torch.func import functional_call, jvp, vmap

from commentaries import Student
from commentaries.kernels.batch_norm import batch_norm
from commentaries.kernels.reverse_mode import reverse_only
from commentaries.primitives import Primitives, moments, standardise


def drawn(shape, generator):
    """x of a shape, and a scale and a shift of its channels, in float64."""
    channels = shape[1]
    sizes = (shape, (channels,), (channels,))
    return [
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in sizes
    ]


def from_primitives(x, weight, bias, eps=1e-5):
    shape = [1, -1] + [1] * (x.dim() - 2)
    found = standardise(x, *moments(x, [0, *range(2, x.dim())]), eps)
    return found * weight.view(shape) + bias.view(shape)


@pytest.mark.parametrize("shape", [(5, 2), (3, 2, 2, 3)])
def test_first_and_second_derivatives(shape, generator):
    inputs = drawn(shape, generator)

    def normalised(x, weight, bias):
        return batch_norm(x, weight, bias, 1e-5)

    assert torch.autograd.gradcheck(normalised, inputs)
    assert torch.autograd.gradgradcheck(normalised, inputs)


def test_third_derivatives_as_through_primitives(generator):
    x, weight, bias = drawn((6, 2), generator)
    found = []
    for function in (batch_norm, from_primitives):
        value = function(x, weight, bias, 1e-5).tanh().sum()
        for _ in range(3):
            gradient = torch.autograd.grad(value, (x, weight), create_graph=True)
            value = sum((each * each.detach().sin()).sum() for each in gradient)
        found.append(torch.cat([each.detach().flatten() for each in gradient]))
    assert relative_error(found[0], found[1]) < 1e-12


def test_it_serves_reverse_mode_in_one_precision(generator):
    x, weight, bias = drawn((4, 3), generator)
    assert reverse_only(x, weight, bias)
    assert not reverse_only(x.bfloat16(), weight, bias)


def test_other_modes_get_primitives(generator):
    """Forward mode, forward over reverse, and many students at once."""
    student = Student(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh()).double())
    theta = student.init(generator)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    v = {name: torch.randn_like(value) for name, value in theta.items()}

    def loss(theta):
        return student(theta, x).square().mean()

    def gradient(theta):
        return torch.func.grad(loss)(theta)

    _, slope = jvp(loss, (theta,), (v,))
    _, forward_over_reverse = jvp(gradient, (theta,), (v,))
    live = {name: value.clone().requires_grad_() for name, value in theta.items()}
    found = torch.autograd.grad(loss(live), list(live.values()), create_graph=True)
    inner = sum((g * v[name]).sum() for name, g in zip(live, found, strict=True))
    assert relative_error(slope, inner.detach()) < 1e-12
    second = torch.autograd.grad(inner, list(live.values()))
    for name, value in zip(live, second, strict=True):
        assert torch.allclose(forward_over_reverse[name], value, rtol=1e-10, atol=1e-14)
    many = {name: torch.stack([value, 2 * value]) for name, value in theta.items()}
    both = vmap(lambda one: student(one, x))(many)
    assert relative_error(both[0], student(theta, x)) < 1e-12


def test_what_is_frozen_keeps_its_statistics(generator):
    frozen = nn.BatchNorm1d(3).eval()
    frozen.running_mean += 2
    x = torch.randn(8, 3, generator=generator)
    with Primitives():
        shown = frozen(x)
    assert relative_error(shown.detach(), (x - 2) / (1 + frozen.eps) ** 0.5) < 1e-6


@pytest.mark.parametrize("affine", [True, False])
def test_a_student_is_as_its_module(affine, generator):
    """Far from zero too, where a variance taken in one pass would be lost."""
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=affine))
    student = Student(module)
    x = 100 + torch.randn(8, 4, generator=generator)
    theta = student.init(generator)
    assert relative_error(student(theta, x), functional_call(module.train(), theta, x)) < 1e-4
