"""Loops over steps, and the run folders that outlive a process."""

from .fit import Examples, Recipe, fit, log_probabilities
from .loop import Schedule, StepResult, StudentState, TrainState, start, train
from .run_folder import RunFolder, default_path

__all__ = [
    "Examples",
    "Recipe",
    "RunFolder",
    "Schedule",
    "StepResult",
    "StudentState",
    "TrainState",
    "default_path",
    "fit",
    "log_probabilities",
    "start",
    "train",
]
