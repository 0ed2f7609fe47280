"""Classes of unequal size, made on purpose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BadInput


def long_tail(y: Tensor, *, imbalance: float, classes: Sequence[str], seed: int) -> Tensor:
    """Rows to keep so that the classes' sizes fall off exponentially.

    Class c of C keeps ⌊n_max · imbalance^(−c / (C − 1))⌋ examples drawn at random, at least one and
    at most all it has, where n_max is the size of the largest class: class 0 keeps the most, and
    `imbalance` times as many as the last (Cui et al., "Class-balanced loss based on effective
    number of samples", CVPR 2019, whose classes all have n_max examples). A larger imbalance keeps
    a part of what a smaller one keeps.

    Args:
        y: (n,) int64 labels.
        imbalance: Size of the largest class over that of the smallest, at least 1.
        classes: Names of the classes, from the most frequent to the rarest.
        seed: Of the draw.

    Returns:
        (m,) int64 positions, ascending.

    Raises:
        BadInput: An imbalance below 1 or not finite, or fewer than two classes.
    """
    if not 1 <= imbalance < float("inf"):
        raise BadInput(
            f"The imbalance is {imbalance}, but must be at least 1 and finite. Use 1 for classes "
            "as they are."
        )
    count = len(classes)
    if count < 2:
        raise BadInput(f"{count} classes have no long tail. Give at least two classes.")
    generator = torch.Generator().manual_seed(seed)
    largest = int(y.bincount(minlength=count).max())
    kept = []
    for label in range(count):
        own = (y == label).nonzero().flatten()
        size = max(1, int(largest * imbalance ** (-label / (count - 1)) + 1e-9))
        order = torch.randperm(len(own), generator=generator)[:size]
        kept.append(own[order.to(own.device)])
    return torch.cat(kept).sort().values
