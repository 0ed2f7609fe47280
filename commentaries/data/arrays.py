"""A user's own images in one .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import BadInput

_CHUNK = 1000


def read_arrays(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """The images of a file, the label of each, and the class names in their order.

    Args:
        path: Of an .npz file with `x`: (n, height, width), (n, height, width, channels) or
            (n, channels, height, width) with 1, 3 or 4 channels (4: the last is opacity; where
            either axis could hold them, the images are square, else it is the last), uint8, bool,
            or float in [0, 1]; `y`: (n,) whole numbers or strings; and perhaps `classes`,
            the names that whole numbers in `y` count from 0, or the order of the strings.

    Returns:
        (n, height, width, channels) pixels of the type they have in the file, labels, classes.
        Without `classes` the names are the sorted numbers or strings in `y`.

    Raises:
        BadInput: Not an .npz file, arrays that are missing or pickled, other shapes or types,
            pixels out of range.
    """
    held = _load(path)
    missing = [name for name in ("x", "y") if name not in held]
    if missing:
        raise BadInput(
            f"{path} has no array {missing[0]!r}, but {', '.join(held) or 'none'}. Save the images "
            "as x and the labels as y: numpy.savez(file, x=..., y=...)."
        )
    x, y, names = held["x"], held["y"], held.get("classes")
    x = _channels_last(path, x)
    _check_pixels(path, x)
    if y.shape != x.shape[:1]:
        raise BadInput(
            f"{path}: x holds {len(x)} images and y has the shape {y.shape}. Give one label for "
            "each image, (n,)."
        )
    labels, classes = _named(path, y, names)
    return x, labels, classes


def prepare(x: np.ndarray, size: int, channels: int) -> Tensor:
    """(n, channels, size, size) float32 in [0, 1], resized and cropped as pictures are.

    Args:
        x: (n, height, width, channels) as `read_arrays` gives it.
        size: Shorter side after resizing, and side of the middle that is kept.
        channels: 1 or 3.
    """
    height, width = x.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    done = torch.empty(len(x), channels, size, size)
    for start in range(0, len(x), _CHUNK):
        part = torch.from_numpy(x[start : start + _CHUNK, top : top + side, left : left + side])
        part = (part.float() / 255 if part.dtype == torch.uint8 else part.float()).movedim(3, 1)
        if part.shape[1] == 4:
            colour, opacity = part[:, :3], part[:, 3:]
            part = colour * opacity + (1 - opacity)
        if part.shape[1] == 3 and channels == 1:
            luminance = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
            part = (part * luminance).sum(1, keepdim=True)
        if side != size:
            part = interpolate(part, size=(size, size), mode="bilinear", antialias=True)
        done[start : start + _CHUNK] = part.clamp(0, 1)
    return done


def _load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive, or only a part of one")
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except Exception as error:  # what NumPy and zipfile raise for damaged files has no common type
        if "pickle" in str(error):
            raise BadInput(
                f"{path} holds pickled objects, which are not loaded because they could run code. "
                "Save plain arrays: images as uint8 or float, labels as whole numbers or strings."
            ) from error
        reason = str(error) or type(error).__name__
        raise BadInput(
            f"{path} is not an .npz file that can be read ({reason}). Write it with numpy.savez."
        ) from error


def _channels_last(path: Path, x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        x = x[..., None]
    elif x.ndim == 4:
        first, last = x.shape[1] in (1, 3, 4), x.shape[3] in (1, 3, 4)
        if first and last:  # both could be channels: the square images are meant
            last = x.shape[1] == x.shape[2] or x.shape[2] != x.shape[3]
        if first and not last:
            x = np.moveaxis(x, 1, 3)
    if x.ndim != 4 or x.shape[3] not in (1, 3, 4) or not x.size:
        raise BadInput(
            f"{path}: x has the shape {x.shape}. Give (n, height, width), (n, height, width, "
            "channels) or (n, channels, height, width), with 1, 3 or 4 channels."
        )
    return x


def _check_pixels(path: Path, x: np.ndarray) -> None:
    if x.dtype == np.uint8 or x.dtype == np.bool_:
        return
    if x.dtype.kind != "f":
        bits = " (16-bit images)" if x.dtype == np.uint16 else ""
        raise BadInput(
            f"{path}: x has the type {x.dtype}{bits}. Convert it to uint8, or to float in [0, 1]."
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # also for what is not a number
        raise BadInput(
            f"{path}: x is a float array from {low:g} to {high:g}. Scale it to [0, 1], bytes "
            "divided by 255, and remove what is not finite."
        )


def _named(path: Path, y: np.ndarray, names: np.ndarray | None) -> tuple[list[str], list[str]]:
    """Label of each example, and the classes in order."""
    if y.dtype.kind not in "iubUS":
        raise BadInput(
            f"{path}: y has the type {y.dtype}. Give whole numbers or strings as labels."
        )
    numbers = y.dtype.kind in "iub"
    if names is None:
        if numbers:
            return [str(int(each)) for each in y], [str(int(each)) for each in np.unique(y)]
        labels = _strings(y)
        return labels, sorted(set(labels))
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise BadInput(f"{path}: classes is no list of names. Give one string for each class.")
    classes = _strings(names)
    if len(set(classes)) != len(classes):
        raise BadInput(
            f"{path}: classes holds a name twice. Give each class a name of its own."
        )  # fmt: skip
    if not numbers:
        labels = _strings(y)
        strange = sorted(set(labels) - set(classes))
        if strange:
            raise BadInput(
                f"{path}: y holds the label {strange[0]!r}, which classes lacks. Add it there."
            )
        return labels, classes
    if int(y.min()) < 0 or int(y.max()) >= len(classes):
        worst = int(y.min()) if int(y.min()) < 0 else int(y.max())
        raise BadInput(
            f"{path}: y holds the label {worst}, which is out of range for {len(classes)} "
            "classes. Number the classes from 0 in the order of their names."
        )
    return [classes[int(each)] for each in y], classes


def _strings(names: np.ndarray) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else str(each) for each in names.tolist()]
