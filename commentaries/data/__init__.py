"""Data sets by name, splits, and label noise with its convention in each docstring."""

from .images import LabelledImages, load
from .noise import NOISES, corrupt
from .split import Splits, split

__all__ = ["NOISES", "LabelledImages", "Splits", "corrupt", "load", "split"]
