"""Max-pooling that keeps the places of the maxima alone."""

import pytest
import torch
from oracles import relative_error
from torch.func import jvp, vmap
from torch.nn import functional

from commentaries.kernels.max_pooling import gathered
from commentaries.primitives import Primitives

SETTINGS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},  # windows that share examples
    {"kernel_size": (2, 3), "stride": (1, 2), "ceil_mode": True},
    {"kernel_size": 2, "dilation": 2},
]

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def pooled(x, **setting):
    with Primitives():
        return functional.max_pool2d(x, **setting)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_derivatives(setting, layout, generator):
    x = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    assert torch.equal(pooled(x, **setting), functional.max_pool2d(x, **setting))
    assert type(pooled(x, **setting).grad_fn).__name__ == "_MaxPoolBackward"
    assert torch.autograd.gradcheck(lambda x: pooled(x, **setting), x)
    assert torch.autograd.gradgradcheck(lambda x: pooled(x, **setting).tanh(), x)


@pytest.mark.parametrize("setting", SETTINGS)
def test_third_derivatives_as_pytorchs(setting, generator):
    x = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    found = []
    for pool in (pooled, functional.max_pool2d):
        value = pool(x.tanh(), **setting).square().sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, x, create_graph=True)
            value = (gradient * gradient.detach().sin()).sum()
        found.append(gradient.detach())
    assert relative_error(*found) < 1e-12


@pytest.mark.parametrize("size", [1, 2])
def test_images_of_a_pixel_and_pieces_of_larger_tensors(size, generator):
    """Where a single pixel, or a single channel, leaves open what lies next to what."""
    whole = torch.randn(4, 6, 8, size, generator=generator, dtype=torch.float64)
    for x in (whole[:, ::2, :size], whole.transpose(1, 2)[:, :3, :size], whole[:, :1, :size]):
        x = x.detach().requires_grad_()
        found = []
        for pool in (pooled, functional.max_pool2d):
            value = pool(x, kernel_size=size).exp().sum()
            (first,) = torch.autograd.grad(value, x, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), x)
            found.append(torch.stack([first.detach(), second]))
        assert relative_error(*found) < 1e-12


def test_of_equal_values_the_first_is_the_maximum():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(pooled(x, kernel_size=2).sum(), x)
    assert gradient.flatten().tolist() == [1, 0, 0, 0]


def test_many_images_are_gathered_in_blocks(generator):
    x = torch.randn(3, 2, 200, 200, generator=generator)
    y, index = functional.max_pool2d(x, 1, return_indices=True)
    assert torch.equal(gathered(x, index.int()), y)


def test_other_modes_get_pytorchs_own(generator):
    x = torch.randn(2, 3, 4, 4, generator=generator)
    found, indices = pooled(x, kernel_size=2, return_indices=True)
    assert torch.equal(found, pooled(x, kernel_size=2))
    assert indices.dtype == torch.int64
    _, slope = jvp(lambda x: pooled(x, kernel_size=2), (x,), (torch.ones_like(x),))
    assert torch.equal(slope, torch.ones_like(found))
    assert torch.equal(vmap(lambda x: pooled(x, kernel_size=2))(x), found)
