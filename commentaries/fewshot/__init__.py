"""Few-shot learning: episodes, MAML and its kin, and weights learned for support examples."""

from .episodes import Episode, Episodes, stacked
from .evaluate import Evaluation, evaluate
from .loop import MetaState, MetaStep, meta_train, start
from .maml import MAML, MetaGradient
from .mean_weights import MeanWeights
from .meta_parameters import RATE, START, TEACHER, part, under
from .outer import FasterCommentary
from .support_losses import SupportLosses
from .support_network import SupportNetwork

__all__ = [
    "MAML",
    "RATE",
    "START",
    "TEACHER",
    "Episode",
    "Episodes",
    "Evaluation",
    "FasterCommentary",
    "MeanWeights",
    "MetaGradient",
    "MetaState",
    "MetaStep",
    "SupportLosses",
    "SupportNetwork",
    "evaluate",
    "meta_train",
    "part",
    "stacked",
    "start",
    "under",
]
