import re
from dataclasses import replace

import pytest
import torch

from commentaries.cleaning import Task
from commentaries.cleaning.job import Job, make_task
from commentaries.data import LabelledImages
from commentaries.errors import BadInput


def images(labels, classes=("a", "b", "c"), size=2):
    y = torch.tensor(labels)
    return LabelledImages(torch.rand(len(y), 1, size, size), y, classes)


def test_training_examples_come_first(task):
    assert (task.size, task.classes, len(task.x), len(task.y)) == (120, 10, 160, 160)
    assert torch.equal(task.x[:120], task.train.x)
    assert torch.equal(task.y[120:], task.trusted.y)
    assert task.is_trusted.nonzero().flatten().tolist() == list(range(120, 160))
    assert int(task.wrong.sum()) == round(0.4 * 120)
    assert replace(task, truth=None).wrong is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("trusted", [10, 23, 40, 75])
def test_halves_are_disjoint_and_stratified(trusted, seed):
    task = make_task(Job(train=50, trusted=trusted, test=50))
    halves = task.halves(seed)
    both = torch.cat(halves)
    assert both.sort().values.tolist() == list(range(50, 50 + trusted))
    assert abs(len(halves[0]) - len(halves[1])) <= 1
    counts = [task.y[half].bincount(minlength=10) for half in halves]
    assert (counts[0] - counts[1]).abs().max() <= 1


def test_halves_are_a_function_of_the_seed(task):
    assert torch.equal(task.halves(1)[0], task.halves(1)[0])
    assert not torch.equal(task.halves(1)[0].sort().values, task.halves(2)[0].sort().values)


@pytest.mark.parametrize(
    ("train", "trusted", "message"),
    [
        (images([0, 1, 2]), images([0, 1, 1]), "The 3 trusted examples hold none of class 'c'"),
        (images([0, 1, 2]), images([1, 1, 0, 0]), "(1 of 3 classes are missing)"),
        (images([0, 1, 2]), images([0, 1, 2], ("a", "c", "b")), "Give both the same classes"),
        (images([0, 1, 2]), images([0, 1, 2], size=3), "Training images have the shape (1, 2, 2) "
         "and trusted ones (1, 3, 3)."),
    ],
)  # fmt: skip
def test_sets_that_do_not_fit(train, trusted, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        Task(train, trusted)


def test_a_task_is_a_function_of_its_job():
    one, same, other = (make_task(Job(train=60, trusted=20, test=30, seed=s)) for s in (1, 1, 2))
    assert torch.equal(one.train.x, same.train.x)
    assert torch.equal(one.train.y, same.train.y)
    assert not torch.equal(one.train.x, other.train.x)
    clean = make_task(Job(train=60, trusted=20, test=30, seed=1, noise="none"))
    assert torch.equal(clean.train.y, one.truth)
    assert torch.equal(clean.train.x, one.train.x)
