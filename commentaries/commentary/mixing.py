"""Mixing coefficients: in what ratio two training examples are blended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BadInput, check_positive
from ..types import Batch, Inputs, Params
from .beta import LEAST_CONCENTRATION, beta
from .lesson import Lesson
from .pairs import ClassPairs, PairScore, label_shares


@dataclass(frozen=True)
class MixingCoefficients:
    """A commentary that blends each example with another one of its batch, in a learned ratio.

    x = λ x₁ + (1 - λ) x₂ and y = λ y₁ + (1 - λ) y₂, so that the cross-entropy is
    λ CE(y₁) + (1 - λ) CE(y₂) (Raghu et al. 2021, section 4). λ lies between ``low`` and ``high``,
    in the middle before anything is learned. The paper writes λ = 1 - ½ sigmoid(raw): here the
    logit is -raw.

    Standard mixup (Zhang et al. 2018) is ``low=0, high=1, concentration=2 * alpha`` with zero
    logits. Every example has its own draw; their public code draws one ratio for a batch.

    A batch is mixed within itself: some rows of a batch have other partners than in the whole.
    An example may be its own partner, and is then left as it is.

    Attributes:
        score: Where the logits come from: `ClassPairs`, `PairNetwork`, or any callable of the
            same shape.
        classes: Number of classes of the labels.
        low: The least ratio, in [0, 1).
        high: The greatest, in (low, 1].
        concentration: None: λ = low + (high - low) m with m = sigmoid(logit). A number κ: in place
            of m a draw from Beta(κm, κ(1 - m)), which has the mean m and the variance
            m(1 - m) / (κ + 1); see `beta.beta` for its derivative.
    """

    score: PairScore
    classes: int
    low: float = 0.5
    high: float = 1.0
    concentration: float | None = None

    def __post_init__(self) -> None:
        check_positive("classes", self.classes)
        if isinstance(self.score, ClassPairs) and self.score.classes != self.classes:
            raise BadInput(
                f"The table is for {self.score.classes} classes, but classes is {self.classes}. "
                "Give both the data's own number of classes."
            )
        if not 0 <= self.low < self.high <= 1:
            raise BadInput(
                f"The ratios run from low = {self.low} to high = {self.high}, but must run upwards "
                "within 0 and 1. Choose 0.5 and 1 as in the paper, or 0 and 1."
            )
        if self.concentration is not None:
            check_positive("concentration", self.concentration)
            if self.concentration < LEAST_CONCENTRATION:
                raise BadInput(
                    f"concentration is {self.concentration}, where nearly every draw is 0 or 1 to "
                    f"double precision. Choose at least {LEAST_CONCENTRATION}, or None to draw "
                    "nothing."
                )

    def init(self, generator: torch.Generator) -> Params:
        """The score's own initial φ."""
        return self.score.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Lesson:
        """The mixed inputs, and soft labels (n, classes) mixed alike.

        Raises:
            BadInput: The labels are not of these classes, or no input is of a floating dtype.
        """
        partners, seed = self._drawn(batch)
        ratios = self._ratios(self.score(phi, batch, partners), seed)
        target = label_shares(batch.y, self.classes).to(ratios)
        return Lesson(_mix_inputs(batch.x, partners, ratios), _mix(target, partners, ratios))

    def partners(self, batch: Batch) -> Tensor:
        """(n,) int64, with which position of the batch each example is mixed.

        A permutation drawn from ``batch.seed`` alone, on the CPU: it is the same in every
        recomputation and on every device.
        """
        return self._drawn(batch)[0]

    def ratios(self, phi: Params, batch: Batch) -> Tensor:
        """(n,) λ, the share of the example itself, with the batch's own draws."""
        partners, seed = self._drawn(batch)
        return self._ratios(self.score(phi, batch, partners), seed)

    def means(self, phi: Params, batch: Batch) -> Tensor:
        """(n,) mean of λ, before anything is drawn."""
        logits = self.score(phi, batch, self.partners(batch))
        return self.low + (self.high - self.low) * torch.sigmoid(logits)

    def _drawn(self, batch: Batch) -> tuple[Tensor, int]:
        """The partners, and a seed for the ratios."""
        generator = torch.Generator().manual_seed(batch.seed)
        partners = torch.randperm(batch.size, generator=generator).to(batch.y.device)
        return partners, int(torch.randint(2**62, (), generator=generator))

    def _ratios(self, logits: Tensor, seed: int) -> Tensor:
        if self.concentration is None:
            shares = torch.sigmoid(logits)
        else:
            shares = beta(logits, self.concentration, seed)
        return self.low + (self.high - self.low) * shares


def _mix(values: Tensor, partners: Tensor, ratios: Tensor) -> Tensor:
    """λ v₁ + (1 - λ) v₂ over the rows."""
    share = ratios.to(values).reshape(-1, *[1] * (values.dim() - 1))
    return values[partners].lerp(values, share)


def _mix_inputs(x: Inputs, partners: Tensor, ratios: Tensor) -> Inputs:
    """Every input of a floating dtype mixed; other inputs stay the example's own."""
    named = x if isinstance(x, dict) else {"x": x}
    mixed = {
        name: _mix(value, partners, ratios) if value.is_floating_point() else value
        for name, value in named.items()
    }
    if not any(value.is_floating_point() for value in named.values()):
        dtypes = ", ".join(f"{name}: {value.dtype}" for name, value in named.items())
        raise BadInput(
            f"No input is of a floating dtype ({dtypes}), so nothing can be mixed. Scale images "
            "to floats first."
        )
    return mixed if isinstance(x, dict) else mixed["x"]
