"""Figures of a run, as `matplotlib.figure.Figure` objects; no global state is read or changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ..errors import BadInput

# The style, in one place: two hues of Okabe & Ito that all forms of colour vision tell apart,
# greys for everything else, marks rather than frames. Sizes are points and inches.
BLUE, VERMILION = "#0072B2", "#D55E00"
INK, GREY, FAINT = "#333333", "#8A8A8A", "#E4E4E4"
TITLE, TEXT, SMALL = 10.5, 9.5, 8.5
WIDTH = 9.6


def weight_histogram(weights: np.ndarray, wrong: np.ndarray | None = None) -> Figure:
    """How the learned example weights are distributed.

    Args:
        weights: (n,) weights, usually in [0, 1]; the axis grows where they exceed it.
        wrong: (n,) bool, true where the label is known to be wrong. Each group is then drawn as
            a share of itself, so that a few wrong labels among many right ones can be seen.

    Raises:
        BadInput: If there are no weights, one is not finite, or ``wrong`` has another shape.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 1 or weights.size == 0 or not np.isfinite(weights).all():
        raise BadInput(
            f"A histogram needs finite weights of shape (n,), n > 0; got {weights.shape}. "
            "Pass one finite weight per example."
        )
    figure = new_figure(WIDTH * 0.75, 3.0)
    axes = figure.subplots()
    span = (min(0.0, float(weights.min())), max(1.0, float(weights.max())))
    bins = np.linspace(*span, 1 + min(40, max(10, round(math.sqrt(weights.size)))))
    if wrong is None:
        axes.hist(weights, bins=bins.tolist(), color=BLUE, edgecolor="white", linewidth=0.4)
        label_axes(axes, x="weight", y="examples")
    else:
        wrong = np.asarray(wrong, dtype=bool)
        if wrong.shape != weights.shape:
            raise BadInput(
                f"`wrong` has the shape {wrong.shape} and the weights {weights.shape}. "
                "Pass one entry of each per example."
            )
        groups = (
            ("right labels", BLUE, weights[~wrong]),
            ("wrong labels", VERMILION, weights[wrong]),
        )
        for name, colour, group in groups:
            heights = np.histogram(group, bins)[0] * (100 / max(group.size, 1))
            text = f"{name} ({group.size:,})"
            axes.stairs(heights, bins, fill=True, color=colour, alpha=0.4)
            axes.stairs(heights, bins, color=colour, linewidth=1.5, label=text)
        label_axes(axes, x="weight", y="% of each group")
        axes.legend(frameon=False, fontsize=TEXT, labelcolor=INK, loc="best")
    axes.set_xlim(*span)
    return figure


@dataclass(frozen=True)
class _Panel:
    title: str
    keys: tuple[tuple[str, str, str], ...]  # (key of the metrics, name in the legend, colour)
    logarithmic: bool = False


_PANELS = (
    _Panel("Loss", (("loss", "student", BLUE), ("outer_loss", "validation", VERMILION))),
    _Panel("Stationarity ‖F‖", (("stationarity", "", BLUE),), logarithmic=True),
    _Panel("Relative residual", (("relative_residual", "", BLUE),), logarithmic=True),
    _Panel("Effective sample size", (("effective_sample_size", "", BLUE),)),
)


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Small multiples of one run: losses, stationarity, residual, effective sample size.

    A running mean over a 25th of the run is drawn over the raw values (of their logarithms on a
    logarithmic axis). A panel without any finite value is left out.

    Args:
        metrics: Rows of ``metrics.jsonl`` with any of the keys ``step``, ``loss``,
            ``outer_loss``, ``stationarity``, ``relative_residual`` and ``effective_sample_size``;
            values may be missing, ``None`` or not finite.
    """
    curves = {key: _curve(metrics, key) for panel in _PANELS for key, _, _ in panel.keys}
    panels = [panel for panel in _PANELS if any(curves[key][0].size for key, _, _ in panel.keys)]
    if not panels:
        figure = new_figure(WIDTH / 2, 1.0)
        figure.text(0.5, 0.5, "No metrics were recorded.", ha="center", color=GREY, size=TEXT)
        return figure
    figure = new_figure(max(WIDTH * len(panels) / 4, WIDTH / 2), 2.5)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        drawn = [entry for entry in panel.keys if curves[entry[0]][0].size]
        logarithmic = panel.logarithmic and all((curves[key][1] > 0).all() for key, _, _ in drawn)
        for key, name, colour in drawn:
            _draw_curve(axes, *curves[key], name=name, colour=colour, logarithmic=logarithmic)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            low, high = axes.get_ylim()
            few = high < 100 * low  # few powers of ten to read: name what is between them
            axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}") if few else NullFormatter())
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
        if any(name for _, name, _ in drawn):
            axes.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="best")
        axes.set_title(panel.title, loc="left", fontsize=TITLE, color=INK)
        axes.locator_params(axis="x", nbins=4)
        label_axes(axes, x="step")
    return figure


def weights_over_training(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """How the weights moved apart: median and bands of 50 and 90 % by outer step.

    Args:
        metrics: Rows of ``metrics.jsonl``; those that have ``weights`` hold, for "all" examples
            or for the "right" and "wrong" labels where these are known, the quantiles 5, 25, 50,
            75 and 95 %.

    Returns:
        The figure, or None where no weights were recorded.
    """
    rows = [row for row in metrics if row.get("weights")]
    if not rows:
        return None
    figure = new_figure(WIDTH * 0.75, 3.0)
    axes = figure.subplots()
    for key, name, colour in (
        ("all", "", BLUE),
        ("right", "right labels", BLUE),
        ("wrong", "wrong labels", VERMILION),
    ):
        points = [(row["step"], *row["weights"][key]) for row in rows if row["weights"].get(key)]
        if not points:
            continue
        step, least, low, median, high, most = np.array(points, dtype=np.float64).T
        axes.fill_between(step, least, most, color=colour, alpha=0.12, linewidth=0)
        axes.fill_between(step, low, high, color=colour, alpha=0.25, linewidth=0)
        marker = "o" if len(points) == 1 else None
        axes.plot(step, median, color=colour, linewidth=1.6, marker=marker, label=name)
    label_axes(axes, x="step", y="weight")
    axes.set_ylim(0, 1)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=TEXT, labelcolor=INK, loc="best")
    return figure


def precision_curve(
    estimate: Mapping[str, Sequence[float]],
    *,
    first: int = 0,
    wrong: np.ndarray | None = None,
) -> Figure:
    """Share of wrong labels among the most suspicious, by how many are looked at.

    Args:
        estimate: ``first`` (numbers of examples), ``value``, ``low`` and ``high``, (points,) each.
        first: A number of examples to mark; 0 for none.
        wrong: (n,) bool in the order of suspicion, highest first, where the truth is known: its
            precision is drawn beside the estimate.
    """
    count, value, low, high = (
        np.asarray(estimate[name], dtype=np.float64) for name in ("first", "value", "low", "high")
    )
    figure = new_figure(WIDTH * 0.75, 3.0)
    axes = figure.subplots()
    axes.fill_between(count, 100 * low, 100 * high, color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(count, 100 * value, color=BLUE, linewidth=1.6, label="estimated")
    if wrong is not None:
        k = np.arange(1, len(wrong) + 1)
        found = 100 * np.cumsum(wrong) / k
        axes.plot(k, found, color=VERMILION, linewidth=1.4, linestyle="--", label="in truth")
        axes.legend(frameon=False, fontsize=TEXT, labelcolor=INK, loc="best")
    if first:
        axes.axvline(first, color=INK, linewidth=0.9, linestyle=(0, (2, 3)))
        axes.text(first, 102, f"{first:,}", ha="center", va="bottom", fontsize=SMALL, color=INK)
    label_axes(axes, x="the most suspicious, so many", y="% wrong among them")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(0, 101)
    axes.set_xlim(1, max(float(count.max()), 2.0))
    return figure


def method_comparison(
    values: Mapping[str, float | tuple[float, float, float]],
    *,
    label: str,
    highlight: str = "ours",
    lower_is_better: bool = False,
) -> Figure:
    """A horizontal dot plot of methods, the best on top.

    Args:
        values: Method -> value, or (mean, low, high). A method whose value is not finite is
            listed last, without a dot.
        label: What the values are, for the axis.
        highlight: The method in colour. A method called "oracle" is drawn as a reference line.
        lower_is_better: Puts the lowest on top.

    Raises:
        BadInput: Without values.
    """
    if not values:
        raise BadInput("There are no methods to compare. Pass at least one method and its value.")
    triples = {
        name: tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * 3
        for name, value in values.items()
    }
    sign = 1 if lower_is_better else -1
    names = sorted(
        triples,
        key=lambda name: sign * triples[name][0] if math.isfinite(triples[name][0]) else math.inf,
    )
    figure = new_figure(WIDTH * 0.75, 0.8 + 0.27 * len(names))
    axes = figure.subplots()
    for row, name in enumerate(names):
        mean, low, high = triples[name]
        is_ours, is_oracle = name == highlight, name == "oracle"
        colour = BLUE if is_ours else INK if is_oracle else GREY
        if math.isfinite(mean):
            if is_oracle:
                axes.axvline(mean, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            if high > low:
                axes.plot([low, high], [row, row], color=colour, linewidth=2, alpha=0.55, zorder=2)
            face, size = ("white" if is_oracle else colour), (8 if is_ours else 6)
            marker = "D" if is_oracle else "o"
            axes.plot(
                mean, row, marker, color=colour, markerfacecolor=face, markersize=size, zorder=3
            )
        axes.text(
            1.02,
            row,
            f"{mean:.3f}" if math.isfinite(mean) else "–",
            transform=axes.get_yaxis_transform(),
            va="center_baseline",
            color=colour if is_ours else INK,
            fontsize=TEXT,
            fontweight="bold" if is_ours else "normal",
        )
    label_axes(axes, x=label)
    axes.set_yticks(range(len(names)), names, parse_math=False)  # a name may contain dollars
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set(size=TEXT, color=BLUE if name == highlight else INK)
        tick.set_fontweight("bold" if name == highlight else "normal")
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the common style, its sides in inches."""
    return Figure(figsize=(width, height), dpi=200, layout="constrained", facecolor="white")


def label_axes(axes: Axes, *, x: str, y: str = "") -> None:
    """Axis labels and the common style; text is taken literally, not as mathematics."""
    axes.set_xlabel(x, fontsize=TEXT, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=TEXT, color=INK, parse_math=False)
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(which="both", length=0, pad=5, labelsize=SMALL, labelcolor=INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one key, (m,) each, in the order of the steps."""
    points = [
        (float(row.get("step", at)), float(row[key]))
        for at, row in enumerate(metrics)
        if row.get(key) is not None and math.isfinite(row[key])
    ]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]


def _draw_curve(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    *,
    name: str,
    colour: str,
    logarithmic: bool,
) -> None:
    window = steps.size // 25
    if window < 2:
        marker = "o" if steps.size == 1 else None
        axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=name)
        return
    if logarithmic:
        smooth = np.exp(_running_mean(np.log(values), window))
    else:
        smooth = _running_mean(values, window)
    axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.28)
    axes.plot(steps, smooth, color=colour, linewidth=1.6, label=name)


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over ``window`` values, over fewer at the two ends."""
    kernel = np.ones(window)
    counts = np.convolve(np.ones_like(values), kernel, "same")
    return np.convolve(values, kernel, "same") / counts
