"""Boxes of pixels: around the ink of a drawing, at a drawn place, and what is put into them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import BadInput

CHUNK = 2048
"""Images that are put together at once, which bounds the memory."""


def ink_boxes(ink: Tensor, name: str) -> Tensor:
    """The smallest box around what is above 0 in each image.

    Args:
        ink: (n, 1, height, width).
        name: Of the set, for the error.

    Returns:
        (n, 4) int64 top, left, bottom, right; the last row and column lie before bottom and right.

    Raises:
        BadInput: An image without ink.
    """
    inked = ink[:, 0] > 0
    empty = (~inked.flatten(1).any(1)).nonzero().flatten()
    if len(empty):
        raise BadInput(
            f"{name}: {len(empty)} images hold no ink (no pixel above 0), the first at position "
            f"{int(empty[0])}. Remove them, and give bright ink on black paper."
        )
    sides = []
    for other in (2, 1):  # rows that hold ink, then columns
        line = inked.any(other).long()
        sides.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (top, bottom), (left, right) = sides
    return torch.stack([top, left, bottom, right], 1)


def scaled_ink(ink: Tensor, size: int, name: str) -> tuple[Tensor, Tensor]:
    """Drawings cut to their ink and scaled, with antialiasing, so that its longer side is `size`.

    Args:
        ink: (n, 1, height, width) in [0, 1].
        size: In pixels.
        name: Of the set, for errors.

    Returns:
        (n, 1, size, size) the ink from the top left corner, 0 beside it; and (n, 2) int64 its
        height and width. Its first and last row and column each hold ink.
    """
    box = ink_boxes(ink, name)
    extent = box[:, 2:] - box[:, :2]
    longer = extent.amax(1, keepdim=True)
    scaled = ((2 * size * extent + longer) // (2 * longer)).clamp(min=1)  # rounded
    out = ink.new_zeros(len(ink), 1, size, size)
    pairs, which = torch.cat([extent, scaled], 1).unique(dim=0, return_inverse=True)
    for i, (height, width, new_height, new_width) in enumerate(pairs.cpu().tolist()):
        for rows in (which == i).nonzero().flatten().split(CHUNK):
            cut = placed(ink[rows], -box[rows, :2], height, width)
            small = interpolate(cut, (new_height, new_width), mode="bilinear", antialias=True)
            out[rows, :, :new_height, :new_width] = small.clamp(0, 1)
    return out, scaled


def drawn_places(extent: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boxes of given extents at places uniform over all where they fit.

    Args:
        extent: (n, 2) int64 height and width of each box.
        height: Of the image.
        width: Of the image.
        generator: On the CPU; two uniform numbers are drawn for each box whatever its extent.

    Returns:
        (n, 4) int64 top, left, bottom, right, on the device of `extent`.
    """
    uniform = torch.rand(len(extent), 2, dtype=torch.float64, generator=generator)
    free = torch.tensor([height, width]) - extent.cpu() + 1
    corner = (uniform * free).long().to(extent.device)
    return torch.cat([corner, corner + extent], 1)


def placed(patch: Tensor, corner: Tensor, height: int, width: int) -> Tensor:
    """Patches on empty canvases; what reaches out of a canvas is cut off.

    Args:
        patch: (n, channels, h, w).
        corner: (n, 2) int64 row and column of each patch's first pixel on the canvas; may be
            negative.
        height: Of the canvas.
        width: Of the canvas.

    Returns:
        (n, channels, height, width), 0 beside the patch.
    """
    n, _, h, w = patch.shape
    row = torch.arange(height, device=patch.device) - corner[:, :1]
    column = torch.arange(width, device=patch.device) - corner[:, 1:]
    there = ((row >= 0) & (row < h))[:, None, :, None] & ((column >= 0) & (column < w))[
        :, None, None
    ]
    image = torch.arange(n, device=patch.device)[:, None, None]
    taken = patch.movedim(1, -1)[
        image, row.clamp(0, h - 1)[:, :, None], column.clamp(0, w - 1)[:, None]
    ]
    return taken.movedim(-1, 1) * there


def region(box: Tensor, height: int, width: int) -> Tensor:
    """(n, 1, height, width) bool: the pixels inside boxes (n, 4)."""
    top, left, bottom, right = box[:, :, None].unbind(1)
    row = torch.arange(height, device=box.device)
    column = torch.arange(width, device=box.device)
    rows, columns = (top <= row) & (row < bottom), (left <= column) & (column < right)
    return (rows[:, :, None] & columns[:, None])[:, None]
