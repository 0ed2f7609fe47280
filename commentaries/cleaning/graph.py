"""Labels spread over the graph of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import BadInput

LIMIT = 15_000
"""The largest graph whose inverse is formed: 15,000 nodes take 1.8 GB."""


@dataclass(frozen=True)
class NeighbourGraph:
    """How much a label at one example says about another: G = (I - α D^-½ W D^-½)^-1.

    W joins each example to its nearest neighbours, symmetrised, with the locally scaled weight
    exp(-d²_ij / s_i s_j), s the distance to the last neighbour (Zelnik-Manor and Perona 2004).
    G sums walks of every length (Zhou et al. 2004, learning with local and global consistency).

    Attributes:
        influence: (m, m) G.
    """

    influence: Tensor

    @classmethod
    def build(cls, x: Tensor, *, neighbours: int = 5, alpha: float = 0.99) -> NeighbourGraph:
        """The graph of m examples.

        Args:
            x: (m, ...) inputs, compared by Euclidean distance.
            neighbours: Of each example.
            alpha: How far labels travel, in (0, 1).

        Raises:
            BadInput: Fewer examples than neighbours, or more than `LIMIT`.
        """
        m = len(x)
        if not neighbours < m <= LIMIT:
            raise BadInput(
                f"A graph of {m} examples with {neighbours} neighbours each cannot be built. Give "
                f"more than {neighbours} and at most {LIMIT} examples."
            )
        flat = x.flatten(1).double()
        square = torch.cdist(flat, flat).square().fill_diagonal_(torch.inf)
        near, index = square.topk(neighbours, dim=1, largest=False)
        scale = near[:, -1].clamp_min(1e-12).sqrt()
        # The floor keeps an example joined whose neighbours are far denser than it is.
        joined = torch.exp(-near / (scale[:, None] * scale[index])).clamp_min(1e-6)
        W = torch.zeros(m, m, dtype=torch.float64).scatter_(1, index, joined)
        W = torch.maximum(W, W.mT)
        root = W.sum(1).rsqrt()
        system = torch.eye(m, dtype=torch.float64) - alpha * root[:, None] * W * root
        return cls(torch.linalg.inv(system).float())

    def spread(self, mass: Tensor) -> Tensor:
        """Class shares at every node, the classes made equally strong; rows sum to one.

        Args:
            mass: (m, classes), how much of each label there is at each node.
        """
        reached = self.influence @ mass
        return _shares(reached / reached.sum(0).clamp_min(1e-12))

    def votes_of_others(self, mass: Tensor) -> Tensor:
        """As `spread`, each node without its own mass.

        Args:
            mass: (m, classes).
        """
        own = self.influence.diagonal()[:, None] * mass
        left = mass.sum(0) - mass
        return _shares((self.influence @ mass - own).clamp_min(0) / left.clamp_min(1e-6))


def weighted_labels(
    given: Tensor, weight: Tensor, trusted: Tensor, classes: int, trusted_share: float
) -> Tensor:
    """Label mass at training nodes, then at trusted ones, (n + trusted, classes).

    Args:
        given: (n,) labels.
        weight: (n,) mass of each given label.
        trusted: (t,) trusted labels.
        classes: Number of classes.
        trusted_share: Share of the whole mass that the trusted labels have together.
    """
    each = trusted_share / (1 - trusted_share) * weight.sum() / len(trusted)
    return torch.cat(
        [
            functional.one_hot(given, classes) * weight[:, None],
            functional.one_hot(trusted, classes) * each,
        ]
    )


def _shares(scores: Tensor) -> Tensor:
    return scores / scores.sum(1, keepdim=True).clamp_min(1e-12)
