import re

import pytest
import torch
from drawings import drawings

from commentaries.data.boxes import drawn_places, ink_boxes, placed, region, scaled_ink
from commentaries.errors import BadInput


def test_the_box_is_that_of_the_ink():
    digits, boxes = drawings()
    assert torch.equal(ink_boxes(digits.x, "strokes"), boxes)
    one = torch.zeros(2, 1, 5, 7)
    one[0, 0, 3, 6] = one[1, 0, 0, 0] = one[1, 0, 4, 2] = 1e-6
    assert ink_boxes(one, "dots").tolist() == [[3, 6, 4, 7], [0, 0, 5, 3]]


def test_images_without_ink_are_refused():
    digits, _ = drawings(6)
    digits.x[3] = digits.x[4] = 0
    message = "strokes: 2 images hold no ink (no pixel above 0), the first at position 3."
    with pytest.raises(BadInput, match=re.escape(message)):
        ink_boxes(digits.x, "strokes")


def test_a_region_is_the_pixels_of_its_box():
    box = torch.tensor([[1, 2, 3, 6], [0, 0, 4, 7]])
    inside = region(box, 4, 7)
    expected = torch.zeros(4, 7, dtype=torch.bool)
    expected[1:3, 2:6] = True
    assert torch.equal(inside[0, 0], expected)
    assert bool(inside[1].all())


@pytest.mark.parametrize("size", [3, 7, 14])
def test_scaled_ink_reaches_all_sides_of_its_extent(size):
    digits, boxes = drawings()
    ink, extent = scaled_ink(digits.x, size, "strokes")
    assert ink.shape == (200, 1, size, size)
    found = ink_boxes(ink, "scaled")
    assert torch.equal(found[:, 2:], extent)
    assert not found[:, :2].any()
    assert (extent.amax(1) == size).all()
    sides = (boxes[:, 2:] - boxes[:, :2]).double()
    exact = size * sides / sides.amax(1, keepdim=True)
    assert ((extent - exact).abs() <= 0.5).all()
    assert 0 <= float(ink.min()) < 0.5 < float(ink.max()) <= 1


def test_ink_of_the_size_asked_for_is_left_as_it_is():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 2:7, 3:6] = torch.rand(5, 3) + 0.1
    ink, extent = scaled_ink(x.clamp(max=1), 5, "one")
    assert extent.tolist() == [[5, 3]]
    assert torch.equal(ink[0, 0, :, :3], x.clamp(max=1)[0, 0, 2:7, 3:6])


def test_patches_lie_where_they_are_placed_and_are_cut_off_at_the_edge():
    patch = 1 + torch.arange(24.0).reshape(2, 2, 2, 3)
    found = placed(patch, torch.tensor([[1, 2], [-1, 3]]), 4, 5)
    expected = torch.zeros(2, 2, 4, 5)
    expected[0, :, 1:3, 2:5] = patch[0]
    expected[1, :, 0:1, 3:5] = patch[1, :, 1:, :2]
    assert torch.equal(found, expected)


def test_places_are_uniform_over_all_where_the_box_fits():
    n = 10_000
    extent = torch.tensor([[4, 6]]).expand(n, 2)
    box = drawn_places(extent, 8, 9, torch.Generator().manual_seed(0))
    assert torch.equal(box[:, 2:] - box[:, :2], extent)
    counts = (4 * box[:, 0] + box[:, 1]).bincount()
    assert len(counts) == 5 * 4
    # chi-squared of 19 degrees of freedom: above 43.8 once in a thousand times
    assert float(((counts - n / 20) ** 2).sum() / (n / 20)) < 43.8


def test_a_box_as_large_as_the_image_has_one_place_and_all_lie_within():
    extent = torch.tensor([[8, 9], [8, 1], [1, 9], [1, 1]]).repeat(200, 1)
    box = drawn_places(extent, 8, 9, torch.Generator().manual_seed(0))
    assert (box[::4] == torch.tensor([0, 0, 8, 9])).all()
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] <= torch.tensor([8, 9])).all()
    assert int(box[:, 2].min()) < 8 == int(box[:, 2].max())
