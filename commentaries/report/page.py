"""One self-contained HTML page: figures and images inside, no network, no scripts."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from ..errors import BadInput, BadRun
from .tables import Cell, format_cell, numeric_columns

_THUMBNAIL = 96  # pixels, the longer side of a stored thumbnail
_TINY = 32  # pixels, up to which an image is stored as it is, without loss


@dataclass(frozen=True, eq=False)
class Plot:
    """A section with one figure."""

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Table:
    """A section with one table; columns of numbers are set to the right."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """An example, the label that it carries and the one that is suggested.

    Attributes:
        image: (height, width) or (channels, height, width). Three channels are red, green and
            blue; of any other number the mean is shown. Numbers in [0, 1] and bytes are shown as
            they are, others stretched from their least to their greatest.
        given: The label in the data set.
        suggested: The label that the student would give. The item stands out where it differs.
        suspicion: How likely the given label is wrong, 0 to 1.
        note: Anything else worth a line or two: a file name, the true label where it is known.
        first: Whether it is shown before the reader chooses a label.
    """

    image: np.ndarray
    given: str
    suggested: str
    suspicion: float
    note: str = ""
    first: bool = True


@dataclass(frozen=True)
class Gallery:
    """A section with a grid of examples.

    Attributes:
        title: Its heading.
        caption: What it shows.
        items: The examples, in the order shown.
        choices: Given labels by which the reader can filter, each with a number to show beside
            it; none for no choice.
    """

    title: str
    caption: str
    items: Sequence[GalleryItem]
    choices: Mapping[str, int] = field(default_factory=dict)


Section = Plot | Table | Gallery


def write_page(
    path: str | os.PathLike[str], *, title: str, summary: str, sections: Sequence[Section]
) -> Path:
    """Writes one HTML file that needs nothing but itself.

    The file appears whole or not at all. All text is escaped: labels and file names come from
    users.

    Args:
        path: Where to write; missing folders are made.
        title: The heading of the page.
        summary: What was found, in a few sentences; a blank line starts a new paragraph.
        sections: What follows, in this order.

    Returns:
        The path written to.

    Raises:
        BadInput: If an image or a table has a shape that cannot be shown.
        BadRun: If the file cannot be written.
    """
    template = resources.files("commentaries.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(template).render(
        title=title,
        paragraphs=[text for text in summary.split("\n\n") if text.strip()],
        sections=[_view(section) for section in sections],
    )
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A file name that is not valid UTF-8 reaches us with lone surrogates: "?" for those.
            temporary.write_text(html, encoding="utf-8", errors="replace")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BadRun(
            f"The report {str(path)!r} cannot be written: {error.strerror}. "
            "Choose a folder that you may write to."
        ) from error
    return path


def _view(section: Section) -> dict[str, Any]:
    """What the template shows of a section: text and image data only."""
    view: dict[str, Any] = {"title": section.title, "caption": section.caption}
    if isinstance(section, Plot):
        # CSS has 96 pixels to the inch: text is then as large as the figure says.
        width = round(float(section.figure.get_figwidth()) * 96)
        return view | {"kind": "plot", "image": _figure_uri(section.figure), "width": width}
    if isinstance(section, Table):
        return view | {
            "kind": "table",
            "columns": section.columns,
            "right": numeric_columns(section.columns, section.rows),
            "rows": [[format_cell(cell) for cell in row] for row in section.rows],
        }
    numbers = {label: number for number, label in enumerate(section.choices)}
    return view | {
        "kind": "gallery",
        "choices": list(section.choices.items()),
        "items": [_item_view(item, numbers) for item in section.items],
    }


def _item_view(item: GalleryItem, numbers: Mapping[str, int]) -> dict[str, Any]:
    finite = math.isfinite(item.suspicion)
    return {
        "image": _thumbnail_uri(item.image),
        "tiny": max(np.shape(item.image)[-2:]) <= _TINY,
        "first": item.first,
        "choice": numbers.get(item.given),
        "given": item.given,
        "suggested": item.suggested,
        "differs": item.given != item.suggested,
        "suspicion": f"{item.suspicion:.2f}" if finite else "–",
        "percent": round(100 * min(max(item.suspicion, 0.0), 1.0)) if finite else 0,
        "note": item.note,
    }


def _figure_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return _uri(buffer, "png")


def _thumbnail_uri(image: np.ndarray) -> str:
    """A small picture of an array: PNG where it is tiny, WebP where it was made smaller."""
    picture = Image.fromarray(_bytes(np.asarray(image)))
    buffer = io.BytesIO()
    if max(picture.size) <= _TINY:
        picture.save(buffer, format="PNG", optimize=True)
        return _uri(buffer, "png")
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))  # only ever smaller
    picture.save(buffer, format="WEBP", quality=75)
    return _uri(buffer, "webp")


def _bytes(image: np.ndarray) -> np.ndarray:
    """(height, width) or (height, width, 3) in 0 to 255."""
    if image.ndim not in (2, 3) or image.size == 0:
        raise BadInput(
            f"An image of shape {image.shape} cannot be shown. "
            "Pass (height, width) or (channels, height, width)."
        )
    pixels = image.astype(np.float64)
    if pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0) if pixels.shape[0] == 3 else pixels.mean(0)
    pixels = np.nan_to_num(pixels, posinf=0.0, neginf=0.0)
    low, high = float(pixels.min()), float(pixels.max())
    if image.dtype == np.uint8:
        low, high = 0.0, 255.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    if low == high:
        return np.full(pixels.shape, 127, dtype=np.uint8)
    return ((pixels - low) * (255 / (high - low))).round().astype(np.uint8)


def _uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
