"""Networks by the images, beside those of tests/cleaning/test_prepared.py."""

import pytest
import torch

from commentaries.data import LabelledImages
from commentaries.errors import BadInput
from commentaries.training.students import check_device, rate_scale, student_for


def images(*shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, *shape, generator=generator)
    return LabelledImages(x, torch.tensor([0, 1, 2] * 2), ("a", "b", "c"))


@pytest.mark.parametrize(
    ("shape", "name", "expected"),
    [
        ((1, 8, 8), None, 1.0),
        ((3, 16, 16), None, 0.25),
        ((3, 16, 16), "small_cnn", 1.0),
        ((1, 8, 8), "cbr", 0.25),
        ((5,), None, 1.0),
        ((5,), "linear", 1.0),
    ],
)
def test_small_and_linear_networks_bear_a_greater_rate(shape, name, expected):
    assert rate_scale(images(*shape), name) == expected


def test_a_network_normalises_by_the_channels_of_the_training_images():
    train = images(3, 16, 16)
    train.x[:, 1] = 0.25  # a channel that is the same everywhere is not blown up
    student = student_for(train)
    (layer,) = [part for part in student.modules() if type(part).__name__ == "Normalise"]
    seen = layer(train.x)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    expected = torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), expected, atol=1e-5, rtol=0)
    assert not [
        part for part in student_for(train, "small_cnn").modules()
        if type(part).__name__ == "Normalise"
    ]  # fmt: skip


def test_features_take_no_other_network():
    with pytest.raises(BadInput, match="The student is 'cbr', but with a backbone it is a linear"):
        student_for(images(5), "cbr")


def test_unknown_networks_and_images_that_do_not_fit():
    with pytest.raises(BadInput, match="There is no student 'conv3'"):
        student_for(images(1, 8, 8), "conv3")
    with pytest.raises(BadInput, match=r"conv4 takes images of at least \d+ x \d+ pixels"):
        student_for(images(1, 4, 4), "conv4")


@pytest.mark.parametrize("name", ["gpu", "cpu:-1", "", "cuda:99"])
def test_devices_that_are_not_there(name):
    with pytest.raises(BadInput, match=rf"There is no device {name!r} here .*Use cpu, or cuda"):
        check_device(name)


def test_the_cpu_is_there():
    check_device("cpu")
