"""Which classes few-shot learning trains, selects and tests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from ..errors import BadInput, check_positive, unknown
from .images import LabelledImages

ClassPart = Literal["train", "validation", "test"]

CIFAR_FS: Mapping[str, tuple[str, ...]] = {
    "train": (
        *("apple", "aquarium_fish", "bear", "bee", "bottle", "bowl", "boy", "bridge", "bus"),
        *("can", "castle", "caterpillar", "chair", "clock", "cloud", "cockroach", "couch", "cup"),
        *("dinosaur", "dolphin", "elephant", "forest", "girl", "hamster", "house", "kangaroo"),
        *("keyboard", "lawn_mower", "lion", "lizard", "lobster", "mountain", "mouse", "mushroom"),
        *("oak_tree", "orange", "orchid", "palm_tree", "pear", "pine_tree", "plate", "porcupine"),
        *("possum", "rabbit", "raccoon", "ray", "road", "seal", "shrew", "skunk", "skyscraper"),
        *("snake", "spider", "squirrel", "streetcar", "sunflower", "tank", "tiger", "train"),
        *("trout", "tulip", "turtle", "willow_tree", "wolf"),
    ),
    "validation": (
        *("beaver", "beetle", "butterfly", "camel", "cattle", "crab", "crocodile", "flatfish"),
        *("lamp", "maple_tree", "motorcycle", "otter", "sea", "shark", "television", "tractor"),
    ),
    "test": (
        *("baby", "bed", "bicycle", "chimpanzee", "fox", "leopard", "man", "pickup_truck"),
        *("plain", "poppy", "rocket", "rose", "snail", "sweet_pepper", "table", "telephone"),
        *("wardrobe", "whale", "woman", "worm"),
    ),
}
"""Classes of CIFAR-100 (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019): 64, 16 and 20."""

OMNIGLOT_TRAINED = 1200
"""Characters before the test ones, in the order of background, evaluation and then name."""

OMNIGLOT_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""Alphabets of the 172 validation characters (Vinyals et al. 2016, as Snell et al. 2017 list
them): 1,028 train, 172 validation and 423 test characters."""


def omniglot_classes(characters: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The characters of each part.

    Args:
        characters: All 1,623 as "alphabet/character", background alphabets before evaluation ones
            and sorted within each.
    """
    names = tuple(characters)
    held = names[:OMNIGLOT_TRAINED]
    validation = tuple(each for each in held if each.split("/")[0] in OMNIGLOT_VALIDATION)
    return {
        "train": tuple(each for each in held if each not in set(validation)),
        "validation": validation,
        "test": names[OMNIGLOT_TRAINED:],
    }


def every_second(classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Classes 0, 2, 4, ... train; 1, 5, 9, ... select; 3, 7, 11, ... test.

    The split of CUB-200-2011 by Chen et al. (ICLR 2019): 100, 50 and 50 classes.
    """
    names = tuple(classes)
    return {"train": names[0::2], "validation": names[1::4], "test": names[3::4]}


def drawn_classes(
    classes: Sequence[str], *, validation: int, test: int, seed: int
) -> dict[str, tuple[str, ...]]:
    """Classes drawn by a seed; those that are neither validation nor test train.

    Raises:
        BadInput: A number below one, or no class left to train on.
    """
    check_positive("validation", validation)
    check_positive("test", test)
    if validation + test >= len(classes):
        raise BadInput(
            f"{validation} validation and {test} test classes leave none of {len(classes)} to "
            "train on. Ask for fewer, or give more classes."
        )
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = torch.randperm(len(classes), generator=generator).tolist()
    drawn = {
        "test": order[:test],
        "validation": order[test : test + validation],
        "train": order[test + validation :],
    }
    return {part: tuple(classes[each] for each in sorted(own)) for part, own in drawn.items()}


def of_classes(images: LabelledImages, classes: Sequence[str]) -> LabelledImages:
    """The examples of some classes, which are numbered anew in the order given.

    Raises:
        BadInput: A class that the images do not have, or none at all.
    """
    missing = [each for each in classes if each not in set(images.classes)]
    if missing:
        raise unknown(f"class of {images.name}", missing[0], images.classes)
    if not classes:
        raise BadInput("No classes are asked for. Give at least one.")
    place = {name: number for number, name in enumerate(classes)}
    numbers = torch.tensor([place.get(name, -1) for name in images.classes])
    y = numbers.to(images.y.device)[images.y]
    keep = y >= 0
    held = images.rows(keep)
    return replace(held, y=y[keep], classes=tuple(classes))


def check_part(part: str) -> None:
    """Refuses what is no part."""
    if part not in get_args(ClassPart):
        raise unknown("part of the classes", part, get_args(ClassPart))
