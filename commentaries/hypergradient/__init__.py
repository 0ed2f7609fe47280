"""dL_V/dφ: how a change of the commentary changes the trained student's validation loss."""

from .bridge import TorchOptimizer
from .implicit import Implicit, Preconditioner
from .module import backward
from .result import Hypergradient, HypergradientResult
from .self_check import Check, check
from .unrolled import Unrolled

__all__ = [
    "Check",
    "Hypergradient",
    "HypergradientResult",
    "Implicit",
    "Preconditioner",
    "TorchOptimizer",
    "Unrolled",
    "backward",
    "check",
]
