"""Jobs on lessons that take a moment, and sets made up in place of those that lie on a disk."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from commentaries.data import ANIMALS_AND_VEHICLES, WOODS_AND_OPEN, LabelledImages, load
from commentaries.report import page
from commentaries.teaching import marked_sets, parts
from commentaries.teaching.options import MasksJob, MixupJob, Settings
from commentaries.training import Recipe

SETTINGS = Settings(steps=6, warm_up=1, batch=32, validation_batch=32)
_SMALL: dict[str, Any] = {
    "train": 100,
    "validation": 40,
    "test": 60,
    "controls": "none",
    "settings": SETTINGS,
    "recipe": Recipe(steps=6, batch=32, weight_decay=5e-4),
}


def mixup(**options: Any) -> MixupJob:
    """A small job on mixing digits."""
    return MixupJob(**{**_SMALL, **options})


def masks(**options: Any) -> MasksJob:
    """A small job on masks, of digits on photographs unless told otherwise."""
    return MasksJob(**{**_SMALL, "data": "digits_on_photos", "mask": "unet", **options})


def few_crops(patch: pytest.MonkeyPatch) -> None:
    """Fewer pieces of photographs behind digits, which take most of the time."""
    patch.setattr(marked_sets, "CROPS", {"train": 60, "validation": 30, "test": 30})


def no_figures(patch: pytest.MonkeyPatch) -> None:
    """Pages with the same picture everywhere: drawing takes most of their time."""
    patch.setattr(page, "_figure_uri", lambda figure: "data:image/png;base64,")


SIZES = {"train": 200, "test": 80}
_CLASSES = {
    "mnist": tuple(map(str, range(10))),
    "cifar10": tuple(name for names in ANIMALS_AND_VEHICLES.values() for name in names),
    "cifar100": tuple(name for names in WOODS_AND_OPEN.values() for name in names),
}


def made_up(name: str, part: str = "train") -> LabelledImages:
    """Digits of 24 pixels for mnist, noise of 32 for the others; no image comes twice."""
    if name not in _CLASSES:
        return load(name, part)  # pyright: ignore[reportArgumentType]
    classes, size = _CLASSES[name], SIZES[part]
    y = torch.arange(size) % len(classes)
    if name == "mnist":
        digits = load("digits")
        rows = torch.arange(size) + (0 if part == "train" else SIZES["train"])
        x = digits.x[rows].repeat_interleave(3, 2).repeat_interleave(3, 3)
        return LabelledImages(x, digits.y[rows], classes, f"{name}-{part}")
    generator = torch.Generator().manual_seed(len(name) + len(part))
    x = torch.rand(size, 3, 32, 32, generator=generator)
    return LabelledImages(x, y, classes, f"{name}-{part}")


def invent(patch: pytest.MonkeyPatch) -> None:
    """Sets by name are made up; digits stay what they are."""

    def found(name, part="train", *, root=None, download=False):
        return made_up(name, part)

    for module in (parts, marked_sets):
        patch.setattr(module, "load", found)
