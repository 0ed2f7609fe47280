"""Learn how to teach a network: commentaries trained by exact hypergradients."""

from .commentary import AttentionMasks, ExampleWeights, Lesson, MixingCoefficients, taught
from .errors import CommentariesError
from .problem import Bilevel, Composed
from .student import Student
from .training import train
from .types import Batch

__all__ = [
    "AttentionMasks",
    "Batch",
    "Bilevel",
    "CommentariesError",
    "Composed",
    "ExampleWeights",
    "Lesson",
    "MixingCoefficients",
    "Student",
    "taught",
    "train",
]
