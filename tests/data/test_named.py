import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commentaries.data import NAMES, has_test, load
from commentaries.data import named as module
from commentaries.data.named import default_root
from commentaries.errors import BadInput

REAL = {
    "mnist": ("MNIST", 60_000, 10_000, 1, 28, 10),
    "fashion_mnist": ("FashionMNIST", 60_000, 10_000, 1, 28, 10),
    "cifar10": ("cifar-10-batches-py", 50_000, 10_000, 3, 32, 10),
    "cifar100": ("cifar-100-python", 50_000, 10_000, 3, 32, 100),
    "svhn": ("test_32x32.mat", 73_257, 26_032, 3, 32, 10),
    "omniglot": ("omniglot-py", 19_280, 13_180, 1, 28, None),
}


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


def test_names():
    assert set(NAMES) == {"digits", *REAL}
    assert [name for name in NAMES if not has_test(name)] == ["digits", "omniglot"]


def test_the_root_is_the_users_choice(monkeypatch):
    monkeypatch.setenv("COMMENTARIES_DATA", "/some/where")
    assert default_root() == Path("/some/where")
    for empty in (lambda: monkeypatch.setenv("COMMENTARIES_DATA", ""),
                  lambda: monkeypatch.delenv("COMMENTARIES_DATA")):  # fmt: skip
        empty()
        assert default_root() == Path.home() / ".cache" / "commentaries"


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("name", REAL)
def test_real_sets(name, part):
    place, train, test, channels, size, classes = REAL[name]
    if not (default_root() / place).exists():
        pytest.skip(f"{name} is not in {default_root()}; set COMMENTARIES_DATA")
    found = load(name, part)
    n = train if part == "train" else test
    assert found.x.shape == (n, channels, size, size)
    assert found.x.is_contiguous()
    assert 0 <= float(found.x.min()) < 0.1 < 0.9 < float(found.x.max()) <= 1
    assert len(found.classes) == (classes or n // 20)
    assert len(found.y.unique()) == len(found.classes)
    assert found.name == name


@pytest.mark.parametrize("name", list(REAL))
def test_a_set_that_is_not_there_is_not_downloaded(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COMMENTARIES_DATA", str(tmp_path))
    for root in (None, tmp_path):
        with pytest.raises(BadInput) as error:
            load(name, "test", root=root)
        text = str(error.value)
        assert text.startswith(f"{name} is not in {tmp_path} ({REAL[name][0]} is missing).")
        for remedy in ("download=True", "--download", "COMMENTARIES_DATA"):
            assert remedy in text
    assert not list(tmp_path.iterdir())


def test_errors(tmp_path):
    with pytest.raises(BadInput, match=r"There is no data set 'digit'\. Did you mean 'digits'\?"):
        load("digit")
    with pytest.raises(BadInput, match=r"give the path of a folder, a \.csv or an \.npz"):
        load("zzz")
    with pytest.raises(BadInput, match=r"There is no part of a data set 'tests'\. Did you mean"):
        load("mnist", "tests")  # pyright: ignore
    with pytest.raises(BadInput, match="digits has no test part of its own"):
        load("digits", "test")
    with pytest.raises(BadInput, match="There is no data set 'cifar'"):
        has_test("cifar")


def test_a_download_that_fails(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def fail(self):
        raise OSError("no network")

    monkeypatch.setattr(MNIST, "download", fail)
    with pytest.raises(BadInput, match=r"mnist could not be downloaded to .* \(no network\)\. Che"):
        load("mnist", root=tmp_path, download=True)


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def fake_mnist(root, folder="MNIST", n=4):
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(n * 28 * 28).astype(np.uint8).reshape(n, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array([7, 0, 9, 7], np.uint8)))
    return pixels


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_a_small_mnist(tmp_path, name, folder):
    pixels = fake_mnist(tmp_path, folder)
    found = load(name, root=tmp_path)
    assert torch.equal(found.x[:, 0], torch.from_numpy(pixels).float() / 255)
    assert found.y.tolist() == [7, 0, 9, 7]
    assert found.classes[7] == ("7" if name == "mnist" else "Sneaker")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_set_is_told_from_a_missing_one(tmp_path, damage):
    fake_mnist(tmp_path)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(BadInput) as error:
        load("mnist", root=tmp_path)
    assert f"mnist in {tmp_path} is incomplete or damaged" in str(error.value)
    assert f"Remove {tmp_path / 'MNIST'}" in str(error.value)


def test_a_small_cifar(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    batch = {"data": pixels.reshape(3, -1), "labels": [1, 0, 1]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["airplane", "auto"]}))
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    found = load("cifar10", root=tmp_path)
    assert torch.equal(found.x, torch.from_numpy(pixels).float() / 255)
    assert found.x.is_contiguous()
    assert found.y.tolist() == [1, 0, 1]
    assert found.classes == ("airplane", "auto")


def test_a_small_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision.datasets import SVHN

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]])})
    monkeypatch.setattr(SVHN, "split_list", {"test": ["", "test_32x32.mat", None]})
    found = load("svhn", "test", root=tmp_path)
    assert torch.equal(found.x, torch.from_numpy(pixels.transpose(3, 2, 0, 1)).float() / 255)
    assert found.y.tolist() == [0, 1, 9, 0]
    assert found.classes == tuple("0123456789")


def fake_omniglot(root, folder):
    for alphabet, character in (("Zulu", 2), ("Greek", 1), ("Zulu", 1)):
        place = root / "omniglot-py" / folder / alphabet / f"character{character:02d}"
        place.mkdir(parents=True)
        for i in (2, 1):
            paper = np.full((105, 105), 255, np.uint8)
            paper[: 15 * i] = 0
            Image.fromarray(paper).convert("1").save(place / f"000{i}.png")


@pytest.mark.parametrize(
    ("part", "folder"), [("train", "images_background"), ("test", "images_evaluation")]
)
def test_a_small_omniglot(tmp_path, monkeypatch, part, folder):
    fake_omniglot(tmp_path, folder)
    with pytest.raises(BadInput, match=r"omniglot in .* is incomplete .*\(6 images where"):
        load("omniglot", part, root=tmp_path)
    monkeypatch.setattr(module, "_OMNIGLOT_IMAGES", {part: 6})
    found = load("omniglot", part, root=tmp_path)
    assert found.x.shape == (6, 1, 28, 28)
    assert found.classes == ("Greek/character01", "Zulu/character01", "Zulu/character02")
    assert found.files[:3] == (
        "Greek/character01/0001.png", "Greek/character01/0002.png", "Zulu/character01/0001.png"
    )  # fmt: skip
    assert found.y.tolist() == [0, 0, 1, 1, 2, 2]
    ink = found.x.mean((1, 2, 3))
    torch.testing.assert_close(ink, torch.tensor([1.0, 2.0] * 3) * 15 / 105, atol=0.005, rtol=0)
    assert float(found.x[0, 0, 0].min()) > 0.999  # ink at the top
    assert float(found.x[0, 0, -1].max()) == 0.0
    # Asked to download, what is there unpacked is enough.
    assert torch.equal(load("omniglot", part, root=tmp_path, download=True).x, found.x)


def test_gzipped_downloads_are_unpacked_only_by_a_download(tmp_path):
    fake_mnist(tmp_path)
    raw = tmp_path / "MNIST/raw"
    for file in list(raw.iterdir()):
        (raw / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    before = sorted(raw.iterdir())
    with pytest.raises(BadInput, match="incomplete or damaged"):
        load("mnist", root=tmp_path)
    assert sorted(raw.iterdir()) == before
