import warnings
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_sample_images

from commentaries.data import photo_crops
from commentaries.errors import BadInput


@pytest.fixture(scope="module")
def crops():
    return {part: photo_crops(60, part, size=16, seed=0) for part in ("train", "test")}


def test_pieces_of_two_photographs(crops):
    for images in crops.values():
        assert images.x.shape == (60, 3, 16, 16)
        assert images.x.dtype == torch.float32
        assert images.x.is_contiguous()
        assert float(images.x.min()) >= 0
        assert float(images.x.max()) <= 1
        assert images.classes == ("temple", "flower")
        assert images.y.bincount().tolist() == [30, 30]
        assert len({tuple(x.flatten().tolist()) for x in images.x}) == 60


def test_the_draw_is_a_function_of_the_seed(crops):
    again = photo_crops(60, size=16, seed=0)
    assert torch.equal(again.x, crops["train"].x)
    assert not torch.equal(photo_crops(60, size=16, seed=1).x, again.x)
    assert torch.equal(photo_crops(7, "test", seed=3).y, torch.tensor([0, 1, 0, 1, 0, 1, 0]))


@pytest.mark.parametrize(("part", "side"), [("train", slice(0, 480)), ("test", slice(480, 640))])
def test_each_part_has_a_side_of_the_photographs_of_its_own(monkeypatch, part, side):
    """Where the rest is black, nothing changes; where its own side is, all is black."""
    given = load_sample_images().images
    assert [photo.shape for photo in given] == [(427, 640, 3)] * 2
    expected = photo_crops(20, part, size=8, seed=0).x

    def blackened(inside):
        found = SimpleNamespace(images=[photo.copy() for photo in given])
        for photo in found.images:
            rest = photo[:, side].copy()
            photo[:] = 0
            if inside:
                photo[:, side] = rest
        return found

    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: blackened(True))
    assert torch.equal(photo_crops(20, part, size=8, seed=0).x, expected)
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: blackened(False))
    assert float(photo_crops(20, part, size=8, seed=0).x.max()) == 0


def test_a_piece_is_reduced_from_where_it_is(monkeypatch):
    """Of a photograph that is a ramp, a piece is a ramp, 48 to 160 pixels of it."""
    ramp = (torch.arange(640) * (255 / 639)).round().byte()
    photo = ramp.expand(3, 427, 640).permute(1, 2, 0).numpy()
    found = SimpleNamespace(images=[photo, photo])
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: found)
    x = photo_crops(200, size=16, seed=0).x
    torch.testing.assert_close(x, x[:, :1, :1].expand_as(x), atol=1e-6, rtol=0)
    sides = (x[:, 0, 0, -1] - x[:, 0, 0, 0]) * 639 * 16 / 15
    assert 44 < float(sides.min()) < 60
    assert 148 < float(sides.max()) < 164
    left = x[:, 0, 0, 0] * 639
    assert float(left.min()) < 20
    assert float((x[:, 0, 0, -1] * 639).max()) > 440
    assert float((x[:, 0, 0, -1] * 639).max()) < 480


def test_nothing_is_warned_of():
    """The photographs are read-only arrays, of which torch warns once in a process."""
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            photo_crops(2, size=8, seed=0)
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize(("count", "size"), [(0, 16), (5, 0), (-1, 8)])
def test_counts_that_are_not_positive(count, size):
    with pytest.raises(BadInput, match="must be positive"):
        photo_crops(count, size=size, seed=0)
