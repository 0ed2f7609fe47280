"""Labels spread over the graph of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import BadInput, check_fraction, check_positive

EXACT = 2_500
"""Examples up to which the diagonal of G is computed exactly."""


@dataclass(frozen=True)
class NeighbourGraph:
    """How much a label at one example says about another: G = (I - α S)^-1, S = D^-½ W D^-½.

    W joins each example to its nearest neighbours, symmetrised, with the locally scaled weight
    exp(-d²_ij / s_i s_j), s the distance to the last neighbour (Zelnik-Manor and Perona 2004).
    G sums walks of every length (Zhou et al. 2004, learning with local and global consistency).
    Only S is kept, (m, m) and sparse: products with G are linear systems, solved by conjugate
    gradients to 1e-5.

    Attributes:
        step: S, a `scipy.sparse.csr_array`.
        alpha: How far labels travel, in (0, 1).
        own: (m,) the diagonal of G: what an example's label says about itself; exact for at most
            2,500 examples, see `_own_influence`.
    """

    step: Any
    alpha: float
    own: Tensor

    @classmethod
    def build(cls, x: Tensor, *, neighbours: int = 10, alpha: float = 0.9) -> NeighbourGraph:
        """The graph of m examples.

        Args:
            x: (m, ...) on the CPU, compared by Euclidean distance.
            neighbours: Of each example.
            alpha: How far labels travel, in (0, 1).

        Raises:
            BadInput: Not more examples than neighbours, or α out of range.
        """
        from scipy.sparse import csr_array
        from sklearn.neighbors import kneighbors_graph

        check_positive("neighbours", neighbours)
        check_fraction("alpha", alpha)
        m = len(x)
        if m <= neighbours:
            raise BadInput(
                f"A graph of {m} examples with {neighbours} neighbours each cannot be built. Give "
                f"more than {neighbours} examples."
            )
        near: Any = csr_array(kneighbors_graph(x.flatten(1).numpy(), neighbours, mode="distance"))
        distance = near.data.reshape(m, neighbours).astype(np.float64)
        scale = distance.max(1).clip(1e-6)
        towards = scale[near.indices].reshape(m, neighbours)
        # The floor keeps an example joined whose neighbours are far denser than it is.
        joined = np.exp(-(distance**2) / (scale[:, None] * towards)).clip(1e-6)
        W: Any = csr_array((joined.ravel(), near.indices, near.indptr), shape=(m, m))
        W = W.maximum(W.T)
        root = 1 / np.sqrt(W.sum(axis=1))
        step = csr_array(W.multiply(root[:, None]).multiply(root[None, :]))
        return cls(step, alpha, torch.from_numpy(_own_influence(step, alpha)).float())

    def spread(self, mass: Tensor) -> Tensor:
        """Class shares at every node, the classes made equally strong; rows sum to one.

        Args:
            mass: (m, classes), how much of each label there is at each node.
        """
        reached = self._influence(mass)
        return _shares(reached / reached.sum(0).clamp_min(1e-12))

    def votes_of_others(self, mass: Tensor) -> Tensor:
        """As `spread`, each node without its own mass (above 2,500 examples, nearly).

        Args:
            mass: (m, classes).
        """
        left = mass.sum(0) - mass
        reached = self._influence(mass) - self.own[:, None] * mass
        return _shares(reached.clamp_min(0) / left.clamp_min(1e-6))

    def _influence(self, mass: Tensor) -> Tensor:
        """G mass."""
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import cg

        system = eye_array(len(mass), format="csr") - self.alpha * self.step
        columns = [cg(system, b, rtol=1e-5)[0] for b in mass.double().numpy().T]
        return torch.from_numpy(np.stack(columns, axis=1)).float()


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


def _own_influence(step: Any, alpha: float) -> np.ndarray:
    """The diagonal of G: of an inverse, or above 2,500 examples from returning walks."""
    if step.shape[0] <= EXACT:
        return np.linalg.inv(np.eye(step.shape[0]) - alpha * step.toarray()).diagonal().copy()
    return _returning_walks(step, alpha)


def _returning_walks(step: Any, alpha: float) -> np.ndarray:
    """The diagonal of G from walks that return within four steps, and longer ones in proportion.

    (S^k)_ii is exact up to k = 4; beyond, it is taken to shrink by (S⁴)_ii / (S²)_ii every two
    steps, which is exact for two examples that have only each other.
    """
    square = step @ step
    two, four = step.power(2).sum(axis=1), square.power(2).sum(axis=1)
    three = square.multiply(step).sum(axis=1)
    ratio = np.minimum(four / two.clip(1e-12), 1)
    returning = alpha**2 * two + alpha**3 * three
    longer = (alpha**4 * four + alpha**5 * ratio * three) / (1 - alpha**2 * ratio)
    return 1 + returning + longer


def _shares(scores: Tensor) -> Tensor:
    return scores / scores.sum(1, keepdim=True).clamp_min(1e-12)
