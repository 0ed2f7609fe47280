import re

import pytest
import torch

from commentaries.data import LabelledImages, load
from commentaries.errors import BadInput

CLASSES = ("cat", "dog", "owl")


def images(n=6, **changed):
    given = {
        "x": torch.linspace(0, 1, n * 8).reshape(n, 2, 2, 2),
        "y": torch.arange(n) % 3,
        "classes": CLASSES,
        "name": "pets",
    }
    return LabelledImages(**given | changed)


def test_digits():
    digits = load("digits")
    assert digits.x.shape == (1797, 1, 8, 8)
    assert digits.x.dtype == torch.float32
    assert (float(digits.x.min()), float(digits.x.max())) == (0.0, 1.0)
    assert digits.y.dtype == torch.int64
    assert digits.y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.classes == tuple("0123456789")
    assert len(digits) == 1797


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), load("digits")
    assert (ours.x[:, 0].numpy() * 16 == theirs["images"]).all()
    assert (ours.y.numpy() == theirs["target"]).all()


def test_rows():
    some = images()
    x, y = some.rows(torch.tensor([4, 1]))
    assert torch.equal(x, some.x[[4, 1]])
    assert y.tolist() == [1, 1]


def test_an_unknown_name_proposes_the_nearest():
    with pytest.raises(BadInput, match=r"There is no data set 'digit'\. Did you mean 'digits'\?"):
        load("digit")


def nan_pixels():
    x = torch.zeros(6, 2, 2, 2)
    x[3, 1, 0, 1] = torch.nan
    x[5, 0, 0, 0] = torch.inf
    return x


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": nan_pixels()}, "pets: 2 of 6 images hold pixels that are not finite, the first at "
         "position 3. Remove or repair them."),
        ({"y": torch.full((6,), 1)}, "pets: all 6 labels are of one class"),
        ({"y": torch.tensor([0, 1, 2, 3, 0, 1])}, "pets: the label 3 at position 3 is out of range "
         "for 3 classes."),
        ({"y": torch.tensor([0, 1, 2, 0, -1, 1])}, "pets: the label -1 at position 4 is out of"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, "of shape (6, 2, 2, 2) and labels of shape (5,) "
         "do not fit."),
        ({"x": torch.zeros(6, 4)}, "images of shape (6, 4)"),
        ({"y": torch.zeros(6)}, "labels have the type torch.float32"),
        ({"y": torch.zeros(6, dtype=torch.int32)}, "labels have the type torch.int32"),
        ({"x": torch.zeros(0, 1, 2, 2), "y": torch.zeros(0, dtype=torch.int64)}, "all 0 labels"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(changed, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        images(**changed)
