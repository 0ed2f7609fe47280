"""What examples are compared by, found without looking at any label.

Wrong labels cannot mislead what never saw them: photographs are described by how strongly small
patches of the set itself answer in each part of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Encoder = Callable[[Tensor], Tensor]
"""Images (n, channels, height, width), or features (n, d), to vectors (n, dimensions)."""

TINY = 16
"""Images of fewer pixels a side are described by their pixels."""

SAMPLE = 5_000
"""Examples of which directions and scales are estimated, at most."""


@dataclass(frozen=True)
class Patches:
    """Answers of learned filters, in absolute value above a threshold, pooled over 3 x 3 regions.

    The filters are centres of a spherical k-means of contrast-normalised, whitened patches (Coates
    and Ng 2012, "Learning feature representations with k-means").

    Attributes:
        kernels: (filters, channels, side, side) filters of raw pixels, whitening included.
        offset: (filters,) what the mean patch answers.
        stride: Of the filters.
    """

    kernels: Tensor
    offset: Tensor
    stride: int

    SIDE = 6
    CONTRAST = 10 / 255**2
    WHITENING = 0.1
    THRESHOLD = 0.25
    REGIONS = 3

    @classmethod
    def fit(cls, x: Tensor, *, filters: int = 256, most: int = 40_000, seed: int = 0) -> Patches:
        """Learns filters from images.

        Args:
            x: (n, channels, height, width) in [0, 1].
            filters: How many.
            most: Patches to learn them from, at most; no more than 100 of each image.
            seed: Of the patches and the first centres.
        """
        generator = torch.Generator().manual_seed(seed)
        sample = min(most, 100 * len(x))
        patches = _random_patches(x, cls.SIDE, sample, generator)
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.var(1, keepdim=True) + cls.CONTRAST).sqrt()
        mean = patches.mean(0)
        values, vectors = torch.linalg.eigh((patches - mean).mT @ (patches - mean) / sample)
        whiten = vectors * (values + cls.WHITENING).rsqrt() @ vectors.mT
        centres = _spherical_means((patches - mean) @ whiten, filters, generator)
        kernels = centres @ whiten
        return cls(
            kernels.unflatten(1, (x.shape[1], cls.SIDE, cls.SIDE)),
            kernels @ mean,
            max(1, min(x.shape[2:]) // 32),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, 18 filters)."""
        return torch.cat([self._answers(piece) for piece in x.split(16)])

    def _answers(self, x: Tensor) -> Tensor:
        count = self.kernels[0].numel()

        def local_mean(values: Tensor) -> Tensor:
            return functional.avg_pool2d(values.mean(1, keepdim=True), self.SIDE, self.stride)

        mean = local_mean(x)
        variance = (local_mean(x * x) - mean * mean).clamp_min(0) * (count / (count - 1))
        total = self.kernels.sum((1, 2, 3))[:, None, None]
        answer = functional.conv2d(x, self.kernels, stride=self.stride) - mean * total
        answer = answer / (variance + self.CONTRAST).sqrt() - self.offset[:, None, None]
        pooled = [
            functional.adaptive_avg_pool2d(functional.relu(signed - self.THRESHOLD), self.REGIONS)
            for signed in (answer, -answer)
        ]
        return torch.cat(pooled, 1).flatten(1)


def fit_encoder(x: Tensor, *, dimensions: int = 512, seed: int = 0) -> Encoder:
    """Learns to describe examples by vectors of about unit length that say how alike they are.

    Tiny images are their pixels, of mean length one. Else features that are given, or `Patches`;
    standardised; then principal directions scaled by the fourth root of their variance (half-way
    to whitening), and the length made one.

    Args:
        x: (n, channels, height, width) images in [0, 1], or (n, d) features.
        dimensions: Of the vectors, at most.
        seed: Of the patches.

    Returns:
        A function of images like ``x``; it computes where ``x`` is and answers on the CPU.
    """
    if is_tiny(x):
        length = x.flatten(1).norm(dim=1).mean()
        return lambda x: (x.flatten(1) / length).cpu()

    from sklearn.utils.extmath import randomized_svd

    raw: Encoder = _flat if x.dim() == 2 else Patches.fit(x, seed=seed)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    sample = raw(x[order[:SAMPLE].to(x.device)])
    mean = sample.mean(0)
    scale = sample.std(0, correction=0)
    scale = torch.where(scale > 1e-6, scale, torch.inf)
    sample = (sample - mean) / scale
    count = min(dimensions, *sample.shape)
    matrix, iterations = sample.cpu().numpy(), 2
    _, values, vectors = randomized_svd(
        matrix,
        count,
        n_iter=iterations,  # pyright: ignore[reportArgumentType]  (its stub knows "auto" only)
        random_state=seed,
    )
    deviation = torch.from_numpy(values).float() / len(sample) ** 0.5
    scaled = torch.from_numpy(vectors).float().mT * deviation.clamp_min(1e-3).rsqrt()
    scaled = scaled.to(x.device)

    def encode(x: Tensor) -> Tensor:
        pieces = [((raw(piece) - mean) / scale) @ scaled for piece in x.split(1024)]
        return functional.normalize(torch.cat(pieces), dim=1).cpu()

    return encode


def is_tiny(x: Tensor) -> bool:
    """Whether examples are images of less than 16 pixels a side."""
    return x.dim() == 4 and min(x.shape[2:]) < TINY


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _random_patches(x: Tensor, side: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, channels · side²), each from a random place of a random image."""
    n, channels, height, width = x.shape
    image = torch.randint(n, (count,), generator=generator)
    top = torch.randint(height - side + 1, (count,), generator=generator)
    left = torch.randint(width - side + 1, (count,), generator=generator)
    rows = (top[:, None] + torch.arange(side))[:, None, :, None]
    columns = (left[:, None] + torch.arange(side))[:, None, None, :]
    plane = torch.arange(channels)[None, :, None, None]
    places = (image[:, None, None, None], plane, rows, columns)
    return x[tuple(index.to(x.device) for index in places)].flatten(1)


def _spherical_means(x: Tensor, count: int, generator: torch.Generator, rounds: int = 10) -> Tensor:
    """Unit vectors (count, d); each example belongs to the one of greatest absolute product."""
    start = torch.randperm(len(x), generator=generator)[:count].to(x.device)
    centres = functional.normalize(x[start], dim=1)
    for _ in range(rounds):
        product = x @ centres.mT
        nearest = product.abs().argmax(1)
        sign = product.gather(1, nearest[:, None]).sign()
        total = torch.zeros_like(centres).index_add_(0, nearest, sign * x)
        centres = functional.normalize(total + 1e-3 * centres, dim=1)
    return centres
