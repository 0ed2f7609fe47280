"""How ∇L is taken, and how its derivative is taken."""

from .finite_difference import FiniteDifference
from .gauss_newton import GaussNewton
from .gradient import Curvature
from .hessian import Hessian
from .linearised import Linearised, linearise

__all__ = [
    "Curvature",
    "FiniteDifference",
    "GaussNewton",
    "Hessian",
    "Linearised",
    "linearise",
]
