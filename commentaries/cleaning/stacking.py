"""Several opinions on each label made one, as the trusted examples teach (Wolpert 1992)."""

from __future__ import annotations

from collections.abc import Sequence
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


def stacked(opinions: Sequence[Tensor], label: Tensor) -> Tensor:
    """One opinion on training and on trusted examples, none by a stack that saw its label.

    Args:
        opinions: Each (n + t, classes), the trusted examples last.
        label: (t,) labels of the trusted examples.

    Returns:
        (n + t, classes) shares.
    """
    found = torch.stack(list(opinions))
    n = found.shape[1] - len(label)
    whole = Stack.fit(found[:, n:], label)(found[:, :n])
    held_out = torch.empty(len(label), found.shape[2])
    fold = torch.arange(len(label)) % FOLDS
    for k in range(min(FOLDS, len(label))):
        seen = fold != k
        held_out[~seen] = Stack.fit(found[:, n:][:, seen], label[seen])(found[:, n:][:, ~seen])
    return torch.cat([whole, held_out])


def _logits(logs: Tensor, scale: Tensor, mixing: Tensor) -> Tensor:
    logs = logs - logs.mean(2, keepdim=True)
    return torch.einsum("v,vnc->nc", scale, logs) + torch.einsum("vnc,vcd->nd", logs, mixing)
