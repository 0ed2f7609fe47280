"""Students and teachers by the names their field gives them."""

from .cbr import cbr
from .small import small_cnn

__all__ = ["cbr", "small_cnn"]
