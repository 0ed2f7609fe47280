"""How well an initialisation adapts: accuracy after each step, over many episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import check_not_negative, check_positive
from ..types import Params
from .episodes import Episode, stacked
from .maml import MAML
from .meta_parameters import TEACHER, part

_NORMAL = 1.96


@dataclass(frozen=True)
class Evaluation:
    """What was measured, all on the CPU in float64.

    Attributes:
        accuracy: (episodes, steps + 1) share of right predictions of the query examples, before
            the first step and after each.
        weights: (episodes, steps, way · shot) weights of the support examples at each step; None
            without a commentary that gives weights.
        wrong: (episodes, way · shot) bool, which support labels were wrong.
    """

    accuracy: Tensor
    weights: Tensor | None
    wrong: Tensor

    @property
    def mean(self) -> Tensor:
        """(steps + 1,) accuracy, averaged over the episodes."""
        return self.accuracy.mean(0)

    @property
    def interval(self) -> Tensor:
        """(steps + 1,) half-width of the 95 % interval of the mean, 1.96 s / √episodes.

        NaN for a single episode.
        """
        return _NORMAL * self.accuracy.std(0) / len(self.accuracy) ** 0.5

    @property
    def clean_weight(self) -> Tensor | None:
        """(steps,) mean weight of support examples with right labels; NaN where there are none."""
        return self._mean_weight(~self.wrong)

    @property
    def wrong_weight(self) -> Tensor | None:
        """(steps,) mean weight of support examples with wrong labels; NaN where there are none."""
        return self._mean_weight(self.wrong)

    def _mean_weight(self, which: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        return (self.weights * which[:, None]).sum((0, 2)) / which.sum()


def evaluate(
    maml: MAML,
    phi: Params,
    episodes: Callable[[int], Episode],
    *,
    count: int = 600,
    first: int = 0,
    steps: int | None = None,
    batched: bool | None = None,
    at_once: int = 16,
) -> Evaluation:
    """Adapts to each of so many episodes and asks for the query examples after every step.

    Args:
        maml: What was trained.
        phi: What it learned.
        episodes: Number -> episode, such as `Episodes` of test classes.
        count: How many episodes.
        first: Number of the first.
        steps: Adaptation steps, in place of the number that was trained with.
        batched: Several episodes at once, or one after another; None as in `MAML.meta_gradient`.
        at_once: How many.
    """
    check_positive("count", count)
    check_positive("at_once", at_once)
    check_not_negative("first", first)
    if batched is None:
        batched = next(iter(phi.values())).device.type != "cpu" and maml.batchable
    size = at_once if batched else 1
    if batched:
        maml.check_batchable()
    accuracy, weights, wrong = [], [], []
    for start in range(first, first + count, size):
        some = [episodes(number) for number in range(start, min(start + size, first + count))]
        episode = stacked(some) if batched else some[0]
        right, given = _one(maml, phi, episode, maml.steps if steps is None else steps)
        accuracy.append(right)
        if given is not None:
            weights.append(given)
        wrong.append(torch.stack([each.wrong for each in some]).cpu())
    return Evaluation(
        torch.cat(accuracy), torch.cat(weights) if weights else None, torch.cat(wrong)
    )


@torch.no_grad()
def _one(maml: MAML, phi: Params, episode: Episode, steps: int) -> tuple[Tensor, Tensor | None]:
    """(tasks, steps + 1) accuracies and (tasks, steps, way · shot) weights."""
    task = maml.task(episode)
    teacher = part(phi, TEACHER)
    batches = maml.support(episode, steps)
    right, given = [], []
    for k, theta in enumerate(maml.adapt(phi, episode, steps=steps)):
        found = task.outputs(theta, episode.query).argmax(-1) == episode.query.y
        right.append(found.double().mean(-1).reshape(-1).cpu())
        if k < steps and (weight := task.weights(theta, teacher, batches[k])) is not None:
            given.append(weight.double().reshape(len(right[-1]), -1).cpu())
    return torch.stack(right, 1), torch.stack(given, 1) if given else None
