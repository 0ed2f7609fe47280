"""Wrong labels, made on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import BadInput, unknown
from .look_alikes import look_alikes

Noise = Literal["none", "uniform", "pair", "asymmetric", "instance", "block"]
NOISES: tuple[str, ...] = get_args(Noise)

BLOCK_SIZE = 26
"""Mean number of examples in a block of neighbours."""

ONE_LEVEL = 10_000
"""Examples up to which blocks are found at once, not within larger regions."""

REGION_ITERATIONS = 30
"""Of k-means where it finds those regions."""

FLIP_RATE_SPREAD = 0.1
"""Standard deviation of the flip rates of instance-dependent noise before truncation."""


def corrupt(
    x: Tensor, y: Tensor, *, noise: str, rate: float, classes: Sequence[str], seed: int
) -> Tensor:
    """Labels of which a share is wrong.

    Conventions:
        none: All labels as they are.
        uniform: Exactly round(rate · n) examples move to one of the *other* classes at random.
        pair: Exactly round(rate · n) examples of class c get the label c + 1 (the last class 0).
        asymmetric: Exactly round(rate · n_c) examples of each affected class c get the label of
            one look-alike class; `look_alikes` says which for which data set. `rate` is the share
            of the affected classes, so the share of all examples is smaller where some classes
            are not affected (CIFAR-10: half of it).
        instance: Instance-dependent noise of Xia et al. (2020, Algorithm 2). Example i flips with
            a probability of its own, from a normal distribution of mean `rate` and standard
            deviation 0.1 truncated to [0, 1]; where to, is drawn from the softmax of x_i W_c over
            the other classes, with x_i the flattened pixels, standardised over the data set by
            channel, and W_c a standard normal matrix for each true class c. With as many pixels
            as images have, nearly all of that probability is on one class. The share of wrong
            labels is `rate` in expectation as long as the truncation hardly matters (0.2 to 0.8).
            A rate of 0 changes nothing.
        block: k-means groups the images into blocks of about 26 neighbours; randomly chosen
            blocks get one wrong label each, a class other than the block's most frequent one,
            until the blocks hold rate · n examples. Those of them whose true class it happens to
            be keep a right label. As when one batch of annotation goes wrong. Above 10,000
            examples k-means first finds √(n / 26) regions, then the blocks within each.

    Args:
        x: (n, ...) images; only "instance" and "block" look at them.
        y: (n,) int64 true labels.
        noise: One of the names above.
        rate: Share of the examples, in [0, 1).
        classes: Names of the classes; only "asymmetric" looks at more than their number.
        seed: Of everything random.

    Returns:
        (n,) int64, a new tensor.

    Raises:
        BadInput: An unknown kind of noise, a rate out of range, fewer than two classes, or
            asymmetric noise for classes whose look-alikes are not known.

    References: Patrini et al., CVPR 2017 (asymmetric); Xia et al., "Part-dependent label noise",
    NeurIPS 2020 (instance).
    """
    if noise not in NOISES:
        raise unknown("kind of noise", noise, NOISES)
    if not 0 <= rate < 1:
        raise BadInput(f"The noise rate is {rate}, but must be at least 0 and below 1.")
    if len(classes) < 2:
        raise BadInput(
            f"There are no wrong labels with {len(classes)} classes. Give at least two classes."
        )
    generator = torch.Generator().manual_seed(seed)
    count, device = len(classes), y.device
    y = y.cpu()  # the same draw on every device
    given = y.clone()
    if noise == "block":
        _blocks(given, x, y, rate, count, generator)
    elif noise == "asymmetric":
        for label, other in look_alikes(classes).items():
            own = (y == label).nonzero().flatten()
            chosen = torch.randperm(len(own), generator=generator)[: round(rate * len(own))]
            given[own[chosen]] = other
    elif noise == "instance":
        if rate > 0:
            _instance(given, x, y, rate, count, generator)
    elif noise != "none":
        chosen = torch.randperm(len(y), generator=generator)[: round(rate * len(y))]
        shift = torch.ones_like(chosen)
        if noise == "uniform":
            shift = torch.randint(1, count, chosen.shape, generator=generator)
        given[chosen] = (y[chosen] + shift) % count
    return given.to(device)


def _instance(
    given: Tensor, x: Tensor, y: Tensor, rate: float, classes: int, generator: torch.Generator
) -> None:
    flip = _truncated_normal(len(y), rate, generator)
    pixels = _standardised(x.cpu())
    for label in range(classes):
        projection = torch.randn(pixels.shape[1], classes, generator=generator)
        own = (y == label).nonzero().flatten()
        if not len(own):
            continue
        score = pixels[own] @ projection
        score[:, label] = -torch.inf
        probability = flip[own, None] * score.double().softmax(1)
        probability[:, label] = 1 - flip[own]
        given[own] = torch.multinomial(probability, 1, generator=generator).flatten()


def _truncated_normal(n: int, mean: float, generator: torch.Generator) -> Tensor:
    """(n,) float64 from N(mean, 0.1²) given that it lies in [0, 1], by the inverse of its CDF."""
    ends = (torch.tensor([0.0, 1.0], dtype=torch.float64) - mean) / FLIP_RATE_SPREAD
    low, high = torch.special.ndtr(ends)
    uniform = torch.rand(n, dtype=torch.float64, generator=generator)
    value = mean + FLIP_RATE_SPREAD * torch.special.ndtri(low + (high - low) * uniform)
    return value.clamp(0, 1)


def _standardised(x: Tensor) -> Tensor:
    """(n, d): images by channel, features by column, of mean 0 and standard deviation 1."""
    dims = (0, 2, 3) if x.dim() == 4 else (0,)
    std, mean = torch.std_mean(x, dims, correction=0, keepdim=True)
    return ((x - mean) / std.clamp(min=1e-6)).flatten(1)


def _blocks(
    given: Tensor, x: Tensor, y: Tensor, rate: float, classes: int, generator: torch.Generator
) -> None:
    state = int(torch.randint(2**31, (), generator=generator))
    block = _neighbourhoods(x.flatten(1).cpu(), state)
    done = 0
    for chosen in torch.randperm(int(block.max()) + 1, generator=generator):
        if done >= rate * len(y):
            return
        own = block == chosen
        shift = int(torch.randint(1, classes, (), generator=generator))
        given[own] = (y[own].mode().values + shift) % classes
        done += int(own.sum())


def _neighbourhoods(pixels: Tensor, state: int) -> Tensor:
    """(n,) int64 block of each example, none of them empty, numbered from 0."""
    from sklearn.cluster import KMeans

    def means(rows: Tensor, count: int, iterations: int = 300) -> Tensor:
        # One run from a k-means++ start.
        fitted = KMeans(min(count, len(rows)), random_state=state, max_iter=iterations)
        return torch.from_numpy(fitted.fit_predict(pixels[rows].numpy())).long()

    every = torch.arange(len(pixels))
    if len(pixels) <= ONE_LEVEL:
        return means(every, max(2, round(len(pixels) / BLOCK_SIZE))).unique(return_inverse=True)[1]
    region = means(every, round((len(pixels) / BLOCK_SIZE) ** 0.5), REGION_ITERATIONS)
    block, done = torch.empty_like(region), 0
    for each in region.unique():
        own = (region == each).nonzero().flatten()
        within = means(own, max(1, round(len(own) / BLOCK_SIZE))).unique(return_inverse=True)[1]
        block[own] = done + within
        done += int(within.max()) + 1
    return block
