"""The posterior of the true label: near Bayes with known noise, and better than votes or labels."""

import pytest
import torch

from commentaries.cleaning.posterior import NoiseModel, transition

CLASSES, N = 4, 4000


def simulated(T, sharp=2.0, seed=0):
    """True labels, calibrated votes and given labels drawn from a known noise matrix."""
    generator = torch.Generator().manual_seed(seed)
    votes = torch.softmax(sharp * torch.randn(N, CLASSES, generator=generator), dim=1)
    truth = torch.multinomial(votes, 1, generator=generator).squeeze(1)
    given = torch.multinomial(T[truth], 1, generator=generator).squeeze(1)
    return truth, votes, given


def posterior(votes, given):
    return NoiseModel.estimate(votes, given).log_posterior(votes, given).exp()


def uniform(rate):
    return torch.full((CLASSES, CLASSES), rate / (CLASSES - 1)).fill_diagonal_(1 - rate)


def pair(rate):
    return torch.eye(CLASSES) * (1 - rate) + rate * torch.eye(CLASSES).roll(1, dims=1)


@pytest.mark.parametrize("T", [uniform(0.2), uniform(0.6), pair(0.45)], ids=["u20", "u60", "p45"])
def test_better_than_votes_and_labels_and_near_bayes(T):
    truth, votes, given = simulated(T)
    found = posterior(votes, given)
    assert torch.allclose(found.sum(1), torch.ones(N), atol=1e-5)
    bayes = votes * T[:, given].mT
    best = (bayes.argmax(1) == truth).float().mean()
    ours = (found.argmax(1) == truth).float().mean()
    assert ours > best - 0.05  # T is estimated from votes that spread it out at first
    assert ours > (votes.argmax(1) == truth).float().mean() + 0.01
    assert ours > (given == truth).float().mean() + 0.01


def test_the_noise_matrix_is_recovered():
    T = pair(0.3)
    _, votes, given = simulated(T, sharp=4.0)
    assert (transition(posterior(votes, given), given) - T).abs().max() < 0.06


def test_transition_of_known_labels_counts():
    truth, given = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    found = transition(torch.eye(2)[truth], given, smooth=0.0)
    assert torch.allclose(found, torch.tensor([[2 / 3, 1 / 3], [0.0, 1.0]]))
