"""Data sets that are known by name, read through torchvision's classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import BadInput, unknown
from .images import LabelledImages
from .labels import number

Part = Literal["train", "test"]

OMNIGLOT_SIZE = 28
_OMNIGLOT_IMAGES = {"train": 19_280, "test": 13_180}
_DIGITS = tuple(str(digit) for digit in range(10))


def load(
    name: str, part: Part = "train", *, root: Path | None = None, download: bool = False
) -> LabelledImages:
    """A data set by name, its pixels in [0, 1].

    Nothing is downloaded unless asked for. Folders are laid out as torchvision does it.

    Args:
        name: One of `NAMES`:
            digits: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, part "train" only.
            mnist, fashion_mnist: 60,000 and 10,000 grey images of 28 x 28 pixels.
            cifar10, cifar100: 50,000 and 10,000 colour images of 32 x 32 pixels; the 100 fine
            labels.
            svhn: 73,257 and 26,032 colour images of 32 x 32 pixels.
            omniglot: 20 drawings of each character, 105 x 105 pixels reduced to 28 x 28 with
            antialiasing, ink 1 on paper 0. "train": the 964 characters of the background
            alphabets. "test": the 659 of the evaluation alphabets, which are other classes.
        part: Which part.
        root: Folder that holds the sets; by default ``$COMMENTARIES_DATA``, else
            ``~/.cache/commentaries``.
        download: Whether a set that is not there is downloaded to `root`.

    Raises:
        BadInput: An unknown name or part, a set that is not there, or is damaged, or cannot be
            downloaded.
    """
    if name not in NAMES:
        raise BadInput(
            f"{unknown('data set', name, NAMES)} For images of your own give the path of a folder, "
            "a .csv or an .npz file that exists."
        )
    if part not in get_args(Part):
        raise unknown("part of a data set", part, get_args(Part))
    if name == "digits":
        return _digits(part)
    return _from_disk(name, part, default_root() if root is None else Path(root), download)


def has_test(name: str) -> bool:
    """Whether a set has a part "test" of the same classes.

    Raises:
        BadInput: An unknown name.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    return name not in ("digits", "omniglot")


def default_root() -> Path:
    """Where sets are looked for: ``$COMMENTARIES_DATA``, else ``~/.cache/commentaries``."""
    return Path(os.environ.get("COMMENTARIES_DATA") or "~/.cache/commentaries").expanduser()


class _Arrays(NamedTuple):
    """What a set holds: pixels (n, channels, height, width), uint8 or float32."""

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...] = ()


class _Set(NamedTuple):
    """Reads a set given (root, part, download), and the folder or file under root it looks for."""

    read: Callable[[Path, str, bool], _Arrays]
    place: str


def _digits(part: str) -> LabelledImages:
    if part != "train":
        raise BadInput(
            "digits has no test part of its own. Load the part 'train' and split it with "
            "commentaries.data.split."
        )
    from sklearn.datasets import load_digits  # half a second to import

    pixels, labels = load_digits(return_X_y=True)
    return LabelledImages(
        torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16,
        torch.tensor(labels, dtype=torch.int64),
        _DIGITS,
        "digits",
    )


def _from_disk(name: str, part: str, root: Path, download: bool) -> LabelledImages:
    place = root / _SETS[name].place.format(part=part)
    there = place.exists()
    try:
        found = _SETS[name].read(root, part, download)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # torchvision, pickle and the network have no common one
        reason = str(error).split(". ")[0] or type(error).__name__
        if download:
            raise BadInput(
                f"{name} could not be downloaded to {root} ({reason}). Check the network and the "
                "free space, or put an unpacked copy there."
            ) from error
        if not there:
            raise BadInput(
                f"{name} is not in {root} ({place.relative_to(root)} is missing). Download it with "
                "download=True (on the command line --download), or set COMMENTARIES_DATA to the "
                "folder that holds it."
            ) from error
        raise BadInput(
            f"{name} in {root} is incomplete or damaged ({reason}). Remove {place} and download it "
            "anew with download=True (on the command line --download), or set COMMENTARIES_DATA "
            "to the folder that holds a whole one."
        ) from error
    pixels = found.pixels
    if pixels.dtype == torch.uint8:
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    return LabelledImages(pixels, found.labels, found.classes, name, found.files)


def _grey(kind: str, classes: tuple[str, ...]) -> Callable[[Path, str, bool], _Arrays]:
    """MNIST and what has its layout; `kind` is torchvision's class."""

    def read(root: Path, part: str, download: bool) -> _Arrays:
        from torchvision import datasets

        held = getattr(datasets, kind)(root, train=part == "train", download=download)
        return _Arrays(held.data[:, None], held.targets, classes)

    return read


def _cifar(kind: str) -> Callable[[Path, str, bool], _Arrays]:
    def read(root: Path, part: str, download: bool) -> _Arrays:
        from torchvision import datasets

        held = getattr(datasets, kind)(root, train=part == "train", download=download)
        pixels = torch.from_numpy(held.data).permute(0, 3, 1, 2)
        return _Arrays(pixels, torch.tensor(held.targets), tuple(held.classes))

    return read


def _svhn(root: Path, part: str, download: bool) -> _Arrays:
    from torchvision.datasets import SVHN

    held = SVHN(root, split=part, download=download)
    return _Arrays(torch.from_numpy(held.data), torch.from_numpy(held.labels), _DIGITS)


def _omniglot(root: Path, part: str, download: bool) -> _Arrays:
    held = _unpacked_omniglot()(root, background=part == "train", download=download)
    expected = _OMNIGLOT_IMAGES[part]
    if len(held) != expected:
        raise RuntimeError(f"{len(held)} images where {expected} should be")
    # torchvision takes folders in the order in which the disk lists them: sort, to be the same
    # on every machine.
    names = [each.replace(os.sep, "/") for each in held._characters]
    listed = [f"{names[label]}/{image}" for image, label in held._flat_character_images]
    order = sorted(range(len(listed)), key=listed.__getitem__)
    with ThreadPoolExecutor() as pool:
        drawings = pool.map(lambda row: np.asarray(held[row][0]), order)
        paper = torch.from_numpy(np.stack(list(drawings)))[:, None]
    pixels = torch.empty(len(held), 1, OMNIGLOT_SIZE, OMNIGLOT_SIZE)
    for source, target in zip(paper.split(1000), pixels.split(1000), strict=True):
        ink = 1 - source.float() / 255
        small = interpolate(ink, size=OMNIGLOT_SIZE, mode="bilinear", antialias=True)
        target.copy_(small.clamp_(0, 1))
    characters, files = tuple(sorted(names)), tuple(listed[row] for row in order)
    labels = number([file.rsplit("/", 1)[0] for file in files], characters)
    return _Arrays(pixels, labels, characters, files)


def _unpacked_omniglot() -> Any:
    """torchvision's class, which takes the unpacked folder where the zip is no more."""
    from torchvision.datasets import Omniglot

    class Unpacked(Omniglot):
        def _check_integrity(self) -> bool:
            folder = Path(self.root, self._get_target_folder())
            return folder.is_dir() and any(folder.iterdir())

        def download(self) -> None:
            if not self._check_integrity():
                super().download()

    return Unpacked


_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)  # fmt: skip

_SETS: dict[str, _Set] = {
    "mnist": _Set(_grey("MNIST", _DIGITS), "MNIST"),
    "fashion_mnist": _Set(_grey("FashionMNIST", _FASHION), "FashionMNIST"),
    "cifar10": _Set(_cifar("CIFAR10"), "cifar-10-batches-py"),
    "cifar100": _Set(_cifar("CIFAR100"), "cifar-100-python"),
    "svhn": _Set(_svhn, "{part}_32x32.mat"),
    "omniglot": _Set(_omniglot, "omniglot-py"),
}
NAMES: tuple[str, ...] = ("digits", *_SETS)
