import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from random_images import noise_image

from commentaries.data import Preparation, is_own, read
from commentaries.errors import BadInput


def put(root, *names, size=(12, 10), mode="RGB"):
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise_image(size, mode, seed=seed).save(root / name)
    return root


NAMES = ("cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b.png")


@pytest.fixture
def pets(tmp_path):
    """A folder with 3 cats and 2 dogs of 12 x 10 pixels, in colour."""
    return put(tmp_path / "pets", *NAMES)


def middle(path):
    """(3, 10, 10) of a 12 x 10 image."""
    pixels = np.asarray(Image.open(path).convert("RGB"))[:, 1:11]
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


def snapshot(root):
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


# What is read


def test_a_folder(pets):
    before = snapshot(pets)
    found, preparation = read(pets)
    assert preparation == Preparation(10, 3)
    assert found.files == NAMES
    assert found.y.tolist() == [0, 0, 0, 1, 1]
    assert (found.classes, found.name) == (("cat", "dog"), "pets")
    assert found.x.dtype == torch.float32
    for x, file in zip(found.x, found.files, strict=True):
        assert torch.equal(x, middle(pets / file))
    assert snapshot(pets) == before


def test_folders_within_class_folders_and_what_is_passed_over(pets):
    put(pets, "cat/more/d.JPG", "cat/more/still/e.png", ".hidden/x.png", "__MACOSX/cat/y.png",
        "cat/.thumbs/x.png", "dog/.x.png")  # fmt: skip
    (pets / "cat" / "notes.txt").write_text("no image")
    (pets / "README.md").write_text("no image")
    found, _ = read(pets)
    assert found.files == (
        "cat/a.png", "cat/b.png", "cat/c.png", "cat/more/d.JPG", "cat/more/still/e.png",
        "dog/a.png", "dog/b.png",
    )  # fmt: skip
    assert found.classes == ("cat", "dog")


def test_links_to_folders(pets, tmp_path):
    put(tmp_path, "elsewhere/a.png", "elsewhere/b.png")
    (pets / "owl").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "round").symlink_to(pets / "cat")
    (pets / "cat" / "and_round").symlink_to(pets)
    found, _ = read(pets)
    assert [file for file in found.files if file.startswith("owl")] == ["owl/a.png", "owl/b.png"]
    assert sum(file.startswith("cat") for file in found.files) == 3


def test_files_and_labels_stay_together(tmp_path):
    # Every image is of one grey that says which it is, in a random order of classes.
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()
    for i in order:
        path = tmp_path / "greys" / f"class{i % 7}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (5 + i % 3, 7), 4 * i).save(path)
    found, preparation = read(tmp_path / "greys")
    assert preparation.channels == 1
    for x, y, file in zip(found.x, found.y.tolist(), found.files, strict=True):
        i = int(Path(file).stem)
        assert found.classes[y] == f"class{i % 7}" == file.split("/")[0]
        assert torch.equal(x, torch.full_like(x, 4 * i / 255))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 4, 28),
        ([(64, 90)] * 4, 64),
        ([(200, 300)] * 4, 64),
        ([(20, 30), (40, 24), (60, 28), (300, 300)], 24),
    ],
)
def test_the_size_is_the_median_shorter_side_at_most_64(tmp_path, sizes, expected):
    for i, size in enumerate(sizes):
        put(tmp_path, f"pets/{'ab'[i % 2]}/{i}.png", size=size)
    found, preparation = read(tmp_path / "pets")
    assert preparation.size == expected
    assert found.x.shape == (4, 3, expected, expected)
    found, preparation = read(tmp_path / "pets", size=7)
    assert preparation.size == 7
    assert found.x.shape[2:] == (7, 7)


def test_one_colour_image_makes_all_of_them_colour(tmp_path):
    root = put(tmp_path / "pets", "a/1.png", "a/2.png", "b/1.png", mode="L")
    put(root, "b/2.png", mode="L")
    assert read(root)[1].channels == 1
    put(root, "b/3.png")
    found, preparation = read(root)
    assert preparation.channels == 3
    assert torch.equal(found.x[0, 0], found.x[0, 2])


def test_mixed_modes_and_sizes(tmp_path):
    for i, (mode, colour) in enumerate(
        {"1": 1, "L": 9, "LA": (9, 0), "RGB": (9, 9, 9), "RGBA": (9, 9, 9, 0), "P": 3}.items()
    ):
        for side, name in ((8 + i, "a"), (20 + i, "b")):
            path = tmp_path / "pets" / name / f"{mode}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(mode, (side, 30), colour).save(path)
    Image.new("CMYK", (40, 30)).save(tmp_path / "pets" / "a" / "cmyk.jpg")
    found, _ = read(tmp_path / "pets")
    assert found.x.shape[0] == 13
    assert float(found.x[found.files.index("a/RGBA.png")].min()) == 1
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=4, max_size=6),
    size=st.none() | st.integers(1, 20),
)
def test_any_sizes(tmp_path_factory, sizes, size):
    root = tmp_path_factory.mktemp("any")
    for i, each in enumerate(sizes):
        put(root, f"{'ab'[i % 2]}/{i}.png", size=each)
    found, preparation = read(root, size=size)
    assert found.x.shape == (len(sizes), 3, preparation.size, preparation.size)
    assert 0 <= float(found.x.min()) <= float(found.x.max()) <= 1
    assert len(found.files) == len(found.y) == len(sizes)


# A trusted or test set


def test_a_trusted_set_is_numbered_and_prepared_as_the_training_set(pets, tmp_path):
    train, preparation = read(pets)
    put(tmp_path / "trusted", "dog/z.png", size=(50, 60), mode="L")
    trusted, same = read(tmp_path / "trusted", preparation=preparation, classes=train.classes)
    assert same == preparation
    assert trusted.x.shape == (1, 3, 10, 10)
    assert trusted.y.tolist() == [1]
    assert trusted.classes == train.classes


def test_a_trusted_set_of_colour_beside_grey_images(tmp_path):
    put(tmp_path / "trusted", "dog/z.png")
    found, _ = read(tmp_path / "trusted", preparation=Preparation(8, 1), classes=("cat", "dog"))
    assert found.x.shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["owl/a.png"], "has the label 'owl', which the training set lacks. Rename or remove it; "
         "the training set has cat, dog."),
        (["Dog/a.png"], "has the label 'Dog', which the training set lacks. Did you mean 'dog'?"),
        (["owl/a.png", "ape/a.png", "cat/a.png"], "has the label 'ape' and 1 more, which"),
        (["cat/notes.txt"], "holds no images"),
    ],
)  # fmt: skip
def test_labels_that_the_training_set_lacks(tmp_path, names, message):
    root = tmp_path / "trusted"
    for name in names:
        if name.endswith("png"):
            put(root, name)
        else:
            (root / name).parent.mkdir(parents=True)
            (root / name).write_text("")
    with pytest.raises(BadInput, match=re.escape(message)):
        read(root, preparation=Preparation(8, 3), classes=("cat", "dog"))


# Bad folders


def refused(path, **options):
    with pytest.raises(BadInput) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing(tmp_path):
    assert refused(tmp_path / "petz") == (
        f"There is no folder or file {tmp_path / 'petz'}. Check the path."
    )
    for name in ("cifar10", "cifar-10", "CIFAR10"):
        assert "or give cifar10 alone if you mean the data set of that name." in refused(
            Path("nowhere") / name
        )


def test_empty(tmp_path):
    (tmp_path / "pets").mkdir()
    assert "is empty. Put one folder for each class into it" in refused(tmp_path / "pets")
    (tmp_path / "pets" / ".DS_Store").write_text("")
    assert "is empty. Put one folder for each class into it" in refused(tmp_path / "pets")
    (tmp_path / "pets" / "notes.txt").write_text("")
    assert "holds no class folders. Put one folder for each" in refused(tmp_path / "pets")


def test_images_without_class_folders(tmp_path, pets):
    put(tmp_path / "flat", "b.png", "a.png")
    text = refused(tmp_path / "flat")
    assert f"2 images lie directly in {tmp_path / 'flat'} and not in class folders" in text
    assert "(the first is a.png)" in text
    assert "give a CSV" in text
    put(pets, "stray.png")
    assert "1 images lie directly in" in refused(pets)
    assert "beside the class folders (the first is stray.png)" in refused(pets)


def test_a_folder_of_parts(tmp_path):
    put(tmp_path / "all", "train/cat/a.png", "train/dog/a.png", "Test/cat/a.png")
    text = refused(tmp_path / "all")
    assert "(Test, train) are named like parts of a data set and not like classes" in text
    assert str(tmp_path / "all" / "Test") in text


def test_classes_with_too_few_images(pets):
    put(pets, "owl/a.png")
    assert "the class 'owl' has only one image. Add images" in refused(pets)
    (pets / "ape").mkdir()
    text = refused(pets)
    assert "the class 'ape' has no image (2 of 4 classes have fewer than two)" in text


def test_a_single_class(tmp_path):
    put(tmp_path / "pets", "cat/a.png", "cat/b.png")
    assert "has only the class 'cat', so there is nothing to tell apart" in refused(
        tmp_path / "pets"
    )


def test_classes_that_differ_in_case(pets):
    put(pets, "Cat/a.png", "Cat/b.png")
    assert "the classes 'Cat' and 'cat', which differ in upper and lower case only" in refused(pets)


def test_names_that_cannot_be_written(pets):
    put(pets, "cat/line\nbreak.png")
    text = refused(pets)
    assert "1 of 6 images" in text
    assert r"'cat/line\nbreak.png' (its name holds a line break" in text
    found, _ = read(pets, skip_unreadable=True)
    assert found.files == NAMES
    put(pets, "owl\t/a.png", "owl\t/b.png")
    assert "has the class 'owl\\t': its name holds a line break" in refused(pets)


def test_names_with_unusual_letters(pets):
    names = ("cat/Bildschirmfoto 3.45\u202fPM.png", "cat/ñandú 🐦.png", "cat/=1+1.png")
    put(pets, *names)
    found, _ = read(pets)
    assert set(names) <= set(found.files)


def test_no_folder_and_no_table(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"PK")
    assert "is no folder, .csv or .npz. Give a folder" in refused(tmp_path / "pets.zip")


def test_sizes_that_do_not_fit(pets):
    assert "size is 8, but the images it goes with have 10" in refused(
        pets, preparation=Preparation(10, 3), size=8
    )
    assert "size is 0, but must be positive" in refused(pets, size=0)


def test_more_than_fits_in_memory(pets):
    assert "do not fit in memory. Choose a smaller size." in refused(pets, size=10_000_000)


# Unreadable images


@pytest.fixture
def broken(pets):
    """The pets, and four images that cannot be used."""
    put(pets, "cat/half.jpg", "dog/frame.png", size=(60, 60))
    half = pets / "cat" / "half.jpg"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(pets / "cat" / "deep.png")
    frames = [noise_image((9, 9), seed=i) for i in range(2)]
    frames[0].save(pets / "dog" / "film.gif", save_all=True, append_images=frames[1:])
    (pets / "dog" / "photo.heic").write_bytes(b"...")
    return pets


def test_unreadable_images_are_listed(broken):
    before = snapshot(broken)
    text = refused(broken)
    assert f"4 of 10 images in {broken} cannot be used: " in text
    assert "'cat/deep.png' (more than 8 bits a channel); 'cat/half.jpg' (damaged: " in text
    assert "'dog/film.gif' (animated or of several pages); and 1 more. " in text
    assert "skip_unreadable=True" in text
    assert "--skip-unreadable" in text
    assert snapshot(broken) == before


@pytest.mark.parametrize("chosen", [None, Preparation(10, 3)])
def test_unreadable_images_are_left_out_by_choice(broken, chosen):
    said = []
    found, preparation = read(broken, skip_unreadable=True, on_skip=said.append, preparation=chosen)
    assert preparation == Preparation(10, 3)
    assert found.files == (*NAMES, "dog/frame.png")
    assert found.y.tolist() == [0, 0, 0, 1, 1, 1]
    for x, file in zip(found.x[:5], NAMES, strict=True):
        assert torch.equal(x, middle(broken / file))
    assert [each.split(":")[0] for each in said] == [
        "Left out 'cat/deep.png'", "Left out 'cat/half.jpg'", "Left out 'dog/film.gif'",
        "Left out 'dog/photo.heic'",
    ]  # fmt: skip
    assert "images of the kind .heic are not read" in said[3]


def test_nothing_is_said_where_nothing_is_left_out(pets):
    said = []
    read(pets, skip_unreadable=True, on_skip=said.append)
    assert said == []


def test_a_class_that_is_left_with_one_image(pets):
    (pets / "dog" / "a.png").write_bytes(b"")
    text = refused(pets, skip_unreadable=True)
    assert "without what cannot be read: the class 'dog' has only one image" in text


def test_a_trusted_class_may_lose_all(pets):
    (pets / "dog" / "a.png").write_bytes(b"")
    (pets / "dog" / "b.png").write_bytes(b"")
    found, _ = read(
        pets, skip_unreadable=True, preparation=Preparation(8, 3), classes=("cat", "dog")
    )
    assert found.y.tolist() == [0, 0, 0]


@pytest.mark.parametrize("chosen", [None, Preparation(10, 3)])
@pytest.mark.parametrize("skip", [False, True])
def test_nothing_can_be_read(pets, chosen, skip):
    for file in NAMES:
        (pets / file).write_bytes(b"")
    text = refused(pets, skip_unreadable=skip, preparation=chosen)
    assert "None of the 5 images" in text
    assert "the first is 'cat/a.png' (the file is empty)" in text


# Tables


def table(root, text, name="labels.csv", encoding="utf-8"):
    path = root / name
    path.write_bytes(text.encode(encoding))
    return path


LINES = [f"{file},{label}" for file, label in zip(NAMES, "xxyyx", strict=True)]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(["file,label", *LINES]),
        "\n".join(["path,label", *LINES, ""]),
        "\ufeff" + "\r\n".join(["File, Label", *LINES]),
        "\n".join(["file;label", *LINES]).replace(",", ";"),
        "\n".join(["file\tlabel", *LINES]).replace(",", "\t"),
        "\n".join(["file,label,note", "", *[f"{each},hm; hm" for each in LINES]]),
        "\n".join(
            ["id,label,file", *[f"7, {e[1]} ,{e[0]}" for e in (x.split(",") for x in LINES)]]
        ),
        "\n".join(["file,label", *[f'"{e[0]}","{e[1]}"' for e in (x.split(",") for x in LINES)]]),
        "\n".join(["file,label", *LINES, *LINES]),
        "\n".join(["path,file,label", *[f"other,{each}" for each in LINES]]),
    ],
)
def test_a_table(pets, text):
    found, preparation = read(table(pets, text))
    assert found.files == NAMES
    assert found.classes == ("x", "y")
    assert found.y.tolist() == [0, 0, 1, 1, 0]
    assert (found.name, preparation) == ("labels", Preparation(10, 3))
    assert torch.equal(found.x[3], middle(pets / NAMES[3]))


def test_paths_start_at_the_folder_of_the_table(pets, tmp_path):
    (tmp_path / "lists").mkdir()
    lines = [f"../pets/{line}" for line in LINES[:4]] + [f"{pets}/{LINES[4]}"]
    found, _ = read(table(tmp_path / "lists", "\n".join(["file,label", *lines])))
    assert found.files == (*(f"../pets/{file}" for file in NAMES[:4]), f"{pets}/{NAMES[4]}")


def test_a_trusted_table(pets):
    path = table(pets, "file,label\ndog/a.png,cat")
    found, _ = read(path, preparation=Preparation(8, 3), classes=("cat", "dog"))
    assert found.y.tolist() == [0]
    path = table(pets, "file,label\ndog/a.png,owl")
    assert "labels.csv has the label 'owl', which the training set lacks" in refused(
        path, preparation=Preparation(8, 3), classes=("cat", "dog")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty or not a table. Give a CSV whose first line names the columns"),
        ("\n\n", "is empty or not a table"),
        ("file,label\n", "has no lines below the first. Add one line for each image."),
        ("file,class\ncat/a.png,x", "has no columns file (or path) and label; its first line is "
         "'file, class'. Name the columns in the first line."),
        ("cat/a.png,x\ncat/b.png,y", "its first line is 'cat/a.png, x'"),
        ("file,label\ncat/a.png,x\ncat/b.png,", "Line 3 of {path} has no label. Fill it in, or"),
        ("file,label\ncat/a.png,x\n\ncat/b.png", "Line 4 of {path} has no label."),
        ("file,label\n,x", "Line 2 of {path} has no file."),
        ("file,label\ncat/a.png,x\ncat/q.png,x\ncat/r.png,y\ncat/b.png,y",
         "2 of 4 files in {path} do not exist, the first is cat/q.png. Give paths as seen from"),
        ("file,label\ncat/a.png,x\ncat/b.png,y\n./cat/a.png,y",
         "gives ./cat/a.png two labels: 'x' in line 2 and 'y' in line 4. Keep one of them."),
        ("file,label\ncat/a.png,x\ncat/b.png,x\ncat/c.png,X\ndog/a.png,X",
         "has the classes 'X' and 'x', which differ in upper and lower case only"),
        ("file,label\ncat/a.png,x\ncat/b.png,x\ncat/c.png,y", "the class 'y' has only one image"),
        ("file,label\ncat/a.png,x\ncat/b.png,x", "has only the class 'x'"),
        ("file,label\ncat/a.png,\"x\ny\"\ncat/b.png,z", "has the class 'x\\ny': its name holds a "),
    ],
)  # fmt: skip
def test_tables_that_are_refused(pets, text, message):
    path = table(pets, text)
    assert message.format(path=path) in refused(path)


def test_a_table_that_is_not_utf8(pets):
    path = table(pets, "file,label\ncat/a.png,häßlich", encoding="latin-1")
    assert "is not UTF-8 (byte 22 is not). Save it as UTF-8" in refused(path)
    path = table(pets, "file,label\ncat/a.png,x", encoding="utf-16")
    assert "is not UTF-8" in refused(path)


# Arrays


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


X = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), dtype=np.uint8)
Y = np.array([3, 1, 3, 1, 1, 3])


@pytest.mark.parametrize(
    ("x", "channels"),
    [
        (X, 3),
        (X.transpose(0, 3, 1, 2), 3),
        (X[..., 0], 1),
        (X[..., :1], 1),
        (X[..., :1].transpose(0, 3, 1, 2), 1),
        (X / np.float32(255), 3),
        (X / 255, 3),
        (X[..., 0] > 100, 1),
    ],
)
def test_arrays(tmp_path, x, channels):
    found, preparation = read(save(tmp_path / "pets.npz", x=x, y=Y))
    assert preparation == Preparation(7, channels)
    expected = torch.from_numpy(X[:, 1:8].transpose(0, 3, 1, 2).copy()).float() / 255
    expected = expected[:, :channels]
    if x.dtype == np.bool_:
        expected = (expected * 255 > 100).float()
    torch.testing.assert_close(found.x, expected, atol=1e-6, rtol=0)
    assert found.classes == ("1", "3")
    assert found.y.tolist() == [1, 0, 1, 0, 0, 1]
    assert (found.files, found.name, found.file(4)) == ((), "pets", "pets/4")


@pytest.mark.parametrize(
    ("shape", "channels", "size"),
    [((6, 3, 8, 8), 3, 8), ((6, 8, 8, 3), 3, 8), ((6, 1, 4, 4), 1, 4), ((6, 4, 4, 1), 1, 4),
     ((6, 3, 3, 3), 3, 3), ((6, 3, 8, 4), 3, 3), ((6, 4, 9, 9), 3, 9), ((6, 1, 1, 1), 1, 1)],
)  # fmt: skip
def test_which_axis_holds_the_channels(tmp_path, shape, channels, size):
    x = np.zeros(shape, np.uint8)
    assert read(save(tmp_path / "a.npz", x=x, y=Y))[1] == Preparation(size, channels)


def test_opacity_resizing_and_luminance(tmp_path):
    x = np.zeros((6, 100, 80, 4), np.uint8)
    x[..., 0] = 255
    x[:3, ..., 3] = 255
    path = save(tmp_path / "a.npz", x=x, y=Y)
    found, preparation = read(path)
    assert preparation == Preparation(64, 3)
    torch.testing.assert_close(found.x[0, :, 5, 5], torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(found.x[4, :, 5, 5], torch.ones(3))
    grey, _ = read(path, preparation=Preparation(8, 1), classes=("1", "3"))
    assert grey.x.shape == (6, 1, 8, 8)
    torch.testing.assert_close(grey.x[0], torch.full((1, 8, 8), 0.299))
    three, _ = read(
        save(tmp_path / "b.npz", x=x[..., 0], y=Y),
        preparation=Preparation(8, 3),
        classes=("1", "3"),
    )
    assert three.x.shape == (6, 3, 8, 8)


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (np.array(list("baabba")), None, (("a", "b"), [1, 0, 0, 1, 1, 0])),
        (np.array(list("baabba"), "S"), None, (("a", "b"), [1, 0, 0, 1, 1, 0])),
        (np.array(list("baabba")), ["b", "a"], (("b", "a"), [0, 1, 1, 0, 0, 1])),
        (np.array([1, 0, 0, 1, 1, 0]), ["owl", "ape"], (("owl", "ape"), [1, 0, 0, 1, 1, 0])),
        (np.array([10, 2, 2, 10, 10, 2]), None, (("2", "10"), [1, 0, 0, 1, 1, 0])),
        (np.array([1, 0, 0, 1, 1, 0], np.uint8), None, (("0", "1"), [1, 0, 0, 1, 1, 0])),
    ],
)
def test_labels_of_arrays(tmp_path, y, classes, expected):
    more = {} if classes is None else {"classes": np.array(classes)}
    found, _ = read(save(tmp_path / "a.npz", x=X, y=y, **more))
    assert (found.classes, found.y.tolist()) == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "has no array 'y', but x. Save the images as x and the labels as y"),
        ({"images": X, "y": Y}, "has no array 'x', but images, y."),
        ({"x": X[0, 0], "y": Y}, "x has the shape (7, 3)."),
        ({"x": X[..., :2], "y": Y}, "x has the shape (6, 9, 7, 2)."),
        ({"x": X[:0], "y": Y[:0]}, "x has the shape (0, 9, 7, 3)."),
        ({"x": X, "y": Y[:5]}, "x holds 6 images and y has the shape (5,)."),
        ({"x": X, "y": np.eye(6)}, "x holds 6 images and y has the shape (6, 6)."),
        ({"x": X.astype(np.uint16), "y": Y}, "x has the type uint16 (16-bit images)."),
        ({"x": X.astype(np.int64), "y": Y}, "x has the type int64. Convert it to uint8"),
        ({"x": X.astype(np.float32), "y": Y}, "x is a float array from 0 to 255. Scale it"),
        ({"x": X / 255 - 0.5, "y": Y}, "x is a float array from -0.5 to 0.5."),
        ({"x": np.full((6, 4, 4), np.nan), "y": Y}, "x is a float array from nan to nan."),
        ({"x": X, "y": Y / 2}, "y has the type float64. Give whole numbers or strings"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "y holds the label 3, which is out of "
         "range for 2 classes."),
        ({"x": X, "y": Y - 2, "classes": np.array(["a", "b"])}, "y holds the label -1, which is"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "a", "c"])}, "classes holds a name twice"),
        ({"x": X, "y": Y, "classes": np.arange(4)}, "classes is no list of names."),
        ({"x": X, "y": np.array(list("abcabc")), "classes": np.array(["a", "b"])},
         "y holds the label 'c', which classes lacks."),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "c", "d"])}, "the class 'a' has no image"),
        ({"x": X, "y": Y * 0}, "has only the class '0'"),
        ({"x": X, "y": np.array([1, 1, 1, 1, 1, 2])}, "the class '2' has only one image"),
        ({"x": X, "y": np.array(list("aAaAaA"))}, "the classes 'A' and 'a', which differ in"),
        ({"x": X, "y": np.array([{}] * 6)}, "holds pickled objects, which are not loaded"),
        ({"x": np.array([None] * 6), "y": Y}, "holds pickled objects, which are not loaded"),
    ],
)  # fmt: skip
def test_arrays_that_are_refused(tmp_path, arrays, message):
    assert message in refused(save(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_what_is_no_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    text = refused(tmp_path / "a.npz")
    assert "a.npz" in text
    assert "numpy.savez" in text or "pickled" in text


def test_half_an_npz(tmp_path):
    path = save(tmp_path / "a.npz", x=X, y=Y)
    path.write_bytes(path.read_bytes()[:300])
    assert "is not an .npz file that can be read" in refused(path)
    np.save(tmp_path / "b.npy", X)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    assert "is not an .npz file that can be read" in refused(tmp_path / "b.npz")


def test_an_npz_with_labels_that_the_training_set_lacks(tmp_path):
    path = save(tmp_path / "a.npz", x=X, y=Y)
    text = refused(path, preparation=Preparation(8, 3), classes=("1", "2"))
    assert "a.npz has the label '3', which the training set lacks" in text


# Names and paths


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("cifar10", False), ("digits", False), ("digit", False), ("petz", False),
        ("pets", True), ("./cifar10", True), ("a/b", True), ("labels.csv", True), ("a.npz", True),
        ("mnist", False), (".", True), ("..", True), ("~", True),
    ],
)  # fmt: skip
def test_is_own(tmp_path, monkeypatch, data, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "mnist").mkdir()
    assert is_own(data) is expected
