"""A x = b from products v -> A v alone."""

from .conjugate_gradient import ConjugateGradient
from .dense import Dense
from .identity import Identity
from .neumann import Neumann
from .solver import LinearSolver, Solution

__all__ = ["ConjugateGradient", "Dense", "Identity", "LinearSolver", "Neumann", "Solution"]
