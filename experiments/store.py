"""Results that accumulate: one JSON file per experiment, one entry per measured cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from commentaries.report.tables import mean_interval
from commentaries.training import atomic, environment

RESULTS = Path(__file__).parent / "results"

Cell = dict[str, Any]
"""Labels, ``seed``, ``method`` and metrics of one measurement."""


class Store:
    """The measurements of one experiment, kept on the disk after every addition.

    Args:
        name: Of the experiment and of its file in ``experiments/results``.
        labels: The keys that, with the seed, identify what was measured.
        metrics: The keys that hold numbers.
        preset: What was scaled down. What "smoke" measures proves only that everything works: it
            is kept apart, in ``NAME_smoke.json``, and measured anew every time.
        device: Where it is measured. The file names every device and version that its
            measurements are of; where they are to be told apart, a label has to say which.
    """

    def __init__(
        self,
        name: str,
        *,
        labels: Sequence[str],
        metrics: Sequence[str],
        preset: str,
        device: str = "cpu",
    ):
        accumulates = preset != "smoke"
        self.path = RESULTS / f"{name if accumulates else f'{name}_smoke'}.json"
        self.labels = tuple(labels)
        self._metrics = tuple(metrics)
        about = environment.describe(device)  # now: a commit made during a long run is not what ran
        self._header = {
            "experiment": name,
            "preset": preset,
            "device": f"{about['device_name']}, {about['device']}",
            "versions": {"python": about["python"], **about["versions"]},
            "commit": about["commit"],
        }
        self.cells: list[Cell] = []
        if accumulates and self.path.exists():
            before = json.loads(self.path.read_text())
            self.cells = before["cells"]
            self._header["device"] = _joined(before["device"], self._header["device"])
            self._header["versions"] = {
                package: _joined(before["versions"].get(package), version)
                for package, version in self._header["versions"].items()
            }

    def has(self, seed: int, **labels: Any) -> bool:
        """Whether anything was measured for these labels and this seed."""
        return any(
            cell["seed"] == seed and all(cell[key] == value for key, value in labels.items())
            for cell in self.cells
        )

    def by_seed(self, metric: str, **labels: Any) -> dict[int, float]:
        """Seed -> what was measured with these labels."""
        return {
            cell["seed"]: cell[metric]
            for cell in self.cells
            if cell.get(metric) is not None and all(cell[k] == v for k, v in labels.items())
        }

    def add(self, cells: Iterable[Cell]) -> None:
        """Adds measurements and rewrites the file, the summary with it."""
        self.cells.extend(cells)
        self.cells.sort(key=lambda cell: (*(str(cell[k]) for k in self.labels), cell["seed"]))
        content = {
            **self._header,
            "seeds": sorted({cell["seed"] for cell in self.cells}),
            "rows": self.rows(),
            "cells": self.cells,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(self.path, (json.dumps(content, indent=1) + "\n").encode())

    def rows(self) -> list[dict[str, Any]]:
        """One row for each set of labels and metric: mean and 95 % interval over the seeds."""
        groups: dict[tuple[Any, ...], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(tuple(cell[key] for key in self.labels), []).append(cell)
        rows = []
        for labels, cells in groups.items():
            for metric in self._metrics:
                values = [cell[metric] for cell in cells if cell.get(metric) is not None]
                if not values:
                    continue
                mean, low, high = mean_interval(values)
                rows.append(
                    dict(zip(self.labels, labels, strict=True))
                    | {"metric": metric, "value": round(mean, 5)}
                    | {"low": round(low, 5), "high": round(high, 5), "seeds": len(values)}
                )
        return rows

    def table(self) -> list[list[Any]]:
        """One line for each set of labels: these, then every metric's mean; None where unknown."""
        found: dict[tuple[Any, ...], dict[str, float]] = {}
        for row in self.rows():
            found.setdefault(tuple(row[key] for key in self.labels), {})[row["metric"]] = row[
                "value"
            ]
        return [
            [*labels, *(values.get(metric) for metric in self._metrics)]
            for labels, values in found.items()
        ]


def _joined(before: str | None, now: str | None) -> str | None:
    """What a file names already, and what is new beside it."""
    known = before.split("; ") if before else []
    return "; ".join([*known, now] if now and now not in known else known) or None
