"""The page of the main job on data that it has never trained on."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from commentaries.cleaning.options import Job
from commentaries.cleaning.precision import advise
from commentaries.cleaning.prepared import Prepared
from commentaries.cleaning.task import Task
from commentaries.cleaning.weights_table import Line, write_weights
from commentaries.data import LabelledImages
from commentaries.report.weights_page import GIVEN_UP, finding, write_weights_page
from commentaries.student import Student
from commentaries.training import RunFolder
from commentaries.training.strict_json import encode

EVIL = "<script>alert(1)</script>"


def made(path, *, n, classes, size, truth=True):
    """A finished run on one image of noise, which nothing compresses."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, size, size, generator=generator).expand(n, -1, -1, -1)
    right = torch.arange(n) % classes
    wrong = torch.rand(n, generator=generator) < 0.05
    given = torch.where(wrong, (right + 1) % classes, right)
    names = tuple(f"class {i:03} of many {EVIL}" for i in range(classes))
    files = tuple(f"{names[label]}/a file name {row}.jpg" for row, label in enumerate(given))
    train = LabelledImages(x, given, names, "noise", files)
    trusted = LabelledImages(x[: 2 * classes], right[: 2 * classes], names, "trusted")
    task = Task(train, trusted, right if truth else None)
    student = Student(lambda: nn.Linear(1, 1))
    prepared = Prepared(task, student, train, len(trusted), "folder", (), ())
    suspicion = torch.randn(n, generator=generator) + 4 * wrong
    folder = RunFolder.create(path, Job())
    suggested = torch.where(suspicion > 2, right, given)
    write_weights(
        folder,
        [
            Line(files[row], names[given[row]], 0.5, float(suspicion[row]), names[best], 0.9)
            for row, best in enumerate(suggested.tolist())
        ],
    )
    advice = advise(suspicion.numpy(), np.random.default_rng(0).normal(size=len(trusted)))
    unknown = {"ours": None}
    result = {
        "accuracy": unknown, "auroc": unknown, "auroc_rescored": unknown, "examples": n,
        "suggested_differs": int((suggested != given).sum()), "trusted": len(trusted),
        "trusted_from": "folder", "look_at": advice,
    }  # fmt: skip
    folder.write_json("result.json", result)
    folder.log(0, loss=1.0, weights={"all": [0.1, 0.2, 0.3, 0.4, 0.5]})
    return folder, prepared


def test_fifty_thousand_examples_of_a_hundred_classes(tmp_path):
    folder, prepared = made(tmp_path / "run", n=50_000, classes=100, size=32)
    page = write_weights_page(folder, Job(), prepared)
    assert page.stat().st_size < 15e6
    text = page.read_text()
    shown = re.findall('<li class="item[^"]*"', text)
    assert len([each for each in shown if " first" in each]) == 48
    assert 1000 <= len(shown) <= 1048
    for number in range(100):
        assert len([each for each in shown if re.search(rf" c{number}\b", each)]) >= 10
    assert "weights.csv has all 50,000" in text
    assert EVIL not in text
    assert "<script" not in text
    assert "How many to look at" in text


def test_thumbnails_of_photographs_keep_the_page_small(tmp_path):
    folder, prepared = made(tmp_path / "run", n=1100, classes=100, size=96, truth=False)
    page = write_weights_page(folder, Job(), prepared)
    assert page.stat().st_size < 15e6
    assert "data:image/webp;base64" in page.read_text()


def test_few_examples_are_all_shown(tmp_path):
    folder, prepared = made(tmp_path / "run", n=40, classes=4, size=8)
    text = write_weights_page(folder, Job(), prepared).read_text()
    assert text.count('<li class="item') == 40
    assert "weights.csv has all" not in text
    assert "true label: class 000" in text


RESULT = {
    "suggested_differs": 30, "examples": 1000, "trusted": 100, "trusted_from": "folder",
    "look_at": None,
}  # fmt: skip


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def test_what_is_found():
    text = "30 of 1,000 labels (3%) are probably wrong: another label is more likely."
    assert finding(RESULT) == text
    assert finding(RESULT | {"trusted_from": "agreement"}) == f"{text} {GIVEN_UP}"


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (40, "Look at the first 40: about 75% of them are wrong (95 % interval 60% to 90%)."),
        (0, "The 100 trusted examples are too few, or the wrong labels too rare"),
    ],
)
def test_how_many_to_look_at(first, said):
    look_at = {
        "first": first,
        "precision": estimate(0.75, 0.6, 0.9) if first else None,
        "wrong": estimate(31.2, 10, 1234),
    }
    text = finding(RESULT | {"look_at": look_at})
    assert said in text
    assert "about 31 are wrong in all (95 % interval 10 to 1,234)" in text


def test_advice_passes_through_the_result():
    advice = advise(np.arange(50.0), np.arange(20.0))
    read = json.loads(encode({"look_at": advice}))["look_at"]
    assert set(read) == {"first", "precision", "wrong", "curve"}
    assert len(read["curve"]["first"]) == len(read["curve"]["low"])
