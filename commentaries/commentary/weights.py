"""Example weights: how much each training example counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import BadInput, check_fraction
from ..types import Batch, Params
from .lesson import Lesson
from .scores import Score, rows_of

Normalise = Literal["sum", "softmax", "none"]


@dataclass(frozen=True)
class ExampleWeights:
    """A commentary that weighs each example by the sigmoid of its score.

    Without normalisation the mean weight also sets the student's learning rate, which confounds
    what is learned about examples with how fast the student learns.

    Attributes:
        score: Where the logits come from: `Table`, `LossNetwork`, `ImageNetwork`, `CueNetwork`,
            or any callable of the same shape.
        normalise: "sum": weights are divided by their sum over the batch. "softmax": the logits
            go through a softmax over the batch. "none": the mean of wℓ, as in the paper.
        trusted: (N,) bool, examples whose weight is not learned; None for none.
        share: Share of the loss, in [0, 1), that the trusted examples of a batch have together.
    """

    score: Score
    normalise: Normalise = "sum"
    trusted: Tensor | None = None
    share: float = 0.25

    def __post_init__(self) -> None:
        if self.normalise not in get_args(Normalise):
            raise BadInput(
                f"normalise is {self.normalise!r}. Choose one of {', '.join(get_args(Normalise))}."
            )
        check_fraction("share", self.share)
        if self.trusted is not None and self.trusted.dtype != torch.bool:
            raise BadInput(
                f"trusted has dtype {self.trusted.dtype}, but must be one bool for each example of "
                "the data set. Build it with torch.isin(torch.arange(N), positions)."
            )

    def init(self, generator: torch.Generator) -> Params:
        """The score's own initial φ."""
        return self.score.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Lesson:
        """The batch itself, with weights whose mean multiplies the loss (see `Lesson`)."""
        logits = self.score(phi, batch)
        if isinstance(logits, Tensor):
            return Lesson(batch.x, batch.y, self._normalised(logits, batch))
        from_losses = logits
        return Lesson(batch.x, batch.y, lambda losses: self._normalised(from_losses(losses), batch))

    def raw(self, phi: Params, batch: Batch, losses: Tensor | None = None) -> Tensor:
        """Weights in (0, 1) before normalisation, (n,).

        Args:
            phi: The commentary's parameters.
            batch: The examples.
            losses: (n,) present losses, for a score that is a function of them.
        """
        logits = self.score(phi, batch)
        if isinstance(logits, Tensor):
            return torch.sigmoid(logits)
        if losses is None:
            raise BadInput("This score is a function of the losses. Pass losses of shape (n,).")
        return torch.sigmoid(logits(losses))

    def _normalised(self, logits: Tensor, batch: Batch) -> Tensor:
        """n times each example's share of the loss; (n,)."""
        n = batch.size
        fixed = self._fixed(batch).to(logits.device)
        if self.normalise == "softmax":
            shares = torch.softmax(logits.masked_fill(fixed, -torch.inf), dim=0)
        else:
            weights = torch.sigmoid(logits) * ~fixed
            total = weights.sum() if self.normalise == "sum" else (~fixed).sum()
            shares = weights / total
        count = int(fixed.sum())
        if not count:
            return n * shares
        if count == n:
            return torch.ones_like(shares)
        return n * ((1 - self.share) * shares + self.share * fixed / count)

    def _fixed(self, batch: Batch) -> Tensor:
        if self.trusted is None:
            return torch.zeros(batch.size, dtype=torch.bool, device=batch.index.device)
        return rows_of(self.trusted, batch.index)


def effective_sample_size(weights: Tensor) -> Tensor:
    """(Σw)² / Σw²: how many equally weighted examples carry as much (Kish 1965); a scalar."""
    return weights.sum().square() / weights.square().sum().clamp_min(torch.finfo().tiny)
