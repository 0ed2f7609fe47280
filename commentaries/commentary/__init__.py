"""What a teacher says: a map from a batch to the lesson that the student is shown."""

from .lesson import Commentary, Lesson, judged, taught
from .scores import CueNetwork, ImageNetwork, LossNetwork, Score, Table
from .weights import ExampleWeights, effective_sample_size

__all__ = [
    "Commentary",
    "CueNetwork",
    "ExampleWeights",
    "ImageNetwork",
    "Lesson",
    "LossNetwork",
    "Score",
    "Table",
    "effective_sample_size",
    "judged",
    "taught",
]
