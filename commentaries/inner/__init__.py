"""How the student steps: optimisers that are pure functions of their state, differentiable."""

from .adam import Adam
from .optimizer import InnerOptimizer, step
from .sgd import SGD

__all__ = ["SGD", "Adam", "InnerOptimizer", "step"]
