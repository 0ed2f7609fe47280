"""Figures of learned mixing ratios and attention masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import BadInput
from .figures import BLUE, GREY, INK, SMALL, TEXT, TITLE, VERMILION, WIDTH, label_axes, new_figure

_NAMED = 40
"""Classes up to which a heat map names each."""

_LONG = 20
"""Letters of a class name that a figure shows; above an image there is room for fewer."""

_DARK = 0.5
"""Share of the range of colours up to which white is easier to read on them than black."""


def ratio_map(ratios: np.ndarray, classes: Sequence[str], *, low: float, high: float) -> Figure:
    """A heat map of mixing ratios, own class by row and the partner's by column.

    Args:
        ratios: (classes, classes) share of the example itself; NaN is left white.
        classes: Their names.
        low: The least ratio that can be learned: the darkest colour.
        high: The greatest.

    Raises:
        BadInput: The shapes do not fit.
    """
    count = len(classes)
    if ratios.shape != (count, count):
        raise BadInput(
            f"{ratios.shape} ratios do not fit {count} classes. Pass one for each ordered pair."
        )
    named = count <= _NAMED
    side = min(WIDTH, 3.2 + 0.34 * count) if named else WIDTH * 0.8
    figure = new_figure(side, side * 0.88)
    axes = figure.subplots()
    image = axes.imshow(ratios, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, colors=INK, length=0)
    bar.set_label("share of the example itself", size=TEXT, color=INK)
    by = "" if named else ", class by number"
    _label_plain(axes, x=f"mixed with{by}", y=f"example{by}")
    if named:
        names = [shortened(name, _LONG) for name in classes]
        turn = 90 if max(map(len, names)) > 2 else 0
        axes.set_yticks(range(count), names, parse_math=False, size=SMALL)
        axes.set_xticks(range(count), names, parse_math=False, size=SMALL, rotation=turn)
    if count <= 12:
        light = low + _DARK * (high - low)
        for (row, column), value in np.ndenumerate(ratios):
            if np.isfinite(value):
                colour = "white" if value < light else "black"
                axes.text(
                    column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center",
                    size=SMALL, color=colour,
                )  # fmt: skip
    return figure


def mixed_pairs(
    own: np.ndarray, other: np.ndarray, mixed: np.ndarray, titles: Sequence[tuple[str, str, str]]
) -> Figure:
    """Examples, what they are mixed with, and the mixture, one column for each pair.

    Args:
        own: (n, channels, h, w) in [0, 1].
        other: The partners, alike.
        mixed: The mixtures, alike.
        titles: Of each image of a column, from top to bottom.
    """
    rows = [own, other, mixed]
    return image_grid(
        [[image[column] for column in range(len(own))] for image in rows],
        titles=[[names[row] for names in titles] for row in range(3)],
        rows=("example", "mixed with", "shown"),
    )


def image_grid(
    images: Sequence[Sequence[np.ndarray]],
    *,
    rows: Sequence[str],
    columns: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    boxes: Sequence[Sequence[int]] = (),
) -> Figure:
    """Images in rows with a name each.

    Args:
        images: For each row its images: (h, w) maps are drawn in colour from 0 to 1,
            (channels, h, w) in [0, 1] as they are.
        rows: Name of each row.
        columns: A heading for each column, or none.
        titles: A title above each image, or none.
        boxes: For each column (top, left, bottom, right) in pixels, drawn on every image of it.
    """
    width = len(images[0])
    each = min(1.15, (WIDTH - 1.1) / width)
    letters = round(each / 0.075)  # of the small font
    figure = new_figure(1.1 + each * width, (each + (0.2 if titles else 0.06)) * len(images) + 0.25)
    grid = figure.subplots(len(images), width, squeeze=False)
    for row, (line, name) in enumerate(zip(images, rows, strict=True)):
        for column, image in enumerate(line):
            axes = grid[row, column]
            if image.ndim == 2:
                axes.imshow(image, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
            else:
                grey = image.shape[0] != 3
                shown = image.mean(0) if grey else image.transpose(1, 2, 0)
                axes.imshow(
                    shown, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest"
                )
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if titles:
                title = shortened(titles[row][column], letters)
                axes.set_title(title, fontsize=SMALL - 0.5, color=INK, pad=3, parse_math=False)
            elif columns and row == 0:
                title = shortened(columns[column], letters)
                axes.set_title(title, fontsize=SMALL, color=INK, parse_math=False)
            if boxes:
                _draw_box(axes, boxes[column])
        grid[row, 0].set_ylabel(
            name, rotation=0, ha="right", va="center", fontsize=TEXT, color=INK, parse_math=False
        )
    return figure


def commentary_curves(
    metrics: Sequence[Mapping[str, object]], keys: Mapping[str, str], *, title: str
) -> Figure | None:
    """What was logged of the commentary while it learned; None where nothing was.

    Args:
        metrics: Rows of ``metrics.jsonl``, some with an object "commentary".
        keys: The names in that object, and what each curve is called.
        title: Of the axis of values.
    """
    rows = [(row["step"], row["commentary"]) for row in metrics if "commentary" in row]
    if not rows:
        return None
    figure = new_figure(WIDTH * 0.6, 2.6)
    axes = figure.subplots()
    colours = (BLUE, VERMILION, GREY)
    for (key, name), colour in zip(keys.items(), colours, strict=False):
        points = [(step, found[key]) for step, found in rows if found.get(key) is not None]  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=name)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="best")
    label_axes(axes, x="step", y=title)
    return figure


def shortened(name: str, letters: int) -> str:
    """A name of at most so many letters, the last of which says that there are more."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def _draw_box(axes: Axes, box: Sequence[int]) -> None:
    top, left, bottom, right = box
    across = [left - 0.5, right - 0.5, right - 0.5, left - 0.5, left - 0.5]
    down = [top - 0.5, top - 0.5, bottom - 0.5, bottom - 0.5, top - 0.5]
    axes.plot(across, down, color="#56B4E9", linewidth=1.2, clip_on=False)


def _label_plain(axes: Axes, *, x: str, y: str) -> None:
    """Axes of an image: names, no frame, no ticks."""
    axes.set_xlabel(x, size=TEXT, color=INK)
    axes.set_ylabel(y, size=TEXT, color=INK)
    axes.tick_params(length=0, colors=INK, labelsize=SMALL)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.title.set_fontsize(TITLE)
