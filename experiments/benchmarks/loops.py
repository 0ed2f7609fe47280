"""A table of mixing ratios by Python loops over the examples, as other code has it.

Both forms are the inner loss of `MixingCoefficients` with `ClassPairs` and no draws, for the same
pairs, written as well as their form allows: labels are read once, a sigmoid and a softmax are
taken of everything at once, and the images go through the student as one batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from commentaries.commentary import MixingCoefficients
from commentaries.commentary.lesson import cross_entropy
from commentaries.commentary.teacher import images
from commentaries.problem import Composed
from commentaries.student import Student
from commentaries.types import Batch, Params


class Pairs(NamedTuple):
    """Ratios (n,), and the labels (n,) of the examples and of their partners."""

    ratios: Tensor
    own: Tensor
    other: Tensor


def looped_ratios(student: Student, mixing: MixingCoefficients) -> Composed:
    """The ratios one example at a time, images and losses as a whole.

    The form of the paper's public code, googleinterns/commentaries (``mixup_data`` in
    third_party/implicit_hyper_opt/train_mixup.py).
    """

    def outputs(theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Pairs]:
        partners = mixing.partners(batch)
        own, other = batch.y, batch.y[partners]
        logits = phi["logits"][0]
        found = [logits[a, b] for a, b in zip(own.tolist(), other.tolist(), strict=True)]
        ratios = _ratio(torch.stack(found), mixing)
        share = ratios.view(-1, 1, 1, 1)
        own_images = images(batch.x)
        x = share * own_images + (1 - share) * own_images[partners]
        return student(theta, x, seed=batch.seed), Pairs(ratios, own, other)

    def loss(z: Tensor, held: Tensor, pairs: Pairs) -> Tensor:
        own, other = cross_entropy(z, pairs.own), cross_entropy(z, pairs.other)
        return (pairs.ratios * own + (1 - pairs.ratios) * other).mean()

    return Composed(outputs, loss)


def looped(student: Student, mixing: MixingCoefficients) -> Composed:
    """Each mixed image and each term of the loss by itself."""

    def outputs(theta: Params, phi: Params, batch: Batch) -> tuple[Tensor, Pairs]:
        partners = mixing.partners(batch)
        own, other = batch.y, batch.y[partners]
        table = [row.unbind() for row in _ratio(phi["logits"][0], mixing).unbind()]
        ratios = [table[a][b] for a, b in zip(own.tolist(), other.tolist(), strict=True)]
        pictures = images(batch.x).unbind()
        mixed = [
            ratio * picture + (1 - ratio) * pictures[partner]
            for ratio, picture, partner in zip(ratios, pictures, partners.tolist(), strict=True)
        ]
        z = student(theta, torch.stack(mixed), seed=batch.seed)
        return z, Pairs(torch.stack(ratios), own, other)

    def loss(z: Tensor, held: Tensor, pairs: Pairs) -> Tensor:
        log_p = torch.log_softmax(z, dim=1).unbind()
        labels = zip(pairs.own.tolist(), pairs.other.tolist(), strict=True)
        terms = [
            -ratio * own[a] - (1 - ratio) * own[b]
            for ratio, own, (a, b) in zip(pairs.ratios.unbind(), log_p, labels, strict=True)
        ]
        return torch.stack(terms).mean()

    return Composed(outputs, loss)


def _ratio(logits: Tensor, mixing: MixingCoefficients) -> Tensor:
    return mixing.low + (mixing.high - mixing.low) * torch.sigmoid(logits)
