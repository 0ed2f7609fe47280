import re

import pytest
import torch
from drawings import drawings, moved, plain, same, which
from elsewhere import DEVICE, Elsewhere

from commentaries.data import LabelledImages, load, pasted_digits
from commentaries.data.boxes import ink_boxes
from commentaries.data.named import default_root
from commentaries.errors import BadInput

KINDS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def digits():
    return drawings()[0]


@pytest.fixture(scope="module")
def photos():
    return plain(KINDS)


def on_black(photos, digits, **chosen):
    """The same draw on black photos, which shows the ink alone."""
    black = LabelledImages(photos.x * 0, photos.y, photos.classes, photos.name)
    return pasted_digits(black, digits, **chosen).images.x


def test_the_digit_as_label(photos, digits):
    found = pasted_digits(photos, digits, label="digit", correlation=0.8, seed=0, size=7)
    assert torch.equal(found.images.y, digits.y)
    assert (found.images.classes, found.images.files) == (digits.classes, digits.files)
    assert found.images.name == "strokes_on_plain"
    assert found.inside == "label"
    assert found.cues == KINDS
    # every pixel beside the box is that of one photo, whose class is the cue
    beside = ~found.region()
    red = (found.images.x[:, :1] * beside).flatten(1).amax(1)
    photo = which(red, len(photos))
    assert torch.equal(photos.y[photo], found.cue)
    outside = beside.expand(-1, 3, -1, -1)
    assert torch.equal(found.images.x[outside], photos.x[photo][outside])
    assert set(photo.bincount(minlength=100).tolist()) <= {0, 1, 2, 3, 4}


def test_the_photo_as_label(photos, digits):
    chosen = {"label": "photo", "correlation": 0.8, "seed": 0, "size": 7}
    found = pasted_digits(photos, digits, **chosen)
    assert torch.equal(found.images.y, photos.y)
    assert (found.images.classes, found.images.name) == (KINDS, "plain_with_strokes")
    assert found.inside == "cue"
    assert found.cues == digits.classes
    outside = (~found.region()).expand(-1, 3, -1, -1)
    assert torch.equal(found.images.x[outside], photos.x[outside])
    ink = on_black(photos, digits, **chosen)
    assert torch.equal(found.images.x, torch.lerp(photos.x, torch.ones(()), ink[:, :1]))


@pytest.mark.parametrize("correlation", [None, 0.8])
def test_the_ink_is_that_of_a_digit_of_the_class_recorded(photos, correlation):
    bright = torch.arange(1, 301) / 300  # which says which digit it is
    x = bright[:, None, None, None].expand(-1, 1, 5, 3).contiguous()
    blots = LabelledImages(x, torch.arange(300) % 10, tuple("0123456789"), "blots")
    for label in ("digit", "photo"):
        chosen = {"label": label, "correlation": correlation, "seed": 0, "size": 5}
        found = pasted_digits(photos, blots, **chosen)
        ink = on_black(photos, blots, **chosen).amax((1, 2, 3))
        digit = which(ink, 300) - 1
        recorded = found.images.y if label == "digit" else found.cue
        assert torch.equal(blots.y[digit], recorded)
        if label == "digit":
            assert torch.equal(digit, torch.arange(300))
        else:
            assert len(digit.unique()) == len(digit) == 100


@pytest.mark.parametrize("label", ["digit", "photo"])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_the_box_is_that_of_the_ink(photos, digits, label, size):
    chosen = {"label": label, "seed": 2, "size": size}
    found = pasted_digits(photos, digits, **chosen)
    assert torch.equal(ink_boxes(on_black(photos, digits, **chosen)[:, :1], "ink"), found.box)
    assert ((found.box[:, 2:] - found.box[:, :2]).amax(1) == size).all()


@pytest.mark.parametrize("label", ["digit", "photo"])
@pytest.mark.parametrize("correlation", [0, 0.1, 0.95, 1])
def test_exactly_the_share_of_each_class_agrees(photos, digits, label, correlation):
    found = pasted_digits(photos, digits, label=label, correlation=correlation, seed=0)
    y = found.images.y
    for each in range(10):
        own = y == each
        assert int((found.cue == y)[own].sum()) == round(correlation * int(own.sum()))
    assert torch.equal(found.group == 0, found.cue == y)


def test_without_correlation_every_distractor_comes_about_as_often(photos):
    few = drawings(60, classes=3)[0]  # another number of classes than the photos
    found = pasted_digits(photos, few, label="photo", seed=0)
    assert found.cue.bincount().tolist() == pytest.approx([100 / 3] * 3, abs=20)
    many = pasted_digits(photos, drawings(500, classes=3)[0], label="digit", seed=0)
    assert many.cue.bincount().tolist() == [50] * 10


def test_places_are_uniform_and_do_not_depend_on_the_correlation():
    n = 8_000
    blot = LabelledImages(torch.ones(2, 1, 4, 4), torch.arange(2), ("0", "1"), "blots")
    paper = LabelledImages(torch.zeros(n, 3, 8, 7), torch.arange(n) % 2, ("a", "b"), "paper")
    chosen = {"label": "photo", "seed": 0, "size": 4}
    boxes = [pasted_digits(paper, blot, correlation=share, **chosen).box for share in (None, 0.9)]
    assert torch.equal(*boxes)
    counts = (4 * boxes[0][:, 0] + boxes[0][:, 1]).bincount()
    assert len(counts) == 5 * 4
    # chi-squared of 19 degrees of freedom: above 43.8 once in a thousand times
    assert float(((counts - n / 20) ** 2).sum() / (n / 20)) < 43.8


def test_the_ink_has_the_colour_asked_for(photos, digits):
    chosen = {"label": "photo", "seed": 0}
    ink = on_black(photos, digits, **chosen)[:, :1]
    red = pasted_digits(photos, digits, colour=(1, 0.5, 0), **chosen).images.x
    colour = torch.tensor([1, 0.5, 0])[:, None, None]
    torch.testing.assert_close(red, ink * colour + (1 - ink) * photos.x)


def test_it_is_a_function_of_the_seed(photos, digits):
    x, state = photos.x.clone(), torch.get_rng_state()
    one, again, other = (
        pasted_digits(photos, digits, label="digit", correlation=0.5, seed=seed)
        for seed in (1, 1, 2)
    )
    assert same(one, again)
    assert not torch.equal(one.box, other.box)
    assert not torch.equal(one.cue, other.cue)
    assert torch.equal(photos.x, x)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("label", ["digit", "photo"])
def test_elsewhere_it_is_the_same(photos, digits, label):
    chosen = {"label": label, "correlation": 0.5, "seed": 1}
    here = pasted_digits(photos, digits, **chosen)
    with Elsewhere():
        there = pasted_digits(photos.to(DEVICE), digits, **chosen)
        found = moved(there, lambda each: each.near)
    assert all(map(torch.equal, found, moved(here, lambda each: each)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "digits"}, "There is no label 'digits'. Did you mean 'digit'?"),
        ({"correlation": -0.5}, "correlation is -0.5, but must be"),
        ({"size": 17}, "size is 17, but a digit of that many pixels must fit into 16 x 16. Choose "
         "a whole number from 1 to 16."),
        ({"size": 0}, "size is 0, but"),
        ({"size": 7.5}, "size is 7.5, but"),
        ({"colour": (1, 2, 0)}, "The colour is (1, 2, 0), but must be"),
        ({"colour": (1.0,)}, "The colour is (1.0,), but must be"),
        ({"photos": drawings(10)[0]}, "The photos strokes have the shape (10, 1, 12, 12). Give"),
        ({"digits": plain(KINDS)}, "The digits plain have the shape (100, 3, 16, 16). Give grey"),
        ({"photos": plain("abc"), "correlation": 0.5}, "The 10 classes of strokes cannot be tied "
         "to the 3 of plain."),
        ({"photos": plain(KINDS).rows(torch.arange(9)), "correlation": 0.5}, "images are to go "
         "with one of 'j', and there is none."),
    ],
)  # fmt: skip
def test_bad_input(photos, digits, changed, message):
    given = {"photos": photos, "digits": digits, "label": "digit", "seed": 0} | changed
    with pytest.raises(BadInput, match=re.escape(message)):
        pasted_digits(given.pop("photos"), given.pop("digits"), **given)


def test_real_digits_on_real_photos():
    for folder, name in (("MNIST", "mnist"), ("cifar-10-batches-py", "cifar10")):
        if not (default_root() / folder).exists():
            pytest.skip(f"{name} is not in {default_root()}; set COMMENTARIES_DATA")
    digits = load("mnist", "test").rows(torch.arange(1000))
    photos = load("cifar10", "test").rows(torch.arange(1500))
    chosen = {"label": "digit", "correlation": 0.9, "seed": 0}
    found = pasted_digits(photos, digits, **chosen)
    assert found.images.x.shape == (1000, 3, 32, 32)
    ink = on_black(photos, digits, **chosen)[:, :1]
    assert torch.equal(ink_boxes(ink, "ink"), found.box)
    # the photo stays visible within the box: half of it holds little ink
    inside = found.region()
    assert float((ink < 0.1)[inside].double().mean()) > 0.4
    assert float((inside.sum((1, 2, 3)) / 1024).mean()) < 0.15
    assert abs(float((found.group == 0).double().mean()) - 0.9) < 0.005
