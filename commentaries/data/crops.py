"""Pieces of two photographs that come with scikit-learn: real backgrounds without a download."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

from ..errors import check_positive
from .images import LabelledImages
from .named import Part


def photo_crops(count: int, part: Part = "train", *, size: int = 32, seed: int) -> LabelledImages:
    """Square pieces of scikit-learn's sample photographs, a temple and a flower.

    Each piece is at a place and of a side, 48 to 160 pixels, drawn at random, reduced with
    antialiasing. "train" takes the left three quarters of the photographs, "test" the rest.

    Args:
        count: How many, half of them of each photograph.
        part: Of the photographs.
        size: Side of the pieces in pixels.
        seed: Of the draw.

    Returns:
        Images (count, 3, size, size) in [0, 1], labelled by their photograph.
    """
    from sklearn.datasets import load_sample_images

    check_positive("count", count)
    check_positive("size", size)
    generator = torch.Generator().manual_seed(seed)
    photos = []
    for pixels in load_sample_images().images:
        photo = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        edge = 3 * photo.shape[2] // 4
        photos.append(photo[:, :, :edge] if part == "train" else photo[:, :, edge:])
    y = torch.arange(count) % len(photos)
    sides = torch.randint(48, 161, (count,), generator=generator).tolist()
    places = torch.rand(count, 2, generator=generator).tolist()
    x = torch.empty(count, 3, size, size)
    for row, (side, (down, right)) in enumerate(zip(sides, places, strict=True)):
        photo = photos[int(y[row])]
        side = min(side, *photo.shape[1:])
        top = int(down * (photo.shape[1] - side + 1))
        left = int(right * (photo.shape[2] - side + 1))
        piece = photo[None, :, top : top + side, left : left + side]
        x[row] = interpolate(piece, size=size, mode="bilinear", antialias=True)[0].clamp_(0, 1)
    return LabelledImages(x, y, ("temple", "flower"), "photo_crops")
