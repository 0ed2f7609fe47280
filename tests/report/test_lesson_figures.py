from itertools import pairwise

import matplotlib
import numpy as np
import pytest

from commentaries.errors import BadInput
from commentaries.report.lesson_figures import (
    commentary_curves,
    image_grid,
    mixed_pairs,
    ratio_map,
    shortened,
)

RATIOS = np.array([[0.5, 0.75, 0.625], [np.nan, 1.0, 0.8], [0.9, 0.55, 0.7]])


def words(axes):
    return [text.get_text() for text in axes.texts]


def ticks(labels):
    return [label.get_text() for label in labels]


def test_a_map_of_ratios():
    figure = ratio_map(RATIOS, ["cat", "dog", "$a$"], low=0.5, high=1.0)
    axes, bar = figure.axes
    (image,) = axes.images
    assert np.array_equal(image.get_array(), RATIOS, equal_nan=True)
    assert image.get_clim() == (0.5, 1.0)
    assert ticks(axes.get_yticklabels()) == ticks(axes.get_xticklabels()) == ["cat", "dog", "$a$"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("example", "mixed with")
    assert words(axes) == [".50", ".75", ".62", "1.00", ".80", ".90", ".55", ".70"]
    assert bar.get_ylabel() == "share of the example itself"
    figure.canvas.draw()


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_can_be_read_on_every_colour():
    """WCAG asks for a contrast of 3 to 1 of large text."""
    values = np.linspace(0, 1, 144).reshape(12, 12)
    axes = ratio_map(values, [str(i) for i in range(12)], low=0.0, high=1.0).axes[0]
    for text, value in zip(axes.texts, values.flatten(), strict=True):
        behind = luminance(matplotlib.colormaps["viridis"](value))
        front = luminance(matplotlib.colors.to_rgb(text.get_color()))
        light, dark = max(behind, front), min(behind, front)
        assert (light + 0.05) / (dark + 0.05) > 3.6, value


def test_many_classes_have_numbers_in_place_of_names():
    ratios = np.full((100, 100), 0.75)
    axes = ratio_map(ratios, [f"class {i}" for i in range(100)], low=0.5, high=1.0).axes[0]
    assert not axes.texts
    assert "class 0" not in ticks(axes.get_yticklabels())
    assert axes.get_ylabel() == "example, class by number"
    axes = ratio_map(ratios[:13, :13], [f"c{i}" for i in range(13)], low=0.5, high=1.0).axes[0]
    assert not axes.texts
    assert ticks(axes.get_yticklabels())[12] == "c12"


def test_long_names_leave_room_for_the_map():
    names = [f"a very long name of a class, the {i}th" for i in range(3)]
    figure = ratio_map(RATIOS, names, low=0.5, high=1.0)
    axes = figure.axes[0]
    figure.canvas.draw()
    assert axes.get_window_extent().width > figure.bbox.width / 4
    assert all(len(label) <= 20 for label in ticks(axes.get_yticklabels()))


@pytest.mark.parametrize("shape", [(3, 2), (2, 2), (3, 3, 1)])
def test_ratios_that_do_not_fit_the_classes(shape):
    with pytest.raises(BadInput, match=r"ratios do not fit 3 classes\. Pass one for each"):
        ratio_map(np.ones(shape), ["a", "b", "c"], low=0.5, high=1.0)


def test_names_are_shortened():
    assert shortened("automobile", 10) == "automobile"
    assert shortened("automobiles", 10) == "automobil…"


def test_pairs_stand_above_each_other():
    rng = np.random.default_rng(0)
    own, other, mixed = rng.random((3, 4, 3, 6, 6))
    titles = [("a", "b", f"{i}") for i in range(4)]
    figure = mixed_pairs(own, other, mixed, titles)
    assert len(figure.axes) == 12
    grid = np.array(figure.axes).reshape(3, 4)
    for row, stack in zip(grid, (own, other, mixed), strict=True):
        for axes, image in zip(row, stack, strict=True):
            assert np.array_equal(axes.images[0].get_array(), image.transpose(1, 2, 0))
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["example", "mixed with", "shown"]
    assert [axes.get_title() for axes in grid[2]] == ["0", "1", "2", "3"]
    assert [axes.get_title() for axes in grid[1]] == ["b"] * 4


def test_a_grid_of_images_maps_and_boxes():
    grey, colour, plane = np.full((1, 5, 7), 0.25), np.full((3, 5, 7), 0.5), np.full((5, 7), 0.75)
    figure = image_grid(
        [[colour, grey], [plane, plane]], rows=["image", "mask"], columns=["one", "two"],
        boxes=[(1, 2, 4, 6), (0, 0, 5, 7)],
    )  # fmt: skip
    axes = np.array(figure.axes).reshape(2, 2)
    assert axes[0, 0].images[0].get_array().shape == (5, 7, 3)
    assert np.array_equal(axes[0, 1].images[0].get_array(), grey[0])
    assert axes[0, 1].images[0].get_cmap().name == "gray"
    assert axes[1, 0].images[0].get_cmap().name == "magma"
    assert all(each.images[0].get_clim() == (0, 1) for each in axes.flat)
    assert [each.get_title() for each in axes[0]] == ["one", "two"]
    assert [each.get_title() for each in axes[1]] == ["", ""]
    for row in axes:  # around the pixels of rows 1 to 3 and columns 2 to 5
        (line,) = row[0].lines
        assert (min(line.get_ydata()), max(line.get_ydata())) == (0.5, 3.5)
        assert (min(line.get_xdata()), max(line.get_xdata())) == (1.5, 5.5)


def test_titles_do_not_run_into_each_other():
    image = np.zeros((8, 8))
    names = ["a name that is far too long"] * 8
    figure = image_grid([[image] * 8], rows=["row"], columns=names)
    figure.canvas.draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    for one, other in pairwise(boxes):
        assert one.x1 < other.x0
    assert boxes[-1].x1 <= figure.bbox.x1


METRICS = [
    {"step": 0, "loss": 1.0},
    {"step": 1, "loss": 1.0, "commentary": {"least": 0.5, "greatest": 0.7}},
    {"step": 2, "loss": 1.0},
    {"step": 3, "loss": 1.0, "commentary": {"least": 0.4, "greatest": None}},
]


def test_curves_of_the_commentary():
    keys = {"least": "the least", "greatest": "the greatest", "mass": "in the box"}
    figure = commentary_curves(METRICS, keys, title="share")
    assert figure is not None
    (axes,) = figure.axes
    least, greatest = axes.lines
    assert (list(least.get_xdata()), list(least.get_ydata())) == ([1, 3], [0.5, 0.4])
    assert (list(greatest.get_xdata()), list(greatest.get_ydata())) == ([1], [0.7])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "the least", "the greatest"
    ]  # fmt: skip
    assert axes.get_ylabel() == "share"


def test_no_curves_of_nothing():
    assert commentary_curves(METRICS[:1], {"least": "the least"}, title="share") is None
    assert commentary_curves([], {"least": "the least"}, title="share") is None
