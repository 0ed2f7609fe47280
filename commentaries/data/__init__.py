"""Data sets by name and from a user's disk, splits; label noise, imbalance and spurious cues."""

from .backgrounds import ANIMALS_AND_VEHICLES, WOODS_AND_OPEN, swapped_backgrounds
from .class_splits import CIFAR_FS, drawn_classes, every_second, of_classes, omniglot_classes
from .coloured import PALETTE, coloured_digits
from .crops import photo_crops
from .few_shot import FEW_SHOT_NAMES, FEW_SHOT_SIZE, few_shot
from .images import LabelledImages
from .imbalance import long_tail
from .look_alikes import look_alikes
from .marked import Marked
from .named import NAMES, default_root, has_test, load
from .noise import NOISES, corrupt
from .own import is_own, read
from .pasted import pasted_digits
from .pictures import Preparation
from .split import Splits, some, split

__all__ = [
    "ANIMALS_AND_VEHICLES",
    "CIFAR_FS",
    "FEW_SHOT_NAMES",
    "FEW_SHOT_SIZE",
    "NAMES",
    "NOISES",
    "PALETTE",
    "WOODS_AND_OPEN",
    "LabelledImages",
    "Marked",
    "Preparation",
    "Splits",
    "coloured_digits",
    "corrupt",
    "default_root",
    "drawn_classes",
    "every_second",
    "few_shot",
    "has_test",
    "is_own",
    "load",
    "long_tail",
    "look_alikes",
    "of_classes",
    "omniglot_classes",
    "pasted_digits",
    "photo_crops",
    "read",
    "some",
    "split",
    "swapped_backgrounds",
]
