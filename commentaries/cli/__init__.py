"""The command line: arguments become typed options, and options become calls."""

from .arguments import SMOKE, LearnFewShot, LearnMasks, LearnMixup, LearnWeights, parse
from .commands import main

__all__ = [
    "SMOKE",
    "LearnFewShot",
    "LearnMasks",
    "LearnMixup",
    "LearnWeights",
    "main",
    "parse",
]
