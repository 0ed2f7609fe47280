"""A x = b from products v -> A v alone."""

from .conjugate_gradient import ConjugateGradient
from .dense import Dense
from .identity import Identity
from .neumann import Neumann
from .nystrom import Nystrom
from .power import LargestEigenvalue, largest_eigenvalue
from .preconditioned import Preconditioned
from .solver import LinearSolver, Solution

__all__ = [
    "ConjugateGradient",
    "Dense",
    "Identity",
    "LargestEigenvalue",
    "LinearSolver",
    "Neumann",
    "Nystrom",
    "Preconditioned",
    "Solution",
    "largest_eigenvalue",
]
