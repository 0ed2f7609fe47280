"""Data sets by name and from a user's disk, splits, label noise and imbalance."""

from .images import LabelledImages
from .imbalance import long_tail
from .look_alikes import look_alikes
from .named import NAMES, default_root, has_test, load
from .noise import NOISES, corrupt
from .own import is_own, read
from .pictures import Preparation
from .split import Splits, split

__all__ = [
    "NAMES",
    "NOISES",
    "LabelledImages",
    "Preparation",
    "Splits",
    "corrupt",
    "default_root",
    "has_test",
    "is_own",
    "load",
    "long_tail",
    "look_alikes",
    "read",
    "split",
]
