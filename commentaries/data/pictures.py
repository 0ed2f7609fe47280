"""One image file as pixels, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, check_positive

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Files with these endings are images, in capitals too."""

OTHER_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".svg", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".exr"),
)
"""Images that are not read; they are reported and not passed over in silence."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_GREY = frozenset({"1", "L", "LA", "La"})
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


class Unreadable(Exception):
    """An image that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Preparation:
    """How images become one tensor: kept with a run, to do the same to other images later.

    Attributes:
        size: Side in pixels. The shorter side is resized to it with antialiasing, and the middle
            of the longer side is kept.
        channels: 1 (luminance) or 3.

    Raises:
        BadInput: A size below 1, or other channels.
    """

    size: int
    channels: int

    def __post_init__(self) -> None:
        check_positive("size", self.size)
        if self.channels not in (1, 3):
            raise BadInput(
                f"channels is {self.channels}. Choose 1 for grey images or 3 for colour images."
            )


def inspect(path: Path) -> tuple[int, bool]:
    """Shorter side in pixels, and whether the image is grey by its mode; reads the header only.

    Raises:
        Unreadable: Not an image, 16-bit, or animated.
    """
    with _opened(path) as image:
        return min(image.size), image.mode in _GREY


def decode(path: Path, preparation: Preparation) -> np.ndarray:
    """An image's pixels.

    The camera's orientation (EXIF) is applied, transparent parts are laid on white, and palette,
    1-bit and CMYK images are converted.

    Returns:
        (channels, size, size) uint8.

    Raises:
        Unreadable: Not an image, 16-bit, animated, or damaged.
    """
    from PIL import Image, ImageOps

    size = preparation.size
    with _opened(path) as opened:
        opened.draft(None, (2 * size, 2 * size))  # a JPEG decodes faster at a fraction of its size
        image = ImageOps.exif_transpose(opened)
        if image.mode in _WITH_ALPHA or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        elif image.mode not in _GREY:
            image = image.convert("RGB")
        image = image.convert("L" if preparation.channels == 1 else "RGB")
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)  # antialiases
        pixels = np.asarray(image)
    return pixels[None] if preparation.channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A Pillow image whose errors, in the block too, become `Unreadable`."""
    from PIL import Image, UnidentifiedImageError

    if path.suffix.lower() in OTHER_SUFFIXES:
        raise Unreadable(f"images of the kind {path.suffix.lower()} are not read")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if _has_16_bits(image):
                raise Unreadable("more than 8 bits a channel")
            # An MPO is a photograph with a second view or a preview behind it.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise Unreadable("animated or of several pages")
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise Unreadable("the file is empty" if empty else "not an image") from error
    except Exception as error:  # what Pillow raises for damaged files has no common type
        raise Unreadable(f"damaged: {str(error) or type(error).__name__}") from error


def _has_16_bits(image: Any) -> bool:
    if image.mode.startswith(("I", "F")):
        return True
    # Pillow cuts 16-bit colour images down to 8 bits without a word; the raw mode tells.
    for tile in image.tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(each, str) and ";16" in each for each in arguments):
            return True
        if image.format == "PPM" and any(isinstance(a, int) and a > 255 for a in arguments):
            return True
    return False
