"""How labels agree with features, beside a count by hand."""

import math

import pytest
import torch
from oracles import relative_error

from commentaries.fewshot.agreement import agreement

Y = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])


def features(y=Y, seed=0, apart=1.0):
    g = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(int(y.max()) + 1, 6, generator=g, dtype=torch.float64)
    return centres[y] + torch.randn(len(y), 6, generator=g, dtype=torch.float64)


def by_hand(x, y, rounds):
    """The definition, example by example and label by label."""
    x = x - x.mean(0)
    labels = y.unique().tolist()

    def mean(i, label, weight):
        total = above = 0.0
        for k in range(len(y)):
            if k != i and y[k] == label:
                total += weight[k]
                above += weight[k] * float(x[i] @ x[k] / (x[i].norm() * x[k].norm()))
        return above / total if total else 0.0

    weight = [1.0] * len(y)
    for each in range(rounds + 1):
        means = [{label: mean(i, label, weight) for label in labels} for i in range(len(y))]
        if each < rounds:
            weight = [
                math.exp(10 * row[int(own)]) / sum(math.exp(10 * v) for v in row.values())
                for row, own in zip(means, y, strict=True)
            ]
    own = [row[int(label)] for row, label in zip(means, y, strict=True)]
    other = [
        max(v for label, v in row.items() if label != int(own_label))
        for row, own_label in zip(means, y, strict=True)
    ]
    return torch.tensor(own, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_the_definition(rounds):
    found = agreement(features(), Y, rounds=rounds)
    for ours, theirs in zip(found, by_hand(features(), Y, rounds), strict=True):
        assert relative_error(ours, theirs) < 1e-9


def test_numbers_of_classes_and_the_mean_of_the_features_do_not_matter():
    x = features()
    found = agreement(x, Y)
    for other in (agreement(x, 7 - 2 * Y), agreement(4 * x + 30, Y)):
        for ours, theirs in zip(found, other, strict=True):
            assert relative_error(ours, theirs) < 1e-9


def test_labels_with_nothing_to_compare():
    lone = agreement(features(), torch.tensor([0, 1, 1, 1, 1, 2, 2, 2, 2]))
    assert float(lone.own[0]) == 0
    assert lone.other.isfinite().all()
    assert float(lone.other[0]) > -1
    same = agreement(features(), torch.zeros(9, dtype=torch.int64))
    assert same.own.isfinite().all()
    assert same.other.tolist() == [-1] * 9


def test_rounds_tell_wrong_labels_better():
    truth = torch.arange(5).repeat_interleave(5)
    g = torch.Generator().manual_seed(1)
    scores = {0: 0.0, 3: 0.0}
    for seed in range(40):
        x = features(truth, seed)
        y = truth.clone()
        wrong = torch.randperm(25, generator=g)[:10]
        y[wrong] = (truth[wrong] + torch.randint(1, 5, (10,), generator=g)) % 5
        bad = y != truth
        for rounds in scores:
            found = agreement(x, y, rounds=rounds)
            fit = found.own - found.other
            scores[rounds] += float((fit[~bad][:, None] > fit[bad]).double().mean()) / 40
    assert scores[0] > 0.65
    assert scores[3] > scores[0] + 0.02
