"""Writes the tables of the READMEs from the measured results: ``python -m experiments.tables``.

A table stands between two markers, each alone on its line, outside code fences:

    <!-- table: label_noise_digits metric=accuracy index=noise,trusted columns=method -->
    <!-- end table -->

The first names ``experiments/results/NAME.json``, and may say how its rows are laid out:

    metric=accuracy,auroc    which metrics; all by default
    index=noise,trusted      the labels that form the table's rows; by default all but ``columns``
    columns=method           the label whose values become columns; by default ``metric``
    only=ours,oracle         which of these values, in this order (``methods=`` says the same)
    best=high|low|none       what to print bold in each row; by default high, and none where the
                             columns are metrics
    reference=oracle         columns that never win
    noise=0.2,0.4            any other label: only the rows with one of these values

A value with spaces is quoted: ``index="noise rate"``.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from commentaries.errors import BadInput, CommentariesError, unknown
from commentaries.report.tables import markdown_table

Row = dict[str, Any]

_ROOT = Path(__file__).resolve().parents[1]
_START = re.compile(r"<!--\s*table:\s*(?P<view>.*?)\s*-->")
_END = "<!-- end table -->"
_SIGNS = {"high": 1.0, "low": -1.0, "none": 0.0}
_MEASURED = ("value", "low", "high", "seeds")  # the keys of a row that are not labels


@dataclass(frozen=True)
class View:
    """What a marker asks for.

    Attributes:
        name: The result file, without its ending.
        metric: The metrics to show; all if empty.
        index: The labels that form the table's rows; all but ``columns`` if empty.
        columns: The label whose values become columns.
        only: The columns to show, in this order; all, in the order of the file, if empty.
        best: Which end is printed bold.
        reference: Columns that are never bold.
        where: Label -> the values kept.
    """

    name: str
    metric: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    columns: str = "metric"
    only: tuple[str, ...] = ()
    best: str = "none"
    reference: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()


def render(page: str, results: Path) -> str:
    """The text of a page with every table in it made anew.

    Args:
        page: The present text.
        results: The folder of the result files.

    Raises:
        BadInput: If a marker cannot be read, is not closed, or asks for what was not measured.
    """
    written: list[str] = []
    marker: str | None = None
    fenced = False
    for line in page.splitlines():
        fenced ^= marker is None and line.lstrip().startswith(("```", "~~~"))
        start = None if fenced else _START.fullmatch(line.strip())
        is_end = not fenced and line.strip() == _END
        if marker is None and is_end:
            raise BadInput(f"{_END!r} ends no table. Put a table marker above it, or remove it.")
        if marker is not None and start:
            raise BadInput(f"The table {marker!r} is not ended. Add a line {_END!r} after it.")
        if marker is None or is_end:
            written.append(line)
        if start:
            marker = line.strip()
            written += ["", *table(parse(start["view"]), results).splitlines(), ""]
        elif is_end:
            marker = None
    if marker is not None:
        raise BadInput(f"The table {marker!r} is not ended. Add a line {_END!r} after it.")
    return "\n".join(written) + "\n"


def parse(text: str) -> View:
    """Reads what stands in a marker after ``table:``.

    Raises:
        BadInput: If it has no name, or a part that is not ``key=value``.
    """
    try:
        name, *parts = shlex.split(text) or [""]
    except ValueError as error:
        raise BadInput(f"The table marker {text!r} has an open quote. Close it.") from error
    if not re.fullmatch(r"[\w-]+", name):
        raise BadInput(
            f"The table marker {text!r} names no result. "
            "Begin with the name of a file in experiments/results, without its ending."
        )
    options: dict[str, tuple[str, ...]] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        values = tuple(piece.strip() for piece in value.split(","))
        if not key or not equals or not all(values):
            raise BadInput(
                f"{part!r} in the table marker {text!r} is not an option. "
                "Write options as key=value or key=value,value."
            )
        key = "only" if key == "methods" else key
        if key in options:
            raise BadInput(f"The table marker {text!r} says {key!r} twice. Keep one of the two.")
        options[key] = values
    columns = _single(options, "columns", "metric", text)
    best = _single(options, "best", "none" if columns == "metric" else "high", text)
    if best not in _SIGNS:
        raise unknown("choice of best", best, _SIGNS)
    return View(
        name=name,
        metric=options.pop("metric", ()),
        index=options.pop("index", ()),
        columns=columns,
        only=options.pop("only", ()),
        best=best,
        reference=options.pop("reference", ()),
        where=tuple(options.items()),
    )


def table(view: View, results: Path) -> str:
    """One table in Markdown, with the line below it that says how it was measured.

    Raises:
        BadInput: If the result is missing or not of the agreed shape, or the view does not fit it.
    """
    result = _read(view.name, results)
    labels = _labels(result["rows"])
    for label in (*view.index, view.columns):
        if label not in labels:
            raise unknown(f"label in the result {view.name!r}", label, labels)
    rows = _select(result["rows"], view)
    present = _unique(_text(row.get(view.columns)) for row in rows)
    for column in (*view.only, *view.reference):
        if column not in present:
            raise unknown(f"{view.columns} in the result {view.name!r}", column, present)
    columns = list(view.only) or present
    index = view.index or tuple(label for label in labels if label not in ("metric", view.columns))
    cells: dict[tuple[tuple[str, ...], str], Row] = {}
    for row in rows:
        place = tuple(_text(row.get(label)) for label in index), _text(row.get(view.columns))
        if place[1] not in columns:
            continue
        if place in cells:
            raise BadInput(_ambiguous(view.name, place, (cells[place], row), labels))
        cells[place] = row
    body = []
    for labelled in _unique(labelled for labelled, _ in cells):
        row = [cells.get((labelled, column)) for column in columns]
        body.append([*labelled, *_cells_of_row(row, columns, view, result)])
    align_right = [False] * len(index) + [True] * len(columns)
    markdown = markdown_table([*index, *columns], body, align_right=align_right)
    return f"{markdown}\n\n{_provenance(result, cells.values())}"


def _cells_of_row(
    row: Sequence[Row | None], columns: Sequence[str], view: View, result: Row
) -> list[str]:
    """The texts of one table row, the best of them bold; so are those that read the same."""
    sign = _SIGNS[view.best]
    rivals = {
        at: sign * round(cell["value"], 3)
        for at, (cell, column) in enumerate(zip(row, columns, strict=True))
        if cell is not None and _is_number(cell["value"]) and column not in view.reference
    }
    winners = [at for at, score in rivals.items() if score == max(rivals.values())]
    bold = winners if sign and len(rivals) > 1 else []
    texts = [_measured(cell, result) for cell in row]
    return [f"**{text}**" if at in bold else text for at, text in enumerate(texts)]


def _measured(row: Row | None, result: Row) -> str:
    if row is None or not _is_number(row["value"]):
        return "–"
    if not _has_interval(row, result):
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ± {(row['high'] - row['low']) / 2:.3f}"


def _has_interval(row: Row, result: Row) -> bool:
    return _seeds(row, result) > 1 and _is_number(row.get("low")) and _is_number(row.get("high"))


def _seeds(row: Row, result: Row) -> int:
    return int(row.get("seeds", len(result["seeds"])))


def _provenance(result: Row, rows: Iterable[Row]) -> str:
    """Device, versions, preset, seeds, and what stands behind the ±."""
    rows = list(rows)
    versions = result["versions"]
    names = {"torch": "PyTorch", "python": "Python"}
    parts = [
        str(result["device"]),
        ", ".join(f"{name} {versions[key]}" for key, name in names.items() if key in versions),
        f"preset {result['preset']}" if result.get("preset") else "",
        _seed_text(result["seeds"], {_seeds(row, result) for row in rows}),
    ]
    if any(_has_interval(row, result) for row in rows):
        parts.append("mean ± half-width of the 95 % interval")
    return f"<sub>{'; '.join(part for part in parts if part)}.</sub>"


def _seed_text(seeds: Sequence[int], counts: set[int]) -> str:
    if len(counts) > 1:
        return f"{min(counts)} to {max(counts)} seeds"
    if counts and counts != {len(seeds)}:
        return "one seed" if counts == {1} else f"{max(counts)} seeds"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds))}"


def _read(name: str, results: Path) -> Row:
    path = results / f"{name}.json"
    if not path.is_file():
        known = [other.stem for other in results.glob("*.json")]
        if known:
            raise unknown("result", name, known)
        raise BadInput(f"There is no {path}. Run the experiment, or correct the table's marker.")
    try:
        result = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}. Run the experiment again.") from error
    shape = {"device": str, "versions": dict, "seeds": list, "rows": list}
    wrong = [key for key, kind in shape.items() if not isinstance(_get(result, key), kind)]
    if not wrong and not all("value" in row and "metric" in row for row in result["rows"]):
        wrong = ["rows"]
    if wrong:
        raise BadInput(
            f"{path} has no usable {', '.join(map(repr, wrong))}. Run the experiment again."
        )
    return result


def _select(rows: Sequence[Row], view: View) -> list[Row]:
    """The rows that the view keeps; a value that occurs nowhere is an error, not an empty table."""
    kept = list(rows)
    wanted = (*view.where, *((("metric", view.metric),) if view.metric else ()))
    for label, values in wanted:
        if label not in _labels(rows):
            raise unknown(f"label in the result {view.name!r}", label, _labels(rows))
        present = _unique(_text(row.get(label)) for row in rows)
        for value in values:
            if value not in present:
                raise unknown(f"{label} in the result {view.name!r}", value, present)
        kept = [row for row in kept if _text(row.get(label)) in values]
    if not kept:
        raise BadInput(f"The result {view.name!r} has no such rows. Loosen the table's marker.")
    return kept


def _ambiguous(name: str, place: object, rows: tuple[Row, Row], labels: Iterable[str]) -> str:
    apart = [label for label in labels if _text(rows[0].get(label)) != _text(rows[1].get(label))]
    if not apart:
        return f"The result {name!r} has two rows for {place}. Run the experiment again."
    return (
        f"The table of {name!r} has several values in one cell, apart in {', '.join(apart)}. "
        f"Add them to index=, or choose one value, such as "
        f"{apart[0]}={_text(rows[0].get(apart[0]))}."
    )


def _labels(rows: Iterable[Row]) -> list[str]:
    return _unique(key for row in rows for key in row if key not in _MEASURED)


def _unique(values: Iterable[Any]) -> list[Any]:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def _text(label: object) -> str:
    if label is None:
        return "–"
    return f"{label:g}" if isinstance(label, float) else str(label)


def _get(result: object, key: str) -> object:
    return result.get(key) if isinstance(result, dict) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value  # NaN is not


def _single(options: dict[str, tuple[str, ...]], key: str, default: str, text: str) -> str:
    value, *others = options.pop(key, (default,))
    if others:
        raise BadInput(f"{key}= in the table marker {text!r} takes one value. Remove the others.")
    return value


@dataclass(frozen=True)
class Options:
    """Makes the tables of pages in Markdown from experiments/results.

    Attributes:
        check: Change nothing; exit with 1 if a table is out of date.
        pages: The files with the markers.
        results: The folder of the result files.
    """

    check: bool = False
    pages: tuple[Path, ...] = (_ROOT / "README.md", _ROOT / "experiments" / "README.md")
    results: Path = _ROOT / "experiments" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0, 1 (out of date), 2 (cannot be made)."""
    options = tyro.cli(Options, args=arguments)
    try:
        for page in options.pages:
            if not page.is_file():
                raise BadInput(f"There is no {page}. Name the files with --pages.")
        present = {page: page.read_text("utf-8") for page in options.pages}
        fresh = {page: render(text, options.results) for page, text in present.items()}
    except CommentariesError as error:
        print(error, file=sys.stderr)
        return 2
    stale = [page for page in options.pages if fresh[page] != present[page]]
    for page in stale:
        if options.check:
            print(f"{page} is out of date. Run `python -m experiments.tables`.", file=sys.stderr)
        else:
            page.write_text(fresh[page], "utf-8")
            print(f"Wrote the tables of {page}.")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
