import json
import re

import pytest
import torch

from commentaries.data import Splits, load, split
from commentaries.errors import BadInput


@pytest.fixture(scope="module")
def y():
    return load("digits").y


@pytest.fixture
def uneven():
    """600 labels of three classes, 300, 200 and 100 of them, mixed."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([300, 200, 100]))
    return labels[torch.randperm(600, generator=torch.Generator().manual_seed(5))]


@pytest.mark.parametrize(
    "sizes", [(1300, 100, 397), (1697, 100, 0), (200, 10, 50), (1, 10, 1), (1300, 37, 200)]
)
def test_sizes_and_disjointness(y, sizes):
    train, trusted, test = sizes
    parts = split(y, train=train, trusted=trusted, test=test, seed=3)
    assert [len(part) for part in parts] == [train, trusted, test]
    every = torch.cat(list(parts))
    assert len(every.unique()) == sum(sizes)
    assert 0 <= int(every.min()) <= int(every.max()) < len(y)


def test_classes_are_in_proportion(uneven):
    parts = split(uneven, train=120, trusted=30, test=60, seed=0)
    for part, expected in ((parts.train, [60, 40, 20]), (parts.test, [30, 20, 10])):
        found = uneven[part].bincount(minlength=3)
        assert (found - torch.tensor(expected)).abs().max() <= 1
    assert uneven[parts.trusted].bincount(minlength=3).tolist() == [10, 10, 10]


@pytest.mark.parametrize("trusted", [10, 15, 23, 50, 100])
def test_trusted_examples_are_spread_as_equally_as_can_be(y, trusted):
    parts = split(y, train=1000, trusted=trusted, test=300, seed=1)
    counts = y[parts.trusted].bincount(minlength=10)
    assert counts.max() - counts.min() <= 1


def test_a_rare_class_gives_the_trusted_set_all_it_has():
    y = torch.repeat_interleave(torch.arange(2), torch.tensor([190, 10]))
    parts = split(y, train=100, trusted=60, test=20, seed=0)
    left = 10 - int((y[parts.train] == 1).sum()) - int((y[parts.test] == 1).sum())
    assert int((y[parts.trusted] == 1).sum()) == left > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_smaller_trusted_set_is_the_beginning_of_a_larger_one(y, seed):
    small, large = (split(y, train=900, trusted=t, test=300, seed=seed) for t in (20, 150))
    assert torch.equal(small.trusted, large.trusted[:20])
    assert torch.equal(small.train, large.train)
    assert torch.equal(small.test, large.test)


def test_the_test_set_depends_on_its_own_size_and_the_seed_alone(y):
    a = split(y, train=100, trusted=10, test=300, seed=2)
    b = split(y, train=1000, trusted=100, test=300, seed=2)
    assert torch.equal(a.test, b.test)


def test_it_is_a_function_of_the_seed(y):
    state = torch.get_rng_state()
    a, b, c = (split(y, train=500, trusted=50, test=200, seed=seed) for seed in (7, 7, 8))
    assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))
    assert not any(torch.equal(one, other) for one, other in zip(a, c, strict=True))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((100, 9, 100), "9 trusted examples cannot cover 10 classes."),
        ((1700, 100, 100), "1700 training, 100 trusted and 100 test examples are more than the "
         "1797 there are. Ask for fewer."),
        ((0, 10, 10), "train is 0, but must be positive"),
        ((10, -3, 10), "trusted is -3, but must be positive"),
        ((10, 10, -1), "test is -1, but must be finite and not negative"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(y, sizes, message):
    train, trusted, test = sizes
    with pytest.raises(BadInput, match=re.escape(message)):
        split(y, train=train, trusted=trusted, test=test, seed=0)


def test_a_class_that_is_used_up_is_named():
    y = torch.tensor([0] * 50 + [1])
    with pytest.raises(BadInput, match="No example of class 1 is left for the trusted set"):
        split(y, train=44, trusted=2, test=5, seed=0)


def test_splits_can_be_kept(y):
    parts = split(y, train=500, trusted=50, test=200, seed=7)
    back = Splits.from_lists(json.loads(json.dumps(parts.to_lists())))
    assert all(torch.equal(one, other) for one, other in zip(parts, back, strict=True))
    assert all(rows.dtype == torch.int64 for rows in back)
    assert len(Splits.from_lists({"train": [0], "trusted": [1], "test": []}).test) == 0


@pytest.mark.parametrize(
    "kept",
    [
        None,
        [],
        {"train": [0], "trusted": [1]},
        {"train": [0], "trusted": [1], "test": [2], "more": []},
        {"train": [0], "trusted": [1], "test": 2},
        {"train": [0], "trusted": [1], "test": [0]},
        {"train": [0.5], "trusted": [1], "test": [2]},
        {"train": [True], "trusted": [2], "test": [3]},
        {"train": [-1], "trusted": [1], "test": [2]},
        {"train": ["0"], "trusted": [1], "test": [2]},
    ],
)
def test_what_are_no_kept_splits(kept):
    with pytest.raises(BadInput, match="not the splits of a run"):
        Splits.from_lists(kept)
