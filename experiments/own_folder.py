"""A folder of 2,000 images with 100 swapped labels: found, reviewed by a person, and run again.

    python -m experiments.own_folder                  # seeds 0-2, two data sets
    python -m experiments.own_folder --preset smoke   # one small folder

Images are written as PNG files in class folders and go through the command line, as a user's own
would. The person of the review looks at as many images as the run says, at most 200, and knows
the right labels. Every (row, seed) is kept as soon as it is measured, and skipped from then on.
"""

from __future__ import annotations

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro
from PIL import Image
from torch import Tensor

from commentaries.cli import main as command
from commentaries.data import LabelledImages, load, split
from commentaries.report import text_table

from .parallel import measure_all
from .store import Cell, Store


class Folder(NamedTuple):
    """A data set as a user might have it.

    Attributes:
        data: The set its images come from.
        size: Training images.
        swapped: How many of them lie in a wrong class folder.
        trusted: Images in the trusted folder; 0 for a run without one.
        seed: Of the draw and the run.
        steps: Outer steps.
    """

    data: str
    size: int
    swapped: int
    trusted: int
    seed: int
    steps: int = 300


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": Fashion-MNIST and CIFAR-10, with and without trusted images. "smoke": 300
            images, a tenth of the steps.
        seeds: Of the cells.
        name: Of the result file.
        workers: Processes of one thread.
    """

    preset: Literal["paper", "smoke"] = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    name: str = "own_folder"
    workers: int = 2


MOST = 200
"""Images that the person of the review looks at, at most."""


def folders(arguments: Arguments) -> list[Folder]:
    """The cells of a preset."""
    if arguments.preset == "smoke":
        return [Folder("fashion_mnist", 300, 15, 50, arguments.seeds[0], 30)]
    sets = (("fashion_mnist", 100), ("cifar10", 200), ("fashion_mnist", 0))
    return [Folder(data, 2_000, 100, t, seed) for seed in arguments.seeds for data, t in sets]


def measure(folder: Folder) -> list[Cell]:
    """Writes the folder, runs it, reviews it and runs it again."""
    with tempfile.TemporaryDirectory() as place:
        return _measured(folder, Path(place))


def _measured(folder: Folder, place: Path) -> list[Cell]:
    images = load(folder.data)
    parts = split(
        images.y, train=folder.size, trusted=max(folder.trusted, 10), test=2_000, seed=folder.seed
    )
    train = images.rows(parts.train)
    given = swapped(train.y, folder.swapped, len(train.classes), folder.seed)
    names = write(train, given, place / "train")
    write(images.rows(parts.test), None, place / "test")
    options = ["--test", str(place / "test"), "--seed", str(folder.seed), "--controls", "none"]
    options += ["--settings.steps", str(folder.steps)]
    if folder.trusted:
        write(images.rows(parts.trusted), None, place / "trusted")
        options += ["--trusted", str(place / "trusted")]
    run, again = str(place / "run"), str(place / "again")
    _call("learn", "weights", "--data", str(place / "train"), "--out", run, *options)
    wrong = {name for name, a, b in zip(names, given, train.y, strict=True) if a != b}
    right = dict(zip(names, (folder_of(train, k) for k in train.y.tolist()), strict=True))
    ranked = _ranked(place / "run")
    result = json.loads((place / "run" / "result.json").read_text())
    count = min((result["look_at"] or {}).get("first") or len(wrong), MOST)
    with (place / "looked.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "label"])
        table.writerows([name, right[name]] for name in ranked[:count])
    _call("review", run, "--accept", str(place / "looked.csv"), "--out", again)
    after = json.loads((place / "again" / "result.json").read_text())
    found = len(wrong & set(ranked[: len(wrong)]))
    looked = len(wrong & set(ranked[:count]))
    labels = {"data": folder.data, "trusted": folder.trusted, "seed": folder.seed}
    return [
        labels
        | {"precision at the number swapped": found / len(wrong)}
        | {"looked at": count, "precision of those": looked / count}
        | {"recall of those": looked / len(wrong)}
        | {"accuracy": result["accuracy"]["ours"], "accuracy reviewed": after["accuracy"]["ours"]}
    ]


def swapped(y: Tensor, count: int, classes: int, seed: int) -> Tensor:
    """Labels of which so many are moved to another class."""
    generator = torch.Generator().manual_seed(20_000 + seed)
    chosen = torch.randperm(len(y), generator=generator)[:count]
    given = y.clone()
    shift = torch.randint(1, classes, (count,), generator=generator)
    given[chosen] = (y[chosen] + shift) % classes
    return given


def write(images: LabelledImages, given: Tensor | None, place: Path) -> list[str]:
    """Writes PNG files in class folders; returns their paths as under ``place``."""
    names = []
    for row, label in enumerate((images.y if given is None else given).tolist()):
        name = f"{folder_of(images, label)}/{row:05}.png"
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = (images.x[row] * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(place / name)
        names.append(name)
    return names


def folder_of(images: LabelledImages, label: int) -> str:
    """The folder of a class: "T-shirt/top" would be two."""
    return images.classes[label].replace("/", "-")


def _call(*arguments: str) -> None:
    if code := command(arguments):
        raise RuntimeError(f"commentaries {' '.join(arguments)} ended with {code}")


def _ranked(run: Path) -> list[str]:
    """Files of a run, the most distrusted first."""
    with (run / "weights.csv").open(newline="", encoding="utf-8-sig") as stream:
        lines = sorted(csv.DictReader(stream), key=lambda line: -float(line["suspicion"]))
    return [line["file"] for line in lines]


METRICS = (
    "precision at the number swapped",
    "looked at",
    "precision of those",
    "recall of those",
    "accuracy",
    "accuracy reviewed",
)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = Store(
        arguments.name, labels=("data", "trusted"), metrics=METRICS, preset=arguments.preset
    )
    left = [
        folder
        for folder in folders(arguments)
        if not kept.has(folder.seed, data=folder.data, trusted=folder.trusted)
    ]
    measure_all(measure, left, kept, workers=arguments.workers)
    rows = [[row[name] for name in ("data", "trusted", "metric", "value")] for row in kept.rows()]
    print(text_table(("data", "trusted", "metric", "value"), rows))


if __name__ == "__main__":
    main()
