"""Cues that go with the label in a chosen share of the examples, and mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BadInput


def spurious_cue(y: Tensor, *, cues: int, correlation: float, generator: torch.Generator) -> Tensor:
    """A cue for each example that is that of its class in a chosen share of them.

    Of the n_c examples of class c, exactly round(correlation · n_c) get cue c; each of the rest
    gets one of the other cues, all equally likely. So 1 is a cue as good as the label,
    1 / `cues` one that says nothing, and 0 one that always misleads: of two cues the other one.
    With the same state of the generator a larger correlation changes some cues to that of the
    class and leaves the rest as they are.

    Args:
        y: (n,) int64 labels, below `cues`.
        cues: How many cues there are.
        correlation: The share, in [0, 1].
        generator: On the CPU.

    Returns:
        (n,) int64 on the device of `y`.

    Raises:
        BadInput: A correlation out of range, fewer than two cues, or fewer cues than classes.
    """
    check_correlation(correlation)
    if cues < 2:
        raise BadInput(f"There is nothing to mislead with {cues} cues. Give at least two classes.")
    labels = y.cpu()  # the same draw on every device
    if len(labels) and int(labels.max()) >= cues:
        raise BadInput(
            f"There are {cues} cues for labels up to {int(labels.max())}. Keep the images of at "
            f"most {cues} classes, or offer a cue for each class."
        )
    cue = (labels + torch.randint(1, cues, labels.shape, generator=generator)) % cues
    order = torch.randperm(len(labels), generator=generator)
    for label in labels.unique().tolist():
        own = order[labels[order] == label]
        cue[own[: round(correlation * len(own))]] = label
    return cue.to(y.device)


def partners(
    kind: Tensor, pool: Tensor, *, kinds: Sequence[str], generator: torch.Generator
) -> Tensor:
    """For each example another one of a wanted kind, none of which comes twice before all have.

    Args:
        kind: (n,) int64 wanted kinds.
        pool: (m,) int64 kind of each example that can be had.
        kinds: Their names, for the error.
        generator: On the CPU.

    Returns:
        (n,) int64 positions in `pool`, on its device, with ``pool[partners] == kind``.

    Raises:
        BadInput: A kind that is wanted and not in the pool.
    """
    wanted, held = kind.cpu(), pool.cpu()
    order = torch.randperm(len(held), generator=generator)
    found = torch.empty_like(wanted)
    for each in wanted.unique().tolist():
        own, candidates = wanted == each, order[held[order] == each]
        if not len(candidates):
            raise BadInput(
                f"{int(own.sum())} images are to go with one of {kinds[each]!r}, and there is "
                "none. Give at least one of each class."
            )
        found[own] = candidates[torch.arange(int(own.sum())) % len(candidates)]
    return found.to(pool.device)


def check_correlation(correlation: float) -> None:
    """Refuses what is not in [0, 1]."""
    if not 0 <= correlation <= 1:
        raise BadInput(
            f"correlation is {correlation}, but must be at least 0 and at most 1. Use 1 for a cue "
            "that always agrees with the label and 0 for one that never does."
        )
