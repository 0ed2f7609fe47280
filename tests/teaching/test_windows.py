import math

import pytest
import torch

from commentaries.data import LabelledImages, Marked
from commentaries.teaching.windows import centre_of, deviation_of, localisation, windows


def marked(boxes, height=8, width=10):
    n = len(boxes)
    zeros = torch.zeros(n, dtype=torch.int64)
    images = LabelledImages(torch.zeros(n, 1, height, width), zeros, ("a",))
    return Marked(images, torch.tensor(boxes), "label", zeros, ("cue",), zeros, ("group",))


def test_a_window_by_the_formula(float64):
    centre = torch.tensor([[2.0, 3.0], [-1.5, 20.25]])
    found = windows(centre, 1.7, 5, 9)
    assert found.shape == (2, 1, 5, 9)
    for image, (row, column) in zip(found[:, 0], centre.tolist(), strict=True):
        for i in range(5):
            for j in range(9):
                distance = (i - row) ** 2 + (j - column) ** 2
                assert float(image[i, j]) == pytest.approx(math.exp(-distance / (2 * 1.7**2)))
    assert found[0, 0, 2, 3] == 1


@pytest.mark.parametrize("area", [0.03, 0.01, 0.006])
def test_the_deviation_gives_a_window_of_that_area(float64, area):
    """∫ exp(-d² / 2σ²) = 2πσ², all but exactly also as a sum over pixels."""
    height, width = 61, 81
    window = windows(torch.tensor([[30.0, 40.0]]), deviation_of(area, height, width), 61, 81)
    assert float(window.mean()) == pytest.approx(area, rel=1e-6)


def test_a_window_is_at_least_a_pixel_wide():
    assert deviation_of(0.0, 32, 32) == 1.0
    assert deviation_of(1e-4, 32, 32) == 1.0


def test_the_centre_of_mass(float64):
    maps = torch.zeros(4, 1, 7, 5)
    maps[0, 0, 2, 4] = 0.3
    maps[1, 0, 0, 0], maps[1, 0, 6, 4] = 1.0, 3.0
    maps[2] = 7.0
    expected = torch.tensor([[2.0, 4.0], [4.5, 3.0], [3.0, 2.0], [3.0, 2.0]])
    torch.testing.assert_close(centre_of(maps), expected)  # the last is zero: the middle


def test_the_centre_of_a_window_is_where_it_was_put(float64):
    centre = torch.tensor([[20.25, 31.5], [25.0, 22.125]])
    torch.testing.assert_close(centre_of(windows(centre, 2.0, 50, 60)), centre)


def test_a_mask_that_is_the_box_finds_it():
    truth = marked([[1, 2, 4, 5], [0, 0, 8, 1], [3, 3, 4, 4]])
    assert localisation(truth.region().float(), truth) == (1.0, 1.0)
    # how bright it is does not matter
    assert localisation(0.01 * truth.region().float(), truth) == pytest.approx((1.0, 1.0))
    assert localisation((~truth.region()).float(), truth) == (0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.5, 1.0])
def test_a_flat_mask_has_the_area_of_the_box(value):
    truth = marked([[1, 2, 4, 5], [0, 0, 8, 10]])
    area = (9 / 80 + 1) / 2
    found = localisation(torch.full((2, 1, 8, 10), value), truth)
    assert found == pytest.approx((area, area))
    assert float(truth.region().double().mean()) == pytest.approx(area)


def test_mass_and_pointing_are_shares():
    truth = marked([[0, 0, 1, 2]] * 3)
    masks = torch.zeros(3, 1, 8, 10)
    masks[0, 0, 0, 0], masks[0, 0, 5, 5] = 1.0, 3.0  # a quarter inside, the peak is not
    masks[1, 0, 0, 1], masks[1, 0, 5, 5] = 3.0, 1.0  # the other way round
    masks[2, 0, 0, :2], masks[2, 0, 7, 7] = 1.0, 1.0  # two of three peaks inside
    found = localisation(masks, truth)
    assert found.mass == pytest.approx((1 / 4 + 3 / 4 + 2 / 3) / 3)
    assert found.pointing == pytest.approx((0 + 1 + 2 / 3) / 3)
