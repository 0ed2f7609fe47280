"""Few-shot learning: episodes, MAML and its kin, and weights learned for support examples."""

from .episodes import Episode, Episodes, stacked
from .maml import MAML, MetaGradient
from .meta_parameters import RATE, START, TEACHER, part, under

__all__ = [
    "MAML",
    "RATE",
    "START",
    "TEACHER",
    "Episode",
    "Episodes",
    "MetaGradient",
    "part",
    "stacked",
    "under",
]
