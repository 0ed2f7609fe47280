import re

import pytest
import torch

from commentaries.data import LabelledImages
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


FILES = tuple(f"{CLASSES[i % 3]}/{i}.png" for i in range(6))


@pytest.mark.parametrize(
    "index", [torch.tensor([4, 1]), torch.tensor([False, True, False, False, True, False])]
)
def test_rows_keep_files_classes_and_name(index):
    some = images(files=FILES)
    part = some.rows(index)
    where = index.tolist() if index.dtype == torch.int64 else [1, 4]
    assert torch.equal(part.x, some.x[where])
    assert part.y.tolist() == [1, 1]
    assert part.files == tuple(FILES[row] for row in where)
    assert (part.classes, part.name, len(part)) == (CLASSES, "pets", 2)


def test_rows_may_be_of_one_class_or_none_at_all():
    some = images(files=FILES)
    assert some.rows(torch.tensor([1, 4])).y.tolist() == [1, 1]
    none = some.rows(torch.tensor([], dtype=torch.int64))
    assert (len(none), none.files, none.x.shape) == (0, (), (0, 2, 2, 2))
    assert len(none.rows(torch.tensor([], dtype=torch.int64))) == 0


def test_an_example_is_called_by_its_file_or_its_row():
    assert images(files=FILES).file(4) == "dog/4.png"
    assert images().file(4) == "pets/4"
    assert images(files=FILES).rows(torch.tensor([5])).file(0) == "owl/5.png"


def test_features_instead_of_pixels():
    some = images(x=torch.randn(6, 17))
    assert some.rows(torch.tensor([2])).x.shape == (1, 17)


def test_to_a_device():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    some = images(files=FILES).to(device)
    assert (some.x.device.type, some.y.device.type, some.files) == (device, device, FILES)
    assert torch.equal(some.x.cpu(), images().x)
    assert some.rows(torch.tensor([3])).y.tolist() == [0]


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
        ({"y": torch.tensor([0, 1, 2, 3, 0, 1])}, "pets: the label 3 at position 3 is out of range "
         "for 3 classes."),
        ({"y": torch.tensor([0, 1, 2, 0, -1, 1])}, "pets: the label -1 at position 4 is out of"),
        ({"y": torch.zeros(5, dtype=torch.int64)}, "of shape (6, 2, 2, 2) and labels of shape (5,) "
         "do not fit."),
        ({"x": torch.zeros(6, 4, 4)}, "images of shape (6, 4, 4)"),
        ({"x": torch.zeros(6)}, "images of shape (6,)"),
        ({"x": torch.zeros(6, 1, 2, 2, dtype=torch.uint8)}, "images have the type torch.uint8"),
        ({"y": torch.zeros(6)}, "labels have the type torch.float32"),
        ({"y": torch.zeros(6, dtype=torch.int32)}, "labels have the type torch.int32"),
        ({"files": ("a", "b")}, "2 files and 6 labels do not fit."),
        ({"classes": ("cat", "dog", "cat")}, "two classes are named 'cat'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(changed, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        images(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"y": torch.full((6,), 1)}, "pets: all 6 labels are of one class"),
        ({"x": torch.zeros(0, 1, 2, 2), "y": torch.zeros(0, dtype=torch.int64)}, "all 0 labels"),
    ],
)  # fmt: skip
def test_labels_of_one_class_are_refused_where_they_enter(changed, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        images(**changed).check_two_classes()
    images().check_two_classes()
