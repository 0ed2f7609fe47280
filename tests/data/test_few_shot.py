"""Parts of disjoint classes: the published lists, and the layouts that users have on disk."""

import os
from pathlib import Path

import pytest
import torch
from random_images import noise_image

from commentaries.data import (
    CIFAR_FS,
    LabelledImages,
    drawn_classes,
    every_second,
    few_shot,
    of_classes,
    omniglot_classes,
)
from commentaries.data.class_splits import OMNIGLOT_VALIDATION
from commentaries.errors import BadInput

PARTS = ("train", "validation", "test")


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image((20, 16), "RGB", seed=sum(map(ord, str(path.name)))).save(path)


def assert_apart_and_complete(parts, classes):
    every = [name for part in PARTS for name in parts[part]]
    assert len(set(every)) == len(every)
    assert sorted(every) == sorted(classes)


def test_the_classes_of_cifar_fs():
    assert [len(CIFAR_FS[part]) for part in PARTS] == [64, 16, 20]
    assert len({name for part in PARTS for name in CIFAR_FS[part]}) == 100


def test_the_characters_of_omniglot():
    sizes = {"Armenian": 41, "Bengali": 46, "Early_Aramaic": 22, "Hebrew": 22}
    sizes |= {"Mkhedruli_(Georgian)": 41, "Nordic": 792, "Zulu": 659}
    names = [f"{a}/character{i:03}" for a, n in sizes.items() for i in range(n)]
    parts = omniglot_classes(names)
    assert [len(parts[part]) for part in PARTS] == [1028, 172, 423]
    assert_apart_and_complete(parts, names)
    assert {name.split("/")[0] for name in parts["validation"]} == set(OMNIGLOT_VALIDATION)


def test_every_second_class():
    classes = [str(i) for i in range(200)]
    parts = every_second(classes)
    assert [len(parts[part]) for part in PARTS] == [100, 50, 50]
    assert_apart_and_complete(parts, classes)
    assert parts["train"][:3] == ("0", "2", "4")
    assert parts["validation"][:2] == ("1", "5")
    assert parts["test"][:2] == ("3", "7")


def test_drawn_classes():
    classes = [str(i) for i in range(30)]
    parts = drawn_classes(classes, validation=5, test=6, seed=1)
    assert [len(parts[part]) for part in PARTS] == [19, 5, 6]
    assert_apart_and_complete(parts, classes)
    assert parts == drawn_classes(classes, validation=5, test=6, seed=1)
    assert parts != drawn_classes(classes, validation=5, test=6, seed=2)
    with pytest.raises(BadInput, match=r"leave none of 30"):
        drawn_classes(classes, validation=15, test=15, seed=0)


def test_examples_of_some_classes():
    y = torch.tensor([0, 1, 2, 1, 0])
    x = torch.arange(5.0)[:, None]
    images = LabelledImages(x, y, ("a", "b", "c"), files=tuple("vwxyz"))
    held = of_classes(images, ("c", "a"))
    assert held.classes == ("c", "a")
    assert held.y.tolist() == [1, 0, 1]
    assert held.files == ("v", "x", "z")
    with pytest.raises(BadInput, match="'d'"):
        of_classes(images, ("d",))


def mini_folders(root):
    for part, names in (("train", "abc"), ("val", "de"), ("test", "fg")):
        for name in names:
            for i in range(3):
                put(root / part / f"n0{name}" / f"{name}{i}.jpg")


def mini_tables(root):
    for part, names in (("train", "abc"), ("val", "de"), ("test", "fg")):
        lines = ["filename,label"]
        for name in names:
            for i in range(3):
                put(root / "images" / f"n0{name}0{i}.jpg")
                lines.append(f"n0{name}0{i}.jpg,n0{name}")
        (root / f"{part}.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("make", [mini_folders, mini_tables])
def test_mini_imagenet(tmp_path, make):
    make(tmp_path)
    expected = {"train": ("n0a", "n0b", "n0c"), "validation": ("n0d", "n0e")}
    expected["test"] = ("n0f", "n0g")
    for part in PARTS:
        images = few_shot(tmp_path, part, size=12)
        assert images.classes == expected[part]
        assert images.x.shape == (3 * len(images.classes), 3, 12, 12)
        assert images.y.bincount().tolist() == [3] * len(images.classes)


def test_mini_imagenet_has_84_pixels(tmp_path):
    mini_folders(tmp_path)
    assert few_shot(tmp_path, "test").x.shape[1:] == (3, 84, 84)
    assert few_shot(tmp_path, "test", channels=1).x.shape[1:] == (1, 84, 84)


def cub(root):
    names = [f"{i:03}.Bird_{letter}" for i, letter in enumerate("ABCDEFGH", 1)]
    for name in names:
        for i in (1, 2):
            put(root / "images" / name / f"{name[4:]}_{i}.jpg")
    (root / "classes.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(names, 1)))
    (root / "images.txt").write_text("1 001.Bird_A/Bird_A_1.jpg\n")
    (root / "train_test_split.txt").write_text("1 0\n")
    return names


def test_cub(tmp_path):
    names = cub(tmp_path)
    parts = {part: few_shot(tmp_path, part, size=12) for part in PARTS}
    assert_apart_and_complete({part: images.classes for part, images in parts.items()}, names)
    assert parts["train"].classes == tuple(names[::2])
    assert parts["test"].classes == ("004.Bird_D", "008.Bird_H")
    images = parts["test"]
    for label, file in zip(images.y.tolist(), images.files, strict=True):
        assert file.startswith(images.classes[label])


def test_class_folders_are_divided_by_the_seed(tmp_path):
    for name in "abcdefghij":
        for i in range(2):
            put(tmp_path / name / f"{i}.png")
    parts = {part: few_shot(tmp_path, part, size=8, seed=3).classes for part in PARTS}
    assert_apart_and_complete(parts, "abcdefghij")
    assert [len(parts[part]) for part in PARTS] == [6, 2, 2]


def test_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"'cifar_sf'. Did you mean 'cifar_fs'"):
        few_shot("cifar_sf")
    with pytest.raises(BadInput, match=r"no part of the classes 'val'"):
        few_shot("omniglot", "val")  # pyright: ignore[reportArgumentType]
    with pytest.raises(BadInput, match=r"There is no folder .*gone"):
        few_shot(tmp_path / "gone")
    both = tmp_path / "both"
    mini_folders(both)
    put(both / "test" / "n0a" / "x.jpg")
    with pytest.raises(BadInput, match=r"'n0a' is in the parts train and test"):
        few_shot(both)
    tables = tmp_path / "tables"
    mini_tables(tables)
    (tables / "images" / "n0b01.jpg").unlink()
    with pytest.raises(BadInput, match=r"1 of 9 files in .*train.csv.*n0b01.jpg"):
        few_shot(tables)
    (tables / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=r"train.csv is no table.*filename and label"):
        few_shot(tables)
    birds = tmp_path / "birds"
    cub(birds)
    (birds / "classes.txt").write_text("1 001.Bird_A\n2 other\n")
    with pytest.raises(BadInput, match=r"name different classes"):
        few_shot(birds)
    lone = tmp_path / "lone"
    mini_folders(lone)
    for i in (1, 2):
        (lone / "val" / "n0d" / f"d{i}.jpg").unlink()
    with pytest.raises(BadInput, match=r"'n0d' has only one image"):
        few_shot(lone, "validation")


ROOT = Path(os.environ.get("COMMENTARIES_DATA", "/nowhere"))


@pytest.mark.skipif(not (ROOT / "cifar-100-python").is_dir(), reason="CIFAR-100 is not there")
def test_cifar_fs():
    images = few_shot("cifar_fs", "validation", root=ROOT)
    assert images.classes == CIFAR_FS["validation"]
    assert images.x.shape == (9600, 3, 32, 32)
    assert images.y.bincount().tolist() == [600] * 16
    assert len(set(images.files)) == 9600
