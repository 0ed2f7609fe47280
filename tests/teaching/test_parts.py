"""Which examples train, judge and test."""

import re
from pathlib import Path

import lessons
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, Far
from pictures import write_digits

from commentaries.data import LabelledImages
from commentaries.errors import BadInput
from commentaries.teaching.parts import gather, parted


def names(found):
    return [set(getattr(found, name).files) for name in ("train", "validation", "test")]


def test_a_fifth_tests_and_a_fifth_of_the_rest_judges():
    found = gather(lessons.mixup(train=None, validation=None, test=None))
    assert [len(each) for each in found[:3]] == [1151, 287, 359]
    train, validation, test = names(found)
    assert len(train | validation | test) == 1797


def test_sizes_that_are_asked_for():
    found = gather(lessons.mixup(train=70, validation=20, test=30))
    assert [len(each) for each in found[:3]] == [70, 20, 30]
    assert [len(each) for each in names(found)] == [70, 20, 30]
    assert len(set.union(*names(found))) == 120
    assert found.validation.y.bincount().tolist() == [2] * 10


def test_each_class_has_an_example_that_judges_where_a_fifth_is_too_few():
    y = torch.arange(24) % 8
    images = LabelledImages(torch.rand(24, 1, 8, 8), y, tuple("abcdefgh"))
    found = parted(lessons.mixup(train=None, validation=None, test=None), images, None)
    assert [len(each) for each in found] == [12, 8, 4]


def test_the_draw_is_a_function_of_the_seed():
    job = lessons.mixup(seed=1)
    assert gather(job).train.files == gather(job).train.files
    assert set(gather(job).train.files) != set(gather(lessons.mixup()).train.files)


def test_a_set_with_a_test_part(invented):
    found = gather(lessons.mixup(data="mnist", train=None, validation=None, test=None))
    assert [len(each) for each in found[:3]] == [160, 40, 80]
    assert all(name.startswith("mnist-test/") for name in found.test.files)
    assert all(name.startswith("mnist-train/") for name in found.train.files)
    assert len(gather(lessons.mixup(data="mnist", test=30)).test) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 9}, "digits: 9 validation examples cannot cover 10 classes. Ask for at"),
        ({"train": 1700}, "digits: 1700 training, 40 validation and 60 test examples are more "
         "than the 1797 there are. Ask for fewer."),
        ({"train": None, "validation": 1780, "test": 17}, "digits: 1780 validation and 17 test "
         "examples leave none of 1797 to train on. Ask for fewer."),
        ({"data": "digit"}, "There is no data set 'digit'. Did you mean 'digits'?"),
    ],
)  # fmt: skip
def test_more_than_there_is(options, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        gather(lessons.mixup(**options))


def test_too_large_a_test_of_a_set_with_a_test_part(invented):
    with pytest.raises(BadInput, match="81 examples are asked for, and mnist-test has 80"):
        gather(lessons.mixup(data="mnist", test=81))


def test_one_class_alone():
    images = LabelledImages(torch.rand(9, 1, 8, 8), torch.zeros(9, dtype=torch.int64), ("a", "b"))
    with pytest.raises(BadInput, match="all 9 labels are of one class"):
        parted(lessons.mixup(), images, None)


def test_own_images(tmp_path):
    data = write_digits(tmp_path / "data", range(100), classes=4)
    job = lessons.mixup(data=str(data), train=None, validation=8, test=10, size=12)
    found = gather(job)
    assert len(set.union(*names(found))) == sum(len(each) for each in found[:3])
    assert (len(found.validation), len(found.test)) == (8, 10)
    assert found.train.x.shape[1:] == (1, 12, 12)
    assert found.train.classes == ("naught", "one", "three", "two")


def test_own_test_images_are_prepared_alike_and_need_not_have_every_class(tmp_path):
    data = write_digits(tmp_path / "data", range(60), classes=4)
    test = write_digits(tmp_path / "test", range(100, 130), classes=2)
    job = lessons.mixup(data=str(data), test=test, train=None, validation=None, size=10)
    found = gather(job)
    assert found.test.classes == found.train.classes
    assert found.test.x.shape[1:] == (1, 10, 10)
    assert {found.test.classes[label] for label in found.test.y.tolist()} == {"naught", "one"}
    assert len(found.train) + len(found.validation) == sum(1 for _ in data.glob("*/*.png"))
    with pytest.raises(BadInput, match="The test images and the data are the same"):
        gather(lessons.mixup(data=str(data), test=Path(data)))


def test_unreadable_images_are_listed(tmp_path):
    data = write_digits(tmp_path / "data", range(60), classes=3)
    (data / "one" / "broken.png").write_bytes(b"no image")
    job = lessons.mixup(data=str(data), train=None, validation=6, test=6)
    with pytest.raises(BadInput, match=r"one/broken\.png"):
        gather(job)
    (skipped,) = gather(lessons.mixup(
        data=str(data), train=None, validation=6, test=6, skip_unreadable=True
    )).skipped  # fmt: skip
    assert "one/broken.png" in skipped


def test_parts_move_together():
    found = gather(lessons.mixup())
    with Elsewhere():
        moved = found.to(str(DEVICE))
        assert all(isinstance(each.x, Far) and isinstance(each.y, Far) for each in moved[:3])
