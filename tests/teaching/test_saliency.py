"""Saliency and Grad-CAM against what they are by hand."""

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Far
from torch import nn
from torch.nn.functional import interpolate

from commentaries.errors import BadInput
from commentaries.networks import Frozen, cbr, small_cnn
from commentaries.student import Student
from commentaries.teaching.saliency import grad_cam, saliency


@pytest.fixture
def x(generator):
    return torch.rand(5, 2, 8, 6, generator=generator)


class Convolved(nn.Module):
    """One convolution, tanh, the mean over the pixels, and a linear layer."""

    def __init__(self, stride=1):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3, padding=1, stride=stride)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.convolution(x)).mean((2, 3)))


def test_saliency_of_a_linear_student_is_its_weights(x, generator):
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 3)))
    theta = student.init(generator)
    weight = theta["1.weight"].reshape(3, 2, 8, 6)
    predicted = student(theta, x).argmax(1)
    assert len(predicted.unique()) > 1
    expected = weight[predicted].abs().sum(1, keepdim=True)
    torch.testing.assert_close(saliency(student, theta, x, seen=x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_grad_cam_of_one_convolution(x, generator, stride):
    """α_k is the mean of ∂z_c/∂A_k over the pixels, the map ReLU(Σ α_k A_k)."""
    student = Student(lambda: Convolved(stride))
    theta = student.init(generator)
    maps = nn.functional.conv2d(
        x, theta["convolution.weight"], theta["convolution.bias"], padding=1, stride=stride
    )
    pixels = maps.shape[2] * maps.shape[3]
    predicted = student(theta, x).argmax(1)
    weight = theta["last.weight"][predicted][:, :, None, None]  # of the predicted class
    derivative = weight * (1 - torch.tanh(maps).square()) / pixels
    alpha = derivative.mean((2, 3), keepdim=True)
    expected = (alpha * maps).sum(1, keepdim=True).relu()
    assert 0 < int((expected > 0).sum()) < expected.numel()
    found = grad_cam(student, theta, x, seen=x)
    assert found.shape == (5, 1, 8, 6)
    torch.testing.assert_close(found, interpolate(expected, (8, 6), mode="bilinear"))


def test_the_last_convolution_is_meant(x, generator):
    def last():
        module = Convolved()
        module.convolution = nn.Conv2d(3, 4, 3, padding=1)
        return module

    student = Student(lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), last()))
    theta = student.init(generator)
    hidden = torch.tanh(nn.functional.conv2d(x, theta["0.weight"], theta["0.bias"], padding=1))
    alone = Student(last)
    own = {name.removeprefix("2."): theta[name] for name in theta if name.startswith("2.")}
    torch.testing.assert_close(
        grad_cam(student, theta, x, seen=x), grad_cam(alone, own, hidden, seen=hidden)
    )


def test_without_a_convolution_there_is_no_grad_cam(x, generator):
    student = Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(96, 3)))
    with pytest.raises(BadInput, match="Grad-CAM needs a convolution, and this student has none"):
        grad_cam(student, student.init(generator), x, seen=x)


@pytest.mark.parametrize("attribute", [saliency, grad_cam])
def test_an_image_is_judged_alone_and_nothing_is_changed(generator, attribute):
    """In evaluation mode, with the statistics of what was seen, in pieces of 256."""
    student = Student(lambda: cbr(3, channels=2, size=8, width=8))
    theta = student.init(generator)
    x = torch.rand(300, 2, 8, 8, generator=generator)
    before = {name: value.clone() for name, value in theta.items()}
    found = attribute(student, theta, x, seen=x[:40])
    assert not found.requires_grad
    assert bool((found >= 0).all())
    for row in (3, 299):
        one = attribute(student, theta, x[row : row + 1], seen=x[:40])
        torch.testing.assert_close(found[row : row + 1], one, rtol=1e-3, atol=1e-7)
    other = attribute(student, theta, x[:1], seen=10 * x[40:80])
    assert not torch.allclose(found[:1], other, rtol=1e-2)
    assert not x.requires_grad
    assert all(torch.equal(theta[name], before[name]) for name in theta)
    assert not any(value.requires_grad for value in theta.values())
    assert all(value.requires_grad for value in next(student.modules()).parameters())
    assert next(student.modules()).training


def test_constants_of_a_student_are_kept(generator):
    body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten())
    student = Student(nn.Sequential(Frozen(body), nn.Linear(256, 3)))
    theta = student.init(generator)
    x = torch.rand(4, 2, 8, 8, generator=generator)
    whole = Student(nn.Sequential(body, nn.Linear(256, 3)))
    names = {"0.0.weight": body[0].weight, "0.0.bias": body[0].bias}
    expected = saliency(whole, {**theta, **names}, x, seen=x)
    torch.testing.assert_close(saliency(student, theta, x, seen=x), expected)
    assert bool((grad_cam(student, theta, x, seen=x) > 0).any())


@pytest.mark.parametrize("attribute", [saliency, grad_cam])
def test_on_another_device(generator, attribute):
    student = Student(lambda: small_cnn(3, channels=2, size=8, width=4))
    theta = student.init(generator)
    x = torch.rand(6, 2, 8, 8, generator=generator)
    here = attribute(student, theta, x, seen=x)
    with Elsewhere():
        far = {name: value.to(DEVICE) for name, value in theta.items()}
        there = attribute(student, far, x.to(DEVICE), seen=x.to(DEVICE))
        assert isinstance(there, Far)
    assert torch.equal(there.near, here)
