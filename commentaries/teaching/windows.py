"""Windows that were not learned, and how well a mask finds the place that matters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..data import Marked


def windows(centre: Tensor, deviation: float, height: int, width: int) -> Tensor:
    """Gaussian windows exp(-d² / 2σ²) about given places.

    Args:
        centre: (n, 2), row and column in pixels.
        deviation: σ in pixels.
        height: Of the images.
        width: Of the images.

    Returns:
        (n, 1, height, width) in [0, 1].
    """
    rows = torch.arange(height, device=centre.device, dtype=centre.dtype)
    columns = torch.arange(width, device=centre.device, dtype=centre.dtype)
    row, column = centre[:, 0, None], centre[:, 1, None]
    tall = torch.exp((rows - row).square() / (-2 * deviation**2))
    wide = torch.exp((columns - column).square() / (-2 * deviation**2))
    return (tall[:, :, None] * wide[:, None, :])[:, None]


def deviation_of(area: float, height: int, width: int) -> float:
    """σ in pixels of a Gaussian window of a mean value, if it lay wholly within the image."""
    return max(math.sqrt(area * height * width / (2 * math.pi)), 1.0)


def centre_of(maps: Tensor) -> Tensor:
    """The centre of mass (n, 2), row and column in pixels, of maps (n, 1, h, w) that are ≥ 0."""
    _, _, height, width = maps.shape
    flat = maps.flatten(1) + torch.finfo(maps.dtype).tiny
    share = (flat / flat.sum(1, keepdim=True)).reshape(maps.shape)
    rows = torch.arange(height, device=maps.device, dtype=maps.dtype)
    columns = torch.arange(width, device=maps.device, dtype=maps.dtype)
    return torch.stack(
        [(share.sum(3) * rows).sum((1, 2)), (share.sum(2) * columns).sum((1, 2))], dim=1
    )


class Found(NamedTuple):
    """How well masks find the boxes of images: means over the images.

    Attributes:
        mass: Share of a mask's sum that lies in the box.
        pointing: Share of the images whose greatest mask value lies in the box.
    """

    mass: float
    pointing: float


def localisation(masks: Tensor, marked: Marked) -> Found:
    """How well masks (n, 1, h, w) find the boxes; where a mask is flat it points to no place.

    A mask that is flat, zero everywhere included, has the mass of the boxes' area, and counts as
    pointing by that share.
    """
    inside = marked.region().to(masks.device)
    flat, within = masks.double().flatten(1), inside.flatten(1)
    flat = torch.where(flat.sum(1, keepdim=True) > 0, flat, 1.0)
    mass = (flat * within).sum(1) / flat.sum(1)
    top = flat == flat.max(1, keepdim=True).values
    pointing = (top & within).sum(1) / top.sum(1)  # ties share the vote
    return Found(float(mass.mean()), float(pointing.mean()))
