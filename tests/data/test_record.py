import json

import pytest
import torch

from commentaries.data import LabelledImages
from commentaries.data.record import check_unchanged, record
from commentaries.errors import BadRun


def images(labels, *, name="set", files=()):
    y = torch.tensor(labels)
    return LabelledImages(torch.zeros(len(y), 1, 2, 2), y, ("a", "b"), name, files)


def test_every_example_is_named():
    parts = {"train": images([0, 1, 1], files=("a/1", "b/2", "b/3")), "test": images([1]),
             "trusted": None}  # fmt: skip
    found = record(parts, skipped=("one was broken",), drawn_from="list")
    assert found["train"] == ["a/1", "b/2", "b/3"]
    assert found["test"] == ["set/0"]
    assert found["trusted"] == []
    assert found["skipped"] == ["one was broken"]
    assert found["drawn_from"] == "list"
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "other",
    [
        {"train": images([0, 1, 0]), "test": images([1])},
        {"train": images([0, 1, 1]), "test": images([0])},
        {"train": images([0, 1, 1]), "test": None},
        {"train": None, "test": images([0, 1, 1, 1])},
    ],
)
def test_labels_are_told_apart(other):
    given = record({"train": images([0, 1, 1]), "test": images([1])})
    assert record({"train": images([0, 1, 1]), "test": images([1])}) == given
    assert record(other)["labels"] != given["labels"]


def test_an_example_does_not_move_from_part_to_part_unseen():
    given = record({"train": images([0, 1]), "test": images([1, 0])})
    moved = record({"train": images([0, 1, 1]), "test": images([0])})
    check_unchanged(given, given, "mine")
    with pytest.raises(BadRun, match=r"The data mine have changed .* \(train, test\)\. Restore"):
        check_unchanged(moved, given, "mine")


def test_what_has_changed_is_named():
    given = record({"train": images([0, 1]), "test": images([1])})
    relabelled = record({"train": images([1, 1]), "test": images([1])})
    with pytest.raises(BadRun, match=r"have changed since this run began \(labels\)"):
        check_unchanged(relabelled, given, "mine")
    with pytest.raises(BadRun, match=r"\(skipped\)"):
        check_unchanged({**given, "skipped": ["x"]}, given, "mine")
    # what an older version has not written is missed, what it has written besides is not
    check_unchanged(given, {**given, "more": 1}, "mine")
    with pytest.raises(BadRun, match=r"\(labels\)"):
        check_unchanged(given, {"train": given["train"], "test": given["test"], "skipped": []}, "d")
