"""Sets for few-shot learning, whose train, validation and test parts have different classes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import BadInput, unknown
from .class_splits import (
    CIFAR_FS,
    ClassPart,
    check_part,
    drawn_classes,
    every_second,
    of_classes,
    omniglot_classes,
)
from .images import LabelledImages
from .layouts import Listing, list_folder
from .named import load
from .own import read_listing
from .pictures import Preparation

FEW_SHOT_NAMES = ("omniglot", "cifar_fs")

FEW_SHOT_SIZE = 84
"""Side in pixels of miniImageNet and CUB in the literature."""

_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_TABLES = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
_SHARES = {"validation": 0.16, "test": 0.2}


def few_shot(
    data: str | Path,
    part: ClassPart = "train",
    *,
    root: Path | None = None,
    download: bool = False,
    size: int = FEW_SHOT_SIZE,
    channels: int = 3,
    seed: int = 0,
) -> LabelledImages:
    """The examples of one part of the classes, numbered from 0.

    Args:
        data: One of `FEW_SHOT_NAMES`, or a folder.
            omniglot: 1,028, 172 and 423 characters (see `OMNIGLOT_VALIDATION`), 20 drawings each
            of 28 x 28 pixels. Turned characters as new classes are left to `fewshot.Episodes`.
            cifar_fs: 64, 16 and 20 classes of CIFAR-100 (see `CIFAR_FS`), 600 images each.
            A folder in one of these layouts, as miniImageNet and CUB-200-2011 are on disk:
            ``train``, ``val`` and ``test``, each with class folders;
            ``images`` with ``train.csv``, ``val.csv`` and ``test.csv`` of the columns filename and
            label (Ravi and Larochelle 2017);
            ``images`` with class folders and ``classes.txt`` of CUB-200-2011, whose classes are
            divided as by `every_second`, and whose train_test_split.txt has no part in this;
            class folders alone, of which 16 % of the classes, drawn by the seed, are validation
            and 20 % test.
        part: Which.
        root: Where named sets are, as for `load`.
        download: Whether a named set that is not there is downloaded.
        size: Side in pixels of the images of a folder.
        channels: 1 or 3, of a folder.
        seed: Of the classes drawn.

    Raises:
        BadInput: An unknown name or part, a set that is not there or damaged, a folder in another
            layout, or one whose parts share a class.
    """
    check_part(part)
    if data == "omniglot":
        return _omniglot(part, root, download)
    if data == "cifar_fs":
        return _cifar_fs(part, root, download)
    folder = Path(data).expanduser()
    if not folder.is_dir():
        if len(folder.parts) == 1:
            raise unknown("few-shot data set or folder", str(data), FEW_SHOT_NAMES)
        raise BadInput(f"There is no folder {folder}. Check the path.")
    listing = _listing(folder, part, seed)
    classes = tuple(listing.classes)
    images, _ = read_listing(folder, listing, preparation=Preparation(size, channels))
    return replace(of_classes(images, classes), name=folder.resolve().name)


def _omniglot(part: str, root: Path | None, download: bool) -> LabelledImages:
    background = load("omniglot", "train", root=root, download=download)
    evaluation = load("omniglot", "test", root=root, download=download)
    both = _together(background, evaluation)
    return of_classes(both, omniglot_classes(both.classes)[part])


def _cifar_fs(part: str, root: Path | None, download: bool) -> LabelledImages:
    train = load("cifar100", "train", root=root, download=download).named()
    test = load("cifar100", "test", root=root, download=download)
    test = replace(test, files=tuple(f"{test.name}-test/{row}" for row in range(len(test))))
    x, y = torch.cat([train.x, test.x]), torch.cat([train.y, test.y])
    both = LabelledImages(x, y, train.classes, "cifar_fs", train.files + test.files)
    return of_classes(both, CIFAR_FS[part])


def _together(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """Two sets without a common class."""
    return LabelledImages(
        torch.cat([first.x, second.x]),
        torch.cat([first.y, second.y + len(first.classes)]),
        first.classes + second.classes,
        first.name,
        first.files + second.files,
    )


def _listing(folder: Path, part: str, seed: int) -> Listing:
    images = folder / "images"
    if all((folder / table).is_file() for table in _TABLES.values()):
        listings = {each: _table(folder, name) for each, name in _TABLES.items()}
        _check_apart(folder, listings)
        return listings[part]
    places = {each: _place(folder, names) for each, names in _FOLDERS.items()}
    if places["train"] is not None:
        listings = {each: list_folder(place) for each, place in places.items() if place is not None}
        _check_apart(folder, listings)
        if part not in listings:
            raise BadInput(
                f"{folder} has no folder for the part {part!r}. Make a folder "
                f"{_FOLDERS[part][0]} with its classes, or ask for another part."
            )
        return listings[part]
    if images.is_dir() and (folder / "classes.txt").is_file():
        found = list_folder(images)
        return _of(found, every_second(_cub_classes(folder, found))[part])
    found = list_folder(folder)
    count = len(found.classes)
    held = {each: max(1, round(share * count)) for each, share in _SHARES.items()}
    return _of(found, drawn_classes(found.classes, **held, seed=seed)[part])


def _place(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _of(listing: Listing, classes: tuple[str, ...]) -> Listing:
    own = set(classes)
    kept = listing.rows([row for row, label in enumerate(listing.labels) if label in own])
    return kept._replace(classes=list(classes))


def _table(folder: Path, name: str) -> Listing:
    """A table of filename and label, of images in the folder ``images``."""
    path = folder / name
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        files = [row["filename"] for row in rows]
        labels = [row["label"] for row in rows]
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} is no table with the columns filename and label. Give the tables of Ravi and "
            "Larochelle, or one folder for each part."
        ) from error
    paths = [folder / "images" / file for file in files]
    missing = [file for file, each in zip(files, paths, strict=True) if not each.is_file()]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(files)} files in {path} are not in {folder / 'images'}, the "
            f"first is {missing[0]}. Put them there, or remove these lines."
        )
    return Listing(paths, files, labels, sorted(set(labels)))


def _cub_classes(folder: Path, found: Listing) -> list[str]:
    """Class folders in the order of classes.txt, "1 001.Black_footed_Albatross"."""
    path = folder / "classes.txt"
    lines = [line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines() if line]
    names = [line[-1].strip() for line in lines]
    if sorted(names) != found.classes:
        strange = sorted(set(names) ^ set(found.classes))
        raise BadInput(
            f"{path} and the folders in {folder / 'images'} name different classes, the first is "
            f"{strange[0] if strange else names[0]!r}. Restore the published folder."
        )
    return names


def _check_apart(folder: Path, listings: dict[str, Listing]) -> None:
    seen: dict[str, str] = {}
    for part, listing in listings.items():
        for name in listing.classes:
            if name in seen:
                raise BadInput(
                    f"{folder}: the class {name!r} is in the parts {seen[name]} and {part}, but "
                    "few-shot learning is tested on classes it has not seen. Give the folder of "
                    "one part, whose classes are then divided, or move the class to one part."
                )
            seen[name] = part
