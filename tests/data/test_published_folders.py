"""Published folders that need no reader of their own."""

import pytest
from random_images import noise_image

from commentaries.data import Preparation, read
from commentaries.errors import BadInput


def put(path, mode="RGB", size=(20, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image(size, mode, seed=len(str(path))).save(path)


@pytest.fixture
def birds(tmp_path):
    """As CUB-200-2011 is laid out: images by class and lists beside them."""
    root = tmp_path / "CUB_200_2011"
    for name in ("001.Black_footed_Albatross", "002.Laysan_Albatross"):
        for i in (1, 2):
            put(root / "images" / name / f"{name[4:]}_000{i}_796111.jpg", size=(30 + i, 20))
    put(root / "images" / "001.Black_footed_Albatross" / "Gray_0003.jpg", "L")
    (root / "bounding_boxes.txt").write_text("1 60.0 27.0 325.0 304.0\n")
    return root


def test_the_birds_of_cub(birds):
    found, preparation = read(birds / "images", size=16)
    assert found.x.shape == (5, 3, 16, 16)
    assert found.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert found.y.tolist() == [0, 0, 0, 1, 1]
    assert preparation == Preparation(16, 3)


@pytest.fixture
def chests(tmp_path):
    """As the paediatric chest X-rays are: parts, then classes."""
    root = tmp_path / "chest_xray"
    for part in ("train", "val", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            for i in (1, 2):
                put(root / part / name / f"IM-000{i}.jpeg", "L")
    return root


def test_chest_x_rays(chests):
    train, preparation = read(chests / "train", size=16)
    assert train.x.shape == (4, 1, 16, 16)
    assert train.classes == ("NORMAL", "PNEUMONIA")
    put(chests / "test" / "PNEUMONIA" / "colour.jpeg")
    test, same = read(chests / "test", preparation=preparation, classes=train.classes)
    assert test.x.shape == (5, 1, 16, 16)
    assert same == preparation
    with pytest.raises(BadInput, match=r"are named like parts of a data set.*Give one of them"):
        read(chests)


def test_x_rays_with_a_table(chests):
    names = ("train/NORMAL/IM-0001.jpeg", "train/NORMAL/IM-0002.jpeg",
             "test/PNEUMONIA/IM-0001.jpeg", "test/PNEUMONIA/IM-0002.jpeg")  # fmt: skip
    labels = ("No Finding", "No Finding", "Effusion", "Effusion")
    lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    table = chests / "list.csv"
    table.write_text("\n".join(["file,label", *lines]) + "\n")
    found, _ = read(table, size=16)
    assert found.classes == ("Effusion", "No Finding")
    assert found.y.tolist() == [1, 1, 0, 0]
