"""dL_V/dφ: how a change of the commentary changes the trained student's validation loss."""

from .implicit import Implicit
from .result import Hypergradient, HypergradientResult
from .unrolled import Unrolled

__all__ = ["Hypergradient", "HypergradientResult", "Implicit", "Unrolled"]
