"""Convolution whose derivatives of all orders are convolutions."""

import pytest
import torch
from oracles import relative_error
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.nn import functional

from commentaries import Student
from commentaries.curvature.linear_layers import LinearLayers
from commentaries.kernels.convolution import conv2d
from commentaries.kernels.layout import channels_last
from commentaries.primitives import Primitives

SETTINGS = [
    {},
    {"padding": 1},
    {"stride": 2, "padding": 1},
    {"dilation": (2, 1), "padding": (2, 0)},
    {"groups": 2, "stride": (1, 2), "padding": 1},
]


def drawn(generator, groups=1, size=5, dtype=torch.float64):
    """Images, a kernel and a bias."""
    shapes = (2, 4, size, size), (6, 4 // groups, 3, 2), (6,)
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


@pytest.mark.parametrize("setting", SETTINGS)
def test_first_and_second_derivatives(setting, generator):
    inputs = drawn(generator, setting.get("groups", 1))

    def convolved(x, weight, bias):
        return conv2d(x, weight, bias, **setting)

    expected = functional.conv2d(*inputs, **setting).detach()
    assert relative_error(convolved(*inputs).detach(), expected) < 1e-12
    assert torch.autograd.gradcheck(convolved, inputs)
    assert torch.autograd.gradgradcheck(convolved, inputs)


@pytest.mark.parametrize("live", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_what_needs_no_gradient_gets_none(live, generator):
    inputs = [value.detach() for value in drawn(generator)]
    wanted = [inputs[i].requires_grad_() for i in live]
    found = []
    for convolved in (conv2d, functional.conv2d):
        first = torch.autograd.grad(convolved(*inputs).tanh().sum(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in first), wanted)
        found.append(torch.cat([each.flatten() for each in (*first, *second)]).detach())
    assert relative_error(*found) < 1e-12


def test_third_derivatives_as_pytorchs(generator):
    x, weight, bias = drawn(generator)
    found = []
    for convolved in (conv2d, functional.conv2d):
        value = convolved(x, weight, bias, padding=1).tanh().sum()
        for _ in range(3):
            gradient = torch.autograd.grad(value, (x, weight, bias), create_graph=True)
            value = sum((each * each.detach().sin()).sum() for each in gradient)
        found.append(torch.cat([each.detach().flatten() for each in gradient]))
    assert relative_error(found[0], found[1]) < 1e-12


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_stay_last(channels, generator):
    x = torch.randn(2, channels, 6, 6, generator=generator)
    weight = torch.randn(8, channels, 3, 3, generator=generator)
    found = conv2d(channels_last(x), weight)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert conv2d(x, weight).is_contiguous()
    assert torch.allclose(found, functional.conv2d(x, weight), atol=1e-5)


def test_other_modes_get_pytorchs_own(generator):
    """Forward mode, many kernels at once, autocast, a named padding, an image without a batch."""
    x, weight, bias = (value.detach() for value in drawn(generator))
    v = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    _, slope = jvp(lambda weight: conv2d(x, weight, bias), (weight,), (v,))
    assert relative_error(slope, functional.conv2d(x, v)) < 1e-12
    both = vmap(lambda weight: conv2d(x, weight))(torch.stack([weight, v]))
    assert relative_error(both[1], functional.conv2d(x, v)) < 1e-12
    square = weight[..., :1]
    same = functional.conv2d(x, square, padding="same")
    assert torch.equal(conv2d(x, square, padding="same"), same)
    assert torch.equal(conv2d(x[0], weight), functional.conv2d(x[0], weight))
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(x.float(), weight.float()).dtype == torch.bfloat16


def test_a_student_is_as_its_module_and_other_modes_see_its_layers(generator):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )
    student = Student(module)
    theta = student.init(generator)
    x = torch.randn(5, 3, 4, 4, generator=generator)
    live = {name: value.requires_grad_() for name, value in theta.items()}
    with LinearLayers(live) as noted:
        z = student(live, x)
    assert relative_error(z.detach(), functional_call(module, theta, x).detach()) < 1e-6
    assert [layer.weight for layer in noted.layers()] == ["0.weight", "4.weight"]
    with Primitives():
        assert type(module[0](x).grad_fn).__name__ == "_ConvolutionBackward"
