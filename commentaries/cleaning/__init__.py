"""The main job: learn which labels to trust, train a better student, name the wrong labels."""

from .task import Task

__all__ = ["Task"]
