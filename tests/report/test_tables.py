import json
import math

import numpy as np
import pytest
from scipy import stats

from commentaries.errors import BadInput
from commentaries.report import markdown_table, mean_interval, text_table
from experiments import tables


def test_interval_is_that_of_student():
    values = [0.91, 0.93, 0.88, 0.95, 0.90]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx((np.mean(values), low, high))
    low, high = stats.t.interval(0.5, 4, loc=np.mean(values), scale=stats.sem(values))
    assert mean_interval(values, level=0.5) == pytest.approx((np.mean(values), low, high))


def test_interval_of_two_values_in_closed_form():
    # t(1) is the Cauchy distribution: its 97.5 % quantile is tan(0.475 π); s / √2 = 1 / 2.
    mean, low, high = mean_interval([0.0, 1.0])
    assert mean == 0.5
    assert high - mean == pytest.approx(math.tan(0.475 * math.pi) / 2)
    assert mean - low == pytest.approx(high - mean)


def test_interval_of_one_value_is_that_value():
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)


def test_interval_covers_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(size=(2000, 4))
    intervals = [mean_interval(sample) for sample in samples]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_interval_needs_values(values):
    with pytest.raises(BadInput, match="one number per seed"):
        mean_interval(values)


def test_interval_refuses_a_level_in_per_cent():
    with pytest.raises(BadInput, match="95"):
        mean_interval([1.0, 2.0], level=95)


def test_text_table_is_aligned():
    rows = [["ours", 0.94127, 3, True], ["unweighted", None, 12, False]]
    assert text_table(["method", "accuracy", "n", "exact"], rows).splitlines() == [
        "method      accuracy   n  exact",
        "──────────  ────────  ──  ─────",
        "ours           0.941   3  yes",
        "unweighted         –  12  no",
    ]


def test_text_table_without_rows_is_its_head():
    assert text_table(["a", "bc"], []).splitlines() == ["a  bc", "─  ──"]


def test_text_table_cannot_move_the_cursor():
    assert text_table(["file"], [["a\x1b[2J\nb\udce9"]]).splitlines()[2] == "a [2J b"


def test_small_numbers_do_not_read_as_zero():
    rows = [[0.0], [3.2e-8], [np.float32(0.5)], [float("nan")], [2e9], [np.int64(7)]]
    shown = [line.strip() for line in text_table(["x"], rows).splitlines()[2:]]
    assert shown == ["0.000", "3.2e-08", "0.500", "nan", "2.0e+09", "7"]


def test_markdown_table():
    rows = [["a|b\nc", 0.5], ["d", None]]
    assert markdown_table(["name", "value"], rows).splitlines() == [
        "| name | value |",
        "| --- | ---: |",
        r"| a\|b c | 0.500 |",
        "| d | – |",
    ]


@pytest.mark.parametrize("write", [text_table, markdown_table])
def test_rows_must_fit_the_columns(write):
    with pytest.raises(BadInput, match="2 cells for 1 columns"):
        write(["a"], [[1, 2]])


# The tables of pages


def row(method, noise, value, half=0.01, metric="accuracy", **labels):
    interval = {"low": value - half, "high": value + half}
    return {"method": method, "noise": noise, "metric": metric, "value": value} | interval | labels


RESULT = {
    "experiment": "noise",
    "preset": "smoke",
    "device": "NVIDIA H100",
    "versions": {"python": "3.12.3", "torch": "2.11.0"},
    "commit": "abc",
    "seeds": [0, 1, 2],
    "rows": [
        row("unweighted", 0.2, 0.8),
        row("ours", 0.2, 0.9),
        row("oracle", 0.2, 0.95),
        row("unweighted", 0.4, 0.7001),
        row("ours", 0.4, 0.7004),
        row("ours", 0.2, 0.99, metric="auroc"),
    ],
}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "noise.json").write_text(json.dumps(RESULT))
    return folder


def shown(view, results):
    return tables.table(tables.parse(view), results).splitlines()


def test_view_with_methods_as_columns(results):
    view = "noise metric=accuracy index=noise columns=method methods=ours,unweighted,oracle"
    assert shown(f"{view} reference=oracle", results) == [
        "| noise | ours | unweighted | oracle |",
        "| --- | ---: | ---: | ---: |",
        "| 0.2 | **0.900 ± 0.010** | 0.800 ± 0.010 | 0.950 ± 0.010 |",
        "| 0.4 | **0.700 ± 0.010** | **0.700 ± 0.010** | – |",
        "",
        "<sub>NVIDIA H100; PyTorch 2.11.0, Python 3.12.3; preset smoke; seeds 0 to 2; "
        "mean ± half-width of the 95 % interval.</sub>",
    ]


def test_without_reference_the_oracle_wins(results):
    lines = shown("noise metric=accuracy columns=method noise=0.2", results)
    assert lines[2] == "| 0.2 | 0.800 ± 0.010 | 0.900 ± 0.010 | **0.950 ± 0.010** |"


def test_lower_may_be_better(results):
    lines = shown("noise metric=accuracy columns=method noise=0.2 best=low", results)
    assert lines[2] == "| 0.2 | **0.800 ± 0.010** | 0.900 ± 0.010 | 0.950 ± 0.010 |"


def test_view_by_default_has_a_column_per_metric(results):
    lines = shown("noise", results)
    assert lines[0] == "| method | noise | accuracy | auroc |"
    assert lines[3] == "| ours | 0.2 | 0.900 ± 0.010 | 0.990 ± 0.010 |"
    assert lines[4] == "| oracle | 0.2 | 0.950 ± 0.010 | – |"


def test_one_seed_has_no_interval(results):
    once = RESULT | {"seeds": [7], "rows": [row("ours", 0.2, 0.9, half=0.0)]}
    (results / "once.json").write_text(json.dumps(once))
    assert shown("once", results)[2:] == [
        "| ours | 0.2 | 0.900 |",
        "",
        "<sub>NVIDIA H100; PyTorch 2.11.0, Python 3.12.3; preset smoke; seed 7.</sub>",
    ]


def test_rows_may_have_seeds_of_their_own(results):
    mixed = RESULT | {"rows": [row("a", 0, 0.9, seeds=1), row("b", 0, 0.8, seeds=2)]}
    (results / "mixed.json").write_text(json.dumps(mixed))
    lines = shown("mixed", results)
    assert lines[2:4] == ["| a | 0 | 0.900 |", "| b | 0 | 0.800 ± 0.010 |"]
    assert "; 1 to 2 seeds; mean ±" in lines[-1]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ("", "names no result"),
        ("../secret", "names no result"),
        ("noize", "Did you mean 'noise'"),
        ("noise metric", "'metric' in the table marker"),
        ("noise metric=", "not an option"),
        ("noise metric=a metric=b", "says 'metric' twice"),
        ('noise "metric', "open quote"),
        ("noise columns=method,noise", "takes one value"),
        ("noise best=up", "choice of best 'up'"),
        ("noise metric=acuracy", "Did you mean 'accuracy'"),
        ("noise metric=auroc noise=0.4", "no such rows"),
        ("noise index=nois", "Did you mean 'noise'"),
        ("noise columns=methods", "Did you mean 'method'"),
        ("noise colums=method", "no label in the result 'noise' 'colums'"),
        ("noise metric=accuracy columns=method only=our", "Did you mean 'ours'"),
        ("noise columns=method", "apart in metric. .* such as metric=accuracy"),
        ("noise metric=accuracy index=method", "apart in noise"),
    ],
)
def test_bad_views_say_what_is_wrong(results, view, message):
    with pytest.raises(BadInput, match=message):
        shown(view, results)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no usable 'device'"),
        (json.dumps(RESULT | {"rows": [{"metric": "accuracy"}]}), "no usable 'rows'"),
    ],
)
def test_bad_results_say_what_is_wrong(results, content, message):
    (results / "bad.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        shown("bad", results)


PAGE = """# Title

<!-- table: noise metric=auroc -->
anything
<!-- end table -->

```
<!-- table: an example of a marker -->
```
After.
"""


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- table: noise -->\n", "not ended"),
        ("<!-- table: noise -->\n<!-- table: noise -->\n<!-- end table -->", "not ended"),
        ("<!-- end table -->\n", "ends no table"),
    ],
)
def test_markers_must_pair(results, page, message):
    with pytest.raises(BadInput, match=message):
        tables.render(page, results)


def test_round_trip_of_a_page(results, tmp_path, capsys):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    arguments = ["--pages", str(path), "--results", str(results)]

    assert tables.main([*arguments, "--check"]) == 1
    assert "python -m experiments.tables" in capsys.readouterr().err
    assert path.read_text() == PAGE

    assert tables.main(arguments) == 0
    written = path.read_text()
    assert "| ours | 0.2 | 0.990 ± 0.010 |" in written
    assert "anything" not in written
    assert written.startswith("# Title\n\n<!-- table: noise metric=auroc -->\n\n| method |")
    assert written.endswith(PAGE[PAGE.index("<!-- end") :])

    assert tables.main([*arguments, "--check"]) == 0
    assert tables.main(arguments) == 0
    assert path.read_text() == written

    changed = RESULT | {"rows": [row("ours", 0.2, 0.5, metric="auroc")]}
    (results / "noise.json").write_text(json.dumps(changed))
    assert tables.main([*arguments, "--check"]) == 1


def test_the_command_prints_one_sentence_and_exits_2(results, tmp_path, capsys):
    path = tmp_path / "page.md"
    path.write_text("<!-- table: missing -->\n<!-- end table -->\n")
    assert tables.main(["--pages", str(path), "--results", str(results)]) == 2
    assert capsys.readouterr().err.startswith("There is no result 'missing'.")
    assert tables.main(["--pages", str(tmp_path / "no.md")]) == 2
