import itertools

import pytest
import torch
from drawings import drawings, moved, same
from elsewhere import DEVICE, Elsewhere

from commentaries.data import PALETTE, LabelledImages, coloured_digits, load
from commentaries.data.named import default_root
from commentaries.errors import BadInput

COLOURS = torch.tensor(list(PALETTE.values())) / 255


@pytest.fixture(scope="module")
def digits():
    return drawings()[0]


def test_ink_has_the_colour_of_its_cue(digits):
    found = coloured_digits(digits, correlation=0.7, seed=0)
    expected = digits.x * COLOURS[found.cue][:, :, None, None]
    assert torch.equal(found.images.x, expected)
    assert found.cues == tuple(PALETTE)
    assert (found.images.name, found.images.files) == ("coloured_strokes", digits.files)
    assert torch.equal(found.images.y, digits.y)
    assert found.images.classes == digits.classes


def test_a_coloured_background_leaves_white_ink(digits):
    found = coloured_digits(digits, correlation=0.7, seed=0, where="background")
    ink = coloured_digits(digits, correlation=0.7, seed=0)
    assert torch.equal(found.cue, ink.cue)
    assert torch.equal(found.box, ink.box)
    paper = 0.5 * COLOURS[found.cue][:, :, None, None].expand(-1, -1, 12, 12)
    inked = (digits.x > 0).expand(-1, 3, -1, -1)
    assert torch.equal(found.images.x[~inked], paper[~inked])
    torch.testing.assert_close(found.images.x, digits.x + (1 - digits.x) * paper)
    assert float(found.images.x.max()) <= 1


@pytest.mark.parametrize("correlation", [0, 0.1, 0.9, 1])
def test_cue_box_and_group(digits, correlation):
    found = coloured_digits(digits, correlation=correlation, seed=3)
    assert torch.equal(found.box, drawings()[1])
    assert found.inside == "label"
    for label in range(10):
        assert int((found.cue == digits.y)[digits.y == label].sum()) == round(20 * correlation)
    assert torch.equal(found.group == 0, found.cue == digits.y)
    assert found.groups == ("cue agrees", "cue disagrees")


def test_fewer_classes_have_the_first_colours():
    few = drawings(60, classes=3)[0]
    flipped = coloured_digits(few, correlation=0, seed=0)
    assert flipped.cues == ("red", "green", "blue")
    assert set(flipped.cue.tolist()) == {0, 1, 2}
    assert not (flipped.cue == few.y).any()


def test_it_is_a_function_of_the_seed(digits):
    one, again, other = (coloured_digits(digits, correlation=0.5, seed=seed) for seed in (1, 1, 2))
    assert same(one, again)
    assert not torch.equal(one.cue, other.cue)


def test_a_larger_correlation_only_adds_agreeing_images(digits):
    some, more = (coloured_digits(digits, correlation=share, seed=1) for share in (0.5, 0.9))
    assert torch.equal(some.images.x[more.group == 1], more.images.x[more.group == 1])


def test_elsewhere_it_is_the_same(digits):
    for where in ("ink", "background"):
        here = coloured_digits(digits, correlation=0.5, seed=1, where=where)
        with Elsewhere():
            there = coloured_digits(digits.to(DEVICE), correlation=0.5, seed=1, where=where)
            found = moved(there, lambda each: each.near)
        assert all(map(torch.equal, found, moved(here, lambda each: each)))


def lab(rgb):
    """CIE L*a*b* of sRGB, white point D65."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ torch.tensor([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192],
                                 [0.1805, 0.0722, 0.9505]])  # fmt: skip
    f = xyz / torch.tensor([0.9505, 1.0, 1.089])
    f = torch.where(f > (6 / 29) ** 3, f.clamp(min=1e-9) ** (1 / 3), f * 841 / 108 + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_colours_are_told_apart():
    assert len(PALETTE) == len(COLOURS.unique(dim=0)) == 10
    for colours, least in ((COLOURS, 40), (COLOURS / 2, 25)):  # 2.3 is just noticeable
        for a, b in itertools.combinations(lab(colours), 2):
            assert float((a - b).norm()) > least
    assert float(lab(COLOURS)[:, 0].min()) > 35  # none is dark on black
    assert float(lab(COLOURS / 2)[:, 0].max()) < 60  # none is bright beside white


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correlation": 1.5}, "correlation is 1.5, but must be"),
        ({"where": "outline"}, "There is no place for colour 'outline'"),
    ],
)
def test_bad_choices(digits, changed, message):
    with pytest.raises(BadInput, match=message):
        coloured_digits(digits, **{"seed": 0} | changed)


def test_bad_images(digits):
    colour = LabelledImages(torch.rand(4, 3, 5, 5), torch.arange(4), tuple("abcd"), "photos")
    with pytest.raises(BadInput, match=r"The digits photos have the shape \(4, 3, 5, 5\). Give gr"):
        coloured_digits(colour, seed=0)
    flat = LabelledImages(torch.rand(4, 5), torch.arange(4), tuple("abcd"), "flat")
    with pytest.raises(BadInput, match=r"The digits flat have the shape \(4, 5\)"):
        coloured_digits(flat, seed=0)
    with pytest.raises(BadInput, match="The digits strokes are empty"):
        coloured_digits(digits.rows(torch.tensor([], dtype=torch.int64)), seed=0)
    with pytest.raises(BadInput, match="strokes: 200 images hold no ink"):
        coloured_digits(LabelledImages(digits.x * 0, digits.y, digits.classes, "strokes"), seed=0)
    with pytest.raises(BadInput, match="There are 10 cues for labels up to 11"):
        coloured_digits(drawings(24, classes=12)[0], seed=0)


def test_real_digits():
    if not (default_root() / "MNIST").exists():
        pytest.skip(f"mnist is not in {default_root()}; set COMMENTARIES_DATA")
    found = coloured_digits(load("mnist", "test"), correlation=0.95, seed=0)
    assert found.images.x.shape == (10_000, 3, 28, 28)
    inside = found.region()
    assert not (found.images.x * ~inside).any()
    assert abs(float((found.group == 0).double().mean()) - 0.95) < 5e-4
    # MNIST fits its digits into 20 x 20 pixels
    assert int((found.box[:, 2:] - found.box[:, :2]).amax()) == 20
