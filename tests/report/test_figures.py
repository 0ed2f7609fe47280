import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import StepPatch

from commentaries.errors import BadInput
from commentaries.report import figures


def texts(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_import_leaves_pyplot_alone():
    code = "import sys, commentaries.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_figures_leave_global_settings_alone():
    before = dict(matplotlib.rcParams)
    figures.weight_histogram(np.linspace(0, 1, 20))
    figures.training_curves([{"step": 0, "loss": 1.0}])
    figures.method_comparison({"ours": 1.0}, label="accuracy")
    assert dict(matplotlib.rcParams) == before


def test_histogram_counts_every_example():
    weights = np.random.default_rng(0).random(500)
    (axes,) = figures.weight_histogram(weights).axes
    assert sum(bar.get_height() for bar in axes.patches) == 500
    assert axes.get_xlim() == (0.0, 1.0)


def test_histogram_groups_are_shares_of_themselves():
    weights = np.array([0.1] * 5 + [0.9] * 95)
    (axes,) = figures.weight_histogram(weights, weights < 0.5).axes
    steps = [patch for patch in axes.patches if isinstance(patch, StepPatch) and patch.get_fill()]
    assert [patch.get_data().values.sum() for patch in steps] == pytest.approx([100, 100])
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["right labels (95)", "wrong labels (5)"]
    assert to_hex(steps[0].get_facecolor()) != to_hex(steps[1].get_facecolor())


def test_histogram_with_no_wrong_label_and_weights_above_one():
    (axes,) = figures.weight_histogram(np.array([0.0, 3.0]), np.array([False, False])).axes
    assert axes.get_xlim() == (0.0, 3.0)


@pytest.mark.parametrize(
    ("weights", "wrong"),
    [
        (np.array([]), None),
        (np.array([0.5, np.nan]), None),
        (np.ones((2, 2)), None),
        (np.ones(3), np.array([True])),
    ],
)
def test_histogram_refuses(weights, wrong):
    with pytest.raises(BadInput, match="Pass one"):
        figures.weight_histogram(weights, wrong)


def test_curves_have_a_panel_for_each_measured_quantity():
    metrics = [{"step": at, "loss": 1.0, "stationarity": 10.0**-at} for at in range(10)]
    metrics[3] |= {"loss": math.nan, "outer_loss": None, "relative_residual": math.inf}
    figure = figures.training_curves(metrics)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Loss", "Stationarity ‖F‖"]
    loss, stationarity = figure.axes
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["student"]
    assert stationarity.get_legend() is None
    assert loss.get_yscale() == "linear"
    assert stationarity.get_yscale() == "log"
    assert list(loss.lines[0].get_xdata()) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_curves_are_linear_where_a_value_is_zero():
    figure = figures.training_curves([{"step": at, "relative_residual": 0.0} for at in range(3)])
    assert figure.axes[0].get_yscale() == "linear"


def test_curves_smooth_in_front_of_the_raw_line():
    noise = np.random.default_rng(0).normal(size=600)
    figure = figures.training_curves([{"step": at, "loss": float(x)} for at, x in enumerate(noise)])
    raw, smooth = figure.axes[0].lines
    assert np.array_equal(raw.get_ydata(), noise)
    assert raw.get_alpha() < 1
    assert np.std(smooth.get_ydata()) < 0.4 * np.std(noise)
    assert len(smooth.get_ydata()) == 600


def test_running_mean_keeps_a_constant_and_averages():
    assert figures._running_mean(np.full(9, 2.0), 4) == pytest.approx(np.full(9, 2.0))
    assert figures._running_mean(np.array([1.0, 2.0, 6.0]), 3) == pytest.approx([1.5, 3.0, 4.0])


def test_curves_of_a_resumed_run_are_in_order_of_steps():
    figure = figures.training_curves([{"step": at, "loss": at} for at in (0, 2, 1)])
    assert list(figure.axes[0].lines[0].get_ydata()) == [0, 1, 2]


def test_curves_without_metrics_say_so():
    figure = figures.training_curves([])
    assert [text.get_text() for text in figure.texts] == ["No metrics were recorded."]


def test_comparison_is_sorted_and_highlighted():
    values = {"ours": (0.9, 0.88, 0.92), "unweighted": 0.7, "oracle": 0.95, "failed": math.nan}
    (axes,) = figures.method_comparison(values, label="accuracy").axes
    assert texts(axes) == ["oracle", "ours", "unweighted", "failed"]
    assert axes.get_xlabel() == "accuracy"
    assert [text.get_text() for text in axes.texts] == ["0.950", "0.900", "0.700", "–"]
    weights = {label.get_text(): label.get_fontweight() for label in axes.get_yticklabels()}
    assert weights == {
        "oracle": "normal",
        "ours": "bold",
        "unweighted": "normal",
        "failed": "normal",
    }
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first row is the upper one
    (interval,) = [line for line in axes.lines if list(line.get_xdata()) == [0.88, 0.92]]
    assert to_hex(interval.get_color()) == figures.BLUE.lower()


def test_comparison_of_losses_has_the_lowest_on_top():
    values = {"ours": 0.1, "unweighted": 0.4}
    (axes,) = figures.method_comparison(values, label="loss", lower_is_better=True).axes
    assert texts(axes) == ["ours", "unweighted"]


def test_comparison_takes_dollars_literally(tmp_path):
    figure = figures.method_comparison({"a$^$b": 1.0}, label="cost in $ per $^$")
    figure.savefig(tmp_path / "figure.png")
    assert texts(figure.axes[0]) == ["a$^$b"]


def test_comparison_needs_values():
    with pytest.raises(BadInput, match="at least one"):
        figures.method_comparison({}, label="accuracy")


def test_weights_over_training():
    rows = [
        {"step": 3, "weights": {"right": [0.1, 0.2, 0.3, 0.4, 0.5], "wrong": [0.0] * 5}},
        {"step": 4, "loss": 1.0},
        {"step": 7, "weights": {"right": [0.3, 0.4, 0.5, 0.6, 0.7]}},
    ]
    figure = figures.weights_over_training(rows)
    assert figure is not None
    (axes,) = figure.axes
    right, wrong = axes.get_lines()
    assert right.get_xydata().tolist() == [[3, 0.3], [7, 0.5]]
    assert wrong.get_xydata().tolist() == [[3, 0.0]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "right labels", "wrong labels"
    ]  # fmt: skip
    assert figures.weights_over_training([{"step": 0, "loss": 1.0}]) is None


@pytest.mark.parametrize("known", [False, True])
def test_precision_curve(known):
    estimate = {"first": [1, 2, 4], "value": [1, 0.9, 0.5], "low": [0, 0, 0.2], "high": [1, 1, 1]}
    wrong = np.array([True, False, True, False]) if known else None
    (axes,) = figures.precision_curve(estimate, first=2, wrong=wrong).axes
    lines = axes.get_lines()
    assert lines[0].get_ydata().tolist() == [100, 90, 50]
    assert len(lines) == 2 + known
    if known:
        assert lines[1].get_ydata() == pytest.approx([100, 50, 200 / 3, 50])
    assert [text.get_text() for text in axes.texts] == ["2"]
