"""The probability of each true label, from votes that leave out the given label and from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 4
SHARPNESS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
FLOOR = 1e-4


@dataclass(frozen=True)
class NoiseModel:
    """q_i(c) ∝ P_i(c)^β · T(y_i | c).

    P are the votes of others, so that the given label is independent evidence. T, how often class
    c is labelled y, is estimated by expectation–maximisation (Dawid and Skene 1979); β, because
    votes are not calibrated, by the likelihood of the given labels. Under 20 % uniform noise a
    given label weighs heavily; under pair-flip or block noise T itself says that it does not.

    Attributes:
        transition: (classes, classes) T, rows sum to one.
        sharpness: β.
    """

    transition: Tensor
    sharpness: float

    @classmethod
    def estimate(cls, votes: Tensor, given: Tensor) -> NoiseModel:
        """Fits T and β.

        Args:
            votes: (n, classes) P, rows sum to one.
            given: (n,) labels.
        """
        model = cls._most_likely(votes / votes.sum(1, keepdim=True), votes, given)
        for _ in range(1, ROUNDS):
            q = model.log_posterior(votes, given).exp()
            model = cls._most_likely(q, votes, given)
        return model

    @classmethod
    def _most_likely(cls, q: Tensor, votes: Tensor, given: Tensor) -> NoiseModel:
        """T and β for some probabilities of the true labels."""
        T = transition(q, given)
        evidence = T[:, given].mT  # (n, classes): T(y_i | c)
        logits = (votes + FLOOR).log()

        def likelihood(beta: float) -> float:
            joint = torch.softmax(beta * logits, dim=1) * evidence
            return float((joint.sum(1) + 1e-12).log().mean())

        return cls(T, max(SHARPNESS, key=likelihood))

    def log_posterior(self, votes: Tensor, given: Tensor) -> Tensor:
        """log q, (n, classes).

        Args:
            votes: (n, classes) P.
            given: (n,) labels.
        """
        evidence = self.transition[:, given].mT.log()
        return torch.log_softmax(self.sharpness * (votes + FLOOR).log() + evidence, dim=1)


def transition(q: Tensor, given: Tensor, smooth: float = 1.0) -> Tensor:
    """T[c, y]: how often an example of class c is labelled y, rows sum to one.

    Args:
        q: (n, classes) probabilities of the true labels.
        given: (n,) labels.
        smooth: Added to each count.
    """
    counts = q.mT @ functional.one_hot(given, q.shape[1]).to(q.dtype) + smooth
    return counts / counts.sum(1, keepdim=True)
