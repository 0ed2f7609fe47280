"""How ∇L is taken, and how its derivative is taken."""

from .finite_difference import FiniteDifference
from .gauss_newton import GaussNewton
from .gradient import Curvature
from .hessian import Hessian
from .kept import Kept
from .kfac import KFAC, KroneckerFactors
from .linearised import Linearised, linearise

__all__ = [
    "KFAC",
    "Curvature",
    "FiniteDifference",
    "GaussNewton",
    "Hessian",
    "Kept",
    "KroneckerFactors",
    "Linearised",
    "linearise",
]
