"""The U-Net: any size of image, one example at a time, and what it refuses."""

import math

import pytest
import torch
from oracles import normal, slope
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.errors import BadInput
from commentaries.networks import unet
from commentaries.student import Student

pytestmark = pytest.mark.usefixtures("float64")


def images(n, *shape, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "depth"),
    [((8, 8), 3), ((9, 15), 3), ((28, 28), 3), ((32, 20), 2), ((2, 3), 1), ((16, 17), 4)],
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_the_output_has_the_size_of_the_image(size, depth, outputs):
    network = unet(outputs, channels=2, width=2, depth=depth)
    z = network(images(3, 2, *size))
    assert z.shape == (3, outputs, *size)
    assert float(z.detach().std()) > 0


def test_by_hand():
    """One halving, written out."""
    network = unet(channels=2, width=3, depth=1)
    x = images(2, 2, 5, 4)
    theta = dict(network.named_parameters())

    def stage(name, z, stride):
        z = functional.conv2d(z, theta[f"{name}.0.weight"], stride=stride, padding=1)
        z = (z - z.mean((1, 2, 3), keepdim=True)) / (
            z.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        return z * z.sigmoid()

    z = stage("bottom", stage("down.0", x, 2), 1)
    z = functional.conv2d(z, theta["last.weight"], theta["last.bias"], padding=1)
    found = network(x)
    for row in range(5):
        for column in range(4):
            channel = 2 * (row % 2) + column % 2
            expected = z[:, channel, row // 2, column // 2]
            torch.testing.assert_close(found[:, 0, row, column], expected, rtol=1e-12, atol=1e-12)


def test_what_is_beside_a_stage_reaches_it():
    """Detail comes from the first stage, and all of the image from the last."""
    torch.manual_seed(0)
    network = unet(channels=1, width=4, depth=3)
    x = images(1, 1, 32, 32).requires_grad_()
    (seen,) = torch.autograd.grad(network(x)[0, 0, 4, 4], x)
    assert float(seen[0, 0, 31, 31].abs()) > 0
    with torch.no_grad():
        for stage in network.up:
            stage[0].weight[:, : stage[0].weight.shape[1] // 3 * 2] = 0  # what comes from below
    (near,) = torch.autograd.grad(network(x)[0, 0, 4, 4], x)
    shares = near[0, 0].abs() / seen[0, 0].abs().sum()
    assert float(shares[:8, :8].sum()) > 10 * float(shares[24:, 24:].sum())


def test_no_output_depends_on_the_rest_of_the_batch():
    student = Student(lambda: unet(channels=2, width=2))
    assert not student.uses_batch_statistics
    theta = normal(student.init(torch.Generator().manual_seed(0)), 3)
    x = images(4, 2, 8, 11)
    together = student(theta, x, buffers={})
    alone = torch.cat([student(theta, row[None], buffers={}) for row in x])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)
    assert torch.equal(student(theta, x), together)  # training is evaluation


def test_it_is_smooth():
    student = Student(lambda: unet(channels=1, width=2, depth=2))
    theta = normal(student.init(torch.Generator().manual_seed(0)), 3)
    x = images(2, 1, 6, 7)

    def value(theta):
        return student(theta, x).sin().sum()

    live = p.live(theta)
    found = p.gradients(value(live), live)
    for seed in range(3):
        v = normal(theta, seed)
        assert float(p.dot(found, v)) == pytest.approx(slope(value, theta, v, 1e-5), rel=1e-7)


def test_its_documented_size():
    with torch.device("meta"):
        network = unet(channels=3)
        assert sum(value.numel() for value in network.parameters()) == 24_348
    x = torch.rand(1, 3, 32, 32)
    work = 0

    def count(part, _, z):
        nonlocal work
        work += z.numel() * math.prod(part.weight.shape[1:])

    network = unet(channels=3).double()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    network(x)
    assert work / 1e6 == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unet(channels=0), "channels is 0"),
        (lambda: unet(0, channels=1), "outputs is 0"),
        (lambda: unet(channels=1, width=0), "width is 0"),
        (lambda: unet(channels=1, depth=0), "depth is 0"),
        (
            lambda: unet(channels=1)(images(2, 1, 7, 9)),
            r"at least 8 x 8 pixels, and these are 7 x 9\. Resize them, or lower depth\.$",
        ),
        (
            lambda: unet(channels=3)(images(2, 1, 8, 8)),
            r"images \(n, 3, h, w\), and these are \(2, 1, 8, 8\)\. Build it with",
        ),
        (lambda: unet(channels=3)(images(3, 8, 8)), r"these are \(3, 8, 8\)"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(BadInput, match=message):
        make()
