"""Few-shot episodes: a few labelled examples to adapt to, and others to be judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BadInput, check_fraction, check_positive
from ..types import Batch, Inputs

_TURNS = 4


class Episode(NamedTuple):
    """One task: examples of `way` classes, numbered 0 to way - 1 in an order drawn anew.

    Attributes:
        support: (way · shot, ...) examples to adapt to, class by class; its labels are those the
            student is shown, some of them wrong where that was asked for.
        query: (way · query, ...) other examples of the same classes, always with right labels.
        truth: (way · shot,) right labels of the support examples.
        classes: (way,) which class each number stands for: its label in the data set, plus
            (1 + the largest label) for each quarter turn.
    """

    support: Batch
    query: Batch
    truth: Tensor
    classes: Tensor

    @property
    def wrong(self) -> Tensor:
        """(way · shot,) bool, which support examples have a wrong label."""
        return self.support.y != self.truth


class Episodes:
    """N-way K-shot episodes of a labelled set; episode i depends on the seed and i alone.

    Support and query examples of an episode are different rows of the data set. The images stay
    on the device when they take less than half of its free memory; else each episode is moved.

    Args:
        x: (n, channels, height, width) images, or a sequence of n such images of one size.
        y: (n,) whole numbers, of any range; or a sequence of them.
        way: Classes of an episode.
        shot: Support examples of each class.
        query: Query examples of each class.
        wrong: Share of the support labels, in [0, 1), that are replaced by another of the
            episode's labels: exactly round(wrong · way · shot) of them. Or the least and the
            greatest share, between which each episode draws how many.
        rotations: Whether each class turned by 90, 180 and 270 degrees is a class of its own, as
            is usual for Omniglot (Vinyals et al. 2016).
        seed: Of all episodes.
        device: Where episodes are put; where x is by default.

    Raises:
        BadInput: More ways than classes, too few examples of a class, images of unequal size,
            labels that are not whole numbers, or turns of images that are not square.
    """

    def __init__(
        self,
        x: Tensor | Sequence[Tensor],
        y: Tensor | Sequence[int],
        *,
        way: int,
        shot: int,
        query: int = 15,
        wrong: float | tuple[float, float] = 0.0,
        rotations: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
    ):
        for name, value in (("way", way), ("shot", shot), ("query", query)):
            check_positive(name, value)
        least, most = wrong if isinstance(wrong, tuple) else (wrong, wrong)
        for share in (least, most):
            check_fraction("wrong", share)
        if least > most:
            raise BadInput(f"wrong is from {least} to {most}. Give the least share first.")
        if way < 2:
            raise BadInput("way is 1, so there is nothing to tell apart. Ask for at least 2 ways.")
        images = _stacked(x)
        labels = _whole(y, len(images))
        if rotations and (images.dim() < 4 or images.shape[-1] != images.shape[-2]):
            raise BadInput(
                f"Images of shape {tuple(images.shape[1:])} cannot be turned. Give square images "
                "(channels, side, side), or leave rotations out."
            )
        self.way, self.shot, self.query = way, shot, query
        self._wrong = round(least * way * shot), round(most * way * shot)
        self._turns = _TURNS if rotations else 1
        self._seed = seed
        self._labels = labels.unique().tolist()
        self._rows = [(labels == label).nonzero().flatten() for label in self._labels]
        self._check_counts()
        self._device = images.device if device is None else torch.device(device)
        self._x = images.to(self._device) if _fits(images, self._device) else images

    @property
    def classes(self) -> int:
        """How many classes episodes are drawn from, turned ones included."""
        return len(self._rows) * self._turns

    def __call__(self, number: int) -> Episode:
        """The episode of a number."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        drawn = torch.randperm(self.classes, generator=generator)[: self.way].tolist()
        places = [divmod(each, len(self._rows)) for each in drawn]  # turns, class
        rows = []
        for _, place in places:
            own = self._rows[place]
            picked = torch.randperm(len(own), generator=generator)[: self.shot + self.query]
            rows.append(own[picked])
        support_rows = torch.cat([each[: self.shot] for each in rows])
        query_rows = torch.cat([each[self.shot :] for each in rows])
        numbers = torch.arange(self.way)
        truth = numbers.repeat_interleave(self.shot)
        given = truth.clone()
        least, count = self._wrong
        if least < count:
            count = int(torch.randint(least, count + 1, (), generator=generator))
        chosen = torch.randperm(len(truth), generator=generator)[:count]
        shift = torch.randint(1, self.way, chosen.shape, generator=generator)
        given[chosen] = (truth[chosen] + shift) % self.way
        seed = int(torch.randint(2**31, (), generator=generator))
        turns = [each for each, _ in places]
        span = self._labels[-1] + 1
        names = [turn * span + self._labels[place] for turn, place in places]
        return Episode(
            self._batch(support_rows, given, turns, seed),
            self._batch(query_rows, numbers.repeat_interleave(self.query), turns, seed),
            truth.to(self._device),
            torch.tensor(names, device=self._device),
        )

    def _batch(self, rows: Tensor, y: Tensor, turns: list[int], seed: int) -> Batch:
        x = self._x[rows.to(self._x.device)].to(self._device)
        if any(turns):
            each = len(rows) // self.way
            x = torch.cat(
                [
                    torch.rot90(part, turn, (-2, -1))
                    for part, turn in zip(x.split(each), turns, strict=True)
                ]
            )
        return Batch(x, y.to(self._device), rows.to(self._device), seed=seed)

    def _check_counts(self) -> None:
        if self.way > self.classes:
            raise BadInput(
                f"way is {self.way}, but there are {self.classes} classes. Ask for at most "
                f"{self.classes} ways, or give more classes."
            )
        few = min(range(len(self._rows)), key=lambda place: len(self._rows[place]))
        least, label = len(self._rows[few]), self._labels[few]
        if least == 1:
            raise BadInput(
                f"Class {label} has a single example, which cannot be both support and query. Add "
                "examples of it, or leave the class out."
            )
        if self.shot + self.query > least:
            raise BadInput(
                f"{self.shot} support and {self.query} query examples of each class are asked for, "
                f"and class {label} has {least}. Ask for at most {least} together, or leave out "
                "classes with fewer."
            )


def stacked(episodes: Sequence[Episode]) -> Episode:
    """Several episodes as one, with a first dimension more: (tasks, examples, ...).

    The seeds are those of the first.

    Raises:
        BadInput: None at all, or episodes of unequal sizes.
    """
    if not episodes:
        raise BadInput("There are no episodes. Give at least one.")
    sizes = {(each.support.size, each.query.size) for each in episodes}
    if len(sizes) > 1:
        raise BadInput(
            f"Episodes of {len(sizes)} different sizes cannot be adapted to at once. Give episodes "
            "with the same number of examples, or choose batched=False."
        )

    def together(batches: list[Batch]) -> Batch:
        joint = _together([each.x for each in batches])
        return batches[0]._replace(
            x=joint,
            y=torch.stack([each.y for each in batches]),
            index=torch.stack([each.index for each in batches]),
        )

    return Episode(
        together([each.support for each in episodes]),
        together([each.query for each in episodes]),
        torch.stack([each.truth for each in episodes]),
        torch.stack([each.classes for each in episodes]),
    )


def _together(inputs: list[Inputs]) -> Inputs:
    first = inputs[0]
    if isinstance(first, dict):
        return {
            name: torch.stack([each[name] for each in inputs if isinstance(each, dict)])
            for name in first
        }
    return torch.stack([each for each in inputs if isinstance(each, Tensor)])


def _stacked(x: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(x, Tensor):
        return x
    shapes = {tuple(each.shape): row for row, each in reversed(list(enumerate(x)))}
    if len(shapes) > 1:
        (first, _), (other, row) = sorted(shapes.items(), key=lambda item: item[1])[:2]
        raise BadInput(
            f"The images have unequal sizes: {first} at position 0 and {other} at position {row}. "
            "Resize them to one size."
        )
    if not shapes:
        raise BadInput("There are no images. Give at least two of each class.")
    return torch.stack(list(x))


def _whole(y: Tensor | Sequence[int], n: int) -> Tensor:
    """(n,) int64 on the CPU, where episodes are drawn."""
    labels = torch.as_tensor(y).cpu()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadInput(
            f"The labels have the type {labels.dtype}. Give whole numbers, one for each class."
        )
    if labels.shape != (n,):
        raise BadInput(
            f"{n} images and labels of shape {tuple(labels.shape)} do not fit. Give one label for "
            "each image, (n,)."
        )
    return labels.to(torch.int64)


def _fits(x: Tensor, device: torch.device) -> bool:
    if device.type != "cuda" or x.device.type == "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return x.numel() * x.element_size() < free / 2
