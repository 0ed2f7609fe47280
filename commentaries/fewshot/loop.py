"""Meta-training: task after task moves φ, and nothing is written or printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from .. import params as p
from .. import tree
from ..errors import check_positive
from ..inner import InnerOptimizer
from ..types import Params
from .episodes import Episode
from .maml import MAML, MetaGradient


class MetaState(NamedTuple):
    """All that a meta-step depends on; tensors and numbers only, so that it can be saved.

    Attributes:
        step: Meta-steps taken.
        phi: What is learned: initialisation, rates, commentary.
        outer: State of the outer optimiser.
    """

    step: int
    phi: Params
    outer: Any


class MetaStep(NamedTuple):
    """One meta-step.

    Attributes:
        state: After the step.
        gradient: The meta-gradient that was taken, with the query loss before the step.
    """

    state: MetaState
    gradient: MetaGradient


def start(
    maml: MAML,
    outer_optimizer: InnerOptimizer[Any],
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> MetaState:
    """The state before the first meta-step.

    Args:
        maml: What is trained.
        outer_optimizer: Moves φ, for example ``inner.Adam(1e-3)``.
        seed: Of φ.
        device: Where φ is put; where it was drawn by default. The episodes must be there too.
    """
    phi = p.detach(maml.init(torch.Generator().manual_seed(seed)))
    if device is not None:
        phi = tree.map_tensors(lambda value: value.to(device), phi)
    return MetaState(0, phi, outer_optimizer.init(phi))


def meta_train(
    maml: MAML,
    state: MetaState,
    *,
    outer_optimizer: InnerOptimizer[Any],
    episodes: Callable[[int], Episode],
    steps: int,
    tasks: int = 4,
    batched: bool | None = None,
) -> Iterator[MetaStep]:
    """Trains until so many meta-steps are taken; yields after each.

    A run depends on ``state``, the arguments and nothing else: continued from a saved state it is
    bitwise the same run.

    Args:
        maml: What is trained.
        state: Of `start`, or a saved one.
        outer_optimizer: As given to `start`.
        episodes: Number -> episode, such as `Episodes`; meta-step s takes the episodes from
            s · tasks on.
        steps: Meta-steps in all, those before ``state`` included.
        tasks: Episodes of a meta-step.
        batched: All of them at once, or one after another (see `MAML.meta_gradient`).

    Raises:
        NonFinite: A meta-gradient that is not finite; the state before it was yielded.
    """
    check_positive("steps", steps)
    check_positive("tasks", tasks)
    while state.step < steps:
        first = state.step * tasks
        gradient = maml.meta_gradient(
            state.phi, [episodes(first + i) for i in range(tasks)], batched=batched
        )
        phi, outer = outer_optimizer.update(gradient.value, state.phi, state.outer)
        state = MetaState(state.step + 1, phi, outer)
        yield MetaStep(state, gradient)
