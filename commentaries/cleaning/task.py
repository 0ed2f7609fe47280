"""What there is to clean: many examples with given labels, and a few that are trusted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..data import LabelledImages
from ..errors import BadInput


@dataclass(frozen=True)
class Task:
    """A training set with doubtful labels and a small one with right labels.

    Positions run over the training examples first, 0 to n - 1, then over the trusted ones.

    Attributes:
        train: n examples with their given labels.
        trusted: Examples whose labels are right, at least one of each class.
        truth: (n,) true labels of the training examples where they are known; for scoring only.
        test: Examples with right labels for scoring only.
    """

    train: LabelledImages
    trusted: LabelledImages
    truth: Tensor | None = None
    test: LabelledImages | None = None

    def __post_init__(self) -> None:
        self.train.check_two_classes()
        if self.train.classes != self.trusted.classes:
            raise BadInput(
                f"The training set has the classes {self.train.classes} and the trusted set "
                f"{self.trusted.classes}. Give both the same classes in the same order."
            )
        if self.train.x.shape[1:] != self.trusted.x.shape[1:]:
            raise BadInput(
                f"Training images have the shape {tuple(self.train.x.shape[1:])} and trusted ones "
                f"{tuple(self.trusted.x.shape[1:])}. Resize them to the same shape."
            )
        present = set(self.trusted.y.tolist())
        absent = [name for i, name in enumerate(self.train.classes) if i not in present]
        if absent:
            raise BadInput(
                f"The {len(self.trusted)} trusted examples hold none of class {absent[0]!r} "
                f"({len(absent)} of {self.classes} classes are missing). Add at least one trusted "
                "example of each class."
            )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.train.classes)

    @property
    def size(self) -> int:
        """Number n of training examples, without the trusted ones."""
        return len(self.train)

    @cached_property
    def x(self) -> Tensor:
        """All images, training then trusted."""
        return torch.cat([self.train.x, self.trusted.x])

    @cached_property
    def y(self) -> Tensor:
        """All labels, given then trusted."""
        return torch.cat([self.train.y, self.trusted.y])

    @cached_property
    def is_trusted(self) -> Tensor:
        """(n + trusted,) bool."""
        return torch.arange(len(self.y)) >= self.size

    @property
    def wrong(self) -> Tensor | None:
        """(n,) bool, which given labels are wrong, where the truth is known."""
        return None if self.truth is None else self.train.y != self.truth

    def halves(self, seed: int) -> tuple[Tensor, Tensor]:
        """Two halves of the trusted positions, each class as evenly divided as can be."""
        generator = torch.Generator().manual_seed(seed)
        first = torch.zeros(len(self.trusted), dtype=torch.bool)
        longer = False  # a class of odd size gives its odd example to one half, then to the other
        for label in self.trusted.y.unique():
            own = (self.trusted.y == label).nonzero().flatten()
            own = own[torch.randperm(len(own), generator=generator)]
            first[own[: (len(own) + longer) // 2]] = True
            longer ^= len(own) % 2 == 1
        positions = torch.arange(self.size, len(self.y))
        return positions[first], positions[~first]
