"""Wrong labels, made on purpose."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import BadInput, unknown

Noise = Literal["none", "uniform", "pair", "block"]
NOISES: tuple[str, ...] = get_args(Noise)

BLOCK_SIZE = 26
"""Mean number of examples in a block of neighbours."""


def corrupt(x: Tensor, y: Tensor, *, noise: str, rate: float, classes: int, seed: int) -> Tensor:
    """Labels of which a share is wrong.

    Conventions:
        none: All labels as they are.
        uniform: Exactly round(rate · n) examples move to one of the *other* classes at random.
        pair: Exactly round(rate · n) examples of class c get the label c + 1 (the last class 0).
        block: k-means groups the images into blocks of about 26 neighbours; randomly chosen
            blocks get one wrong label each, a class other than the block's most frequent one,
            until the blocks hold rate · n examples. Those of them whose true class it happens to
            be keep a right label. As when one batch of annotation goes wrong.

    Args:
        x: (n, ...) images; only "block" looks at them.
        y: (n,) int64 true labels.
        noise: One of the names above.
        rate: Share of the examples, in [0, 1).
        classes: Number of classes.
        seed: Of everything random.

    Returns:
        (n,) int64, a new tensor.

    Raises:
        BadInput: An unknown kind of noise, or a rate out of range.
    """
    if noise not in NOISES:
        raise unknown("kind of noise", noise, NOISES)
    if not 0 <= rate < 1:
        raise BadInput(f"The noise rate is {rate}, but must be at least 0 and below 1.")
    generator = torch.Generator().manual_seed(seed)
    given = y.clone()
    if noise == "block":
        _blocks(given, x, y, rate, classes, generator)
    elif noise != "none":
        chosen = torch.randperm(len(y), generator=generator)[: round(rate * len(y))]
        shift = torch.ones_like(chosen)
        if noise == "uniform":
            shift = torch.randint(1, classes, chosen.shape, generator=generator)
        given[chosen] = (y[chosen] + shift) % classes
    return given


def _blocks(
    given: Tensor, x: Tensor, y: Tensor, rate: float, classes: int, generator: torch.Generator
) -> None:
    from sklearn.cluster import KMeans

    count = max(2, round(len(y) / BLOCK_SIZE))
    state = int(torch.randint(2**31, (), generator=generator))
    means = KMeans(count, random_state=state)  # one run from a k-means++ start
    block = torch.from_numpy(means.fit_predict(x.flatten(1).numpy()))
    done = 0
    for chosen in torch.randperm(count, generator=generator):
        if done >= rate * len(y):
            return
        own = block == chosen
        shift = int(torch.randint(1, classes, (), generator=generator))
        given[own] = (y[own].mode().values + shift) % classes
        done += int(own.sum())
