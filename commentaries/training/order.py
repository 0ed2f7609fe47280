"""Which examples enter which training step."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def order(size: int, batch: int, *, seed: int) -> Callable[[int], Tensor]:
    """A function from a step to the positions (batch,) of its examples.

    It goes through all examples in a new random order each epoch, and leaves out the incomplete
    last batch. What it gives is a function of the step alone, so that runs can go on anywhere.

    Args:
        size: Number of examples.
        batch: Examples of a step; all of them where there are fewer.
        seed: Of the orders.
    """
    batch = min(batch, size)

    @lru_cache(maxsize=2)
    def shuffled(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)
        return torch.randperm(size, generator=generator)

    def drawn(step: int) -> Tensor:
        epoch, place = divmod(step, size // batch)
        return shuffled(epoch)[place * batch : (place + 1) * batch]

    return drawn
