"""The graph against the same formulae written with loops and a series in place of an inverse."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from commentaries.cleaning import graph as module
from commentaries.cleaning.graph import NeighbourGraph, weighted_labels
from commentaries.errors import BadInput

M, CLASSES = 40, 4


def points(seed=0):
    return torch.randn(M, 3, generator=torch.Generator().manual_seed(seed))


def by_hand(x, neighbours, alpha):
    x = x.double().numpy()
    m = len(x)
    distance = np.array([[math.dist(a, b) for b in x] for a in x])
    near = [[j for j in np.argsort(distance[i]) if j != i][:neighbours] for i in range(m)]
    scale = [distance[i, near[i][-1]] for i in range(m)]
    W = np.zeros((m, m))
    for i in range(m):
        for j in near[i]:
            W[i, j] = W[j, i] = math.exp(-(distance[i, j] ** 2) / (scale[i] * scale[j]))
    S = W / np.sqrt(np.outer(W.sum(0), W.sum(0)))
    total, power = np.eye(m), np.eye(m)
    for _ in range(4000):  # Σ (αS)^k
        power = alpha * (power @ S)
        total += power
    return total


@pytest.mark.parametrize(("neighbours", "alpha"), [(5, 0.9), (3, 0.5), (5, 0.99)])
def test_influence_is_the_sum_over_walks(neighbours, alpha):
    graph = NeighbourGraph.build(points(), neighbours=neighbours, alpha=alpha)
    G = by_hand(points(), neighbours, alpha)
    found = influence(graph)
    np.testing.assert_allclose(found, G, rtol=2e-4, atol=2e-4 * G.max())
    np.testing.assert_allclose(graph.own.numpy(), G.diagonal(), rtol=1e-5)


def influence(graph):
    """G, a column at a time: what a mass of one at each node reaches."""
    return np.stack([graph._influence(e[:, None]).numpy()[:, 0] for e in torch.eye(M)], axis=1)


def test_own_influence_of_large_graphs_is_near(monkeypatch):
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    exact = NeighbourGraph.build(x, neighbours=5, alpha=0.9).own
    monkeypatch.setattr(module, "EXACT", 0)
    near = NeighbourGraph.build(x, neighbours=5, alpha=0.9).own
    everything = 10  # about the sum of a row of G: Σ α^k
    assert (near <= exact + 1e-4).all()
    assert (exact - near).max() < 0.03 * everything
    pairs = torch.tensor([[0.0], [0.1], [50.0], [50.2]])  # two and two
    near = NeighbourGraph.build(pairs, neighbours=1, alpha=0.9).own
    torch.testing.assert_close(near, torch.full((4,), 1 / (1 - 0.81)))


@pytest.fixture
def graph():
    return NeighbourGraph.build(points())


@pytest.fixture
def labels():
    return torch.arange(M) % CLASSES


def test_rows_sum_to_one(graph, labels):
    mass = one_hot(labels, CLASSES).float()
    for shares in (graph.spread(mass), graph.votes_of_others(mass)):
        torch.testing.assert_close(shares.sum(1), torch.ones(M))
        assert (shares >= 0).all()


def test_spread_makes_classes_equally_strong(graph, labels):
    mass = one_hot(labels, CLASSES).float()
    torch.testing.assert_close(
        graph.spread(mass), graph.spread(mass * torch.tensor([1.0, 5, 0.1, 30]))
    )


def test_votes_of_others_by_hand(graph, labels):
    weight = torch.rand(M, generator=torch.Generator().manual_seed(1))
    mass = one_hot(labels, CLASSES) * weight[:, None]
    found = graph.votes_of_others(mass)
    G = influence(graph)
    for i in range(M):
        votes = np.zeros(CLASSES)
        strength = np.zeros(CLASSES)
        for j in range(M):
            if j != i:
                votes[labels[j]] += G[i, j] * float(weight[j])
                strength[labels[j]] += float(weight[j])
        votes /= strength
        np.testing.assert_allclose(found[i].numpy(), votes / votes.sum(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("node", [0, 7, 39])
def test_own_votes_ignore_the_own_label(graph, labels, node):
    mass = one_hot(labels, CLASSES).float()
    before = graph.votes_of_others(mass)
    for other in range(CLASSES):
        changed = labels.clone()
        changed[node] = other
        after = graph.votes_of_others(one_hot(changed, CLASSES).float())
        torch.testing.assert_close(after[node], before[node], rtol=1e-4, atol=1e-5)
        if other != labels[node]:
            assert not torch.allclose(after, before, rtol=1e-3, atol=1e-4)


def test_weighted_votes_of_evidence_ignore_the_own_label(task, evidence):
    from dataclasses import replace

    weight = torch.rand(120, generator=torch.Generator().manual_seed(0))
    before = evidence.opinions(weight)
    y = task.train.y.clone()
    y[5] = (y[5] + 4) % 10
    changed = replace(evidence, task=replace(task, train=replace(task.train, y=y)))
    after = changed.opinions(weight)
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new[5], old[5], rtol=1e-3, atol=1e-4)
    for old, new in zip(before[:2], after[:2], strict=True):  # the third sees trusted labels only
        assert not torch.allclose(new, old, rtol=1e-3, atol=1e-4)


def test_trusted_labels_have_their_share_of_the_mass():
    given, trusted = torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0])
    weight = torch.tensor([0.5, 0.25, 1.0, 0.25])
    mass = weighted_labels(given, weight, trusted, 3, 0.25)
    expected = [[0.5, 0, 0], [0, 0.25, 0], [0, 1, 0], [0, 0, 0.25], [0, 0, 1 / 3], [1 / 3, 0, 0]]
    torch.testing.assert_close(mass, torch.tensor(expected))
    assert float(mass[4:].sum() / mass.sum()) == pytest.approx(0.25)


def test_equal_images_are_no_trouble():
    x = torch.cat([torch.zeros(12, 3), torch.randn(20, 3)])
    assert torch.isfinite(NeighbourGraph.build(x).spread(torch.rand(32, 3))).all()


def test_an_outlier_whose_neighbours_are_all_equal():
    x = torch.cat([torch.zeros(12, 3), torch.full((1, 3), 50.0), torch.randn(20, 3) + 200])
    assert torch.isfinite(NeighbourGraph.build(x).spread(torch.rand(33, 3))).all()


def test_sizes_that_cannot_be():
    with pytest.raises(BadInput, match="A graph of 5 examples with 5 neighbours each"):
        NeighbourGraph.build(torch.rand(5, 2), neighbours=5)
