import re

import pytest
import torch

from commentaries.cleaning import trusted_list
from commentaries.data import LabelledImages
from commentaries.errors import BadInput

CLASSES = ("=cat", "dog", "owl")


@pytest.fixture
def images():
    y = torch.tensor([0, 1, 2] * 4)
    files = tuple(f"{CLASSES[label]}/{row}.png" for row, label in enumerate(y.tolist()))
    return LabelledImages(torch.rand(12, 1, 2, 2), y, CLASSES, "pets", files)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "list.csv"


def write(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["file,label", *lines, ""]))
    return path


def test_a_drawn_list_is_read_as_given(images, path):
    assert trusted_list.draw(images, 2, path, seed=0) == 6
    rows, labels = trusted_list.read(path, images)
    assert torch.equal(images.y[rows], labels)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(set(rows.tolist())) == 6
    first = path.read_bytes()
    trusted_list.draw(images, 2, path, seed=0)
    assert path.read_bytes() == first
    trusted_list.draw(images, 2, path, seed=1)
    assert path.read_bytes() != first


def test_of_a_small_class_all_are_drawn(images, path):
    assert trusted_list.draw(images, 100, path, seed=0) == 12


def test_labels_of_the_list_override_those_of_the_data(images, path):
    write(path, "'=cat/0.png,dog", "dog/1.png,'=cat", "owl/2.png,owl", "owl/2.png,owl")
    rows, labels = trusted_list.read(path, images)
    assert rows.tolist() == [0, 1, 2]
    assert labels.tolist() == [1, 0, 2]


def test_at_most_so_many_of_each_class_in_the_order_of_the_file(images, path):
    write(path, "dog/4.png,dog", "dog/1.png,dog", "'=cat/3.png,'=cat", "owl/2.png,owl")
    rows, _ = trusted_list.read(path, images, 1)
    assert rows.tolist() == [4, 3, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog/11.png,dog"], "names 'dog/11.png', which is not among the training images. Did you "
         "mean 'dog/1.png'?"),
        (["x,dog"], "Write it as in column file of weights.csv."),
        (["dog/1.png,dogs"], "gives 'dog/1.png' the label 'dogs'. There is no class 'dogs'. Did "
         "you mean 'dog'?"),
        (["dog/1.png,"], "the label ''"),
        (["dog/1.png,dog", "dog/1.png,owl"], "gives 'dog/1.png' two labels, 'dog' and 'owl'."),
        (["dog/1.png,dog", "owl/2.png,owl"], "has no image of class '=cat' (1 of 3 classes are"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be_used(images, path, lines, message):
    write(path, *lines)
    with pytest.raises(BadInput, match=re.escape(message)):
        trusted_list.read(path, images)
