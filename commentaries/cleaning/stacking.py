"""Several opinions on each label made one, as the trusted examples teach (Wolpert 1992)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-4
"""Added to shares before their logarithm."""

SCALE_PRIOR, MIXING_PRIOR = 1.0, 10.0
"""Strength of the priors of a and B: factors of their squares beside the sum of losses."""

FOLDS = 5


@dataclass(frozen=True)
class Stack:
    """log p(c) ∝ Σ_v a_v log s_v(c) + Σ_v (log s_v B_v)(c), of opinions s_v.

    a scales each opinion; B, which a prior keeps near zero, undoes what an opinion mixes up, as
    the labels of its class and of the next where those are often exchanged.

    Attributes:
        scale: (opinions,) a.
        mixing: (opinions, classes, classes) B.
    """

    scale: Tensor
    mixing: Tensor

    @classmethod
    def fit(cls, opinions: Tensor, label: Tensor) -> Stack:
        """Logistic regression with a prior at the first opinion alone, as it is.

        Args:
            opinions: (opinions, t, classes) shares at examples whose labels they have not seen;
                first the one to rely on where few examples can teach.
            label: (t,) right labels.
        """
        count, t, classes = opinions.shape
        logs = (opinions + FLOOR).log()
        start = torch.eye(count)[0]
        scale = start.clone().requires_grad_()
        mixing = torch.zeros(count, classes, classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([scale, mixing], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.cross_entropy(_logits(logs, scale, mixing), label)
            prior = SCALE_PRIOR * (scale - start).square().sum()
            prior = prior + MIXING_PRIOR * mixing.square().sum()
            value = loss + prior / t
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(closure)
        return cls(scale.detach(), mixing.detach())

    def __call__(self, opinions: Tensor) -> Tensor:
        """(opinions, m, classes) shares -> (m, classes) shares."""
        logits = _logits((opinions + FLOOR).log(), self.scale, self.mixing)
        return functional.softmax(logits, dim=1)


def at_training(opinions: Tensor, label: Tensor) -> Tensor:
    """One opinion on the training examples, (n, classes) shares.

    Args:
        opinions: (opinions, n + t, classes) shares, the trusted examples last.
        label: (t,) labels of the trusted examples.
    """
    n = opinions.shape[1] - len(label)
    return Stack.fit(opinions[:, n:], label)(opinions[:, :n])


def at_trusted(opinions: Tensor, label: Tensor) -> Tensor:
    """One opinion on the trusted examples, each by a stack that has not seen it, (t, classes).

    Args:
        opinions: As in `at_training`.
        label: (t,) labels of the trusted examples.
    """
    own = opinions[:, -len(label) :]
    found = torch.empty(own.shape[1:])
    fold = torch.arange(len(label)) % FOLDS
    for k in range(min(FOLDS, len(label))):
        seen = fold != k
        found[~seen] = Stack.fit(own[:, seen], label[seen])(own[:, ~seen])
    return found


def _logits(logs: Tensor, scale: Tensor, mixing: Tensor) -> Tensor:
    logs = logs - logs.mean(2, keepdim=True)
    return torch.einsum("v,vnc->nc", scale, logs) + torch.einsum("vnc,vcd->nd", logs, mixing)
