import pytest
import torch

from commentaries.cleaning.cues import (
    CUES,
    FLOOR,
    cue_values,
    margins,
    of_label,
    standardised,
    svm_decisions,
)
from commentaries.errors import BadInput


@pytest.fixture
def opinion(task):
    scores = torch.randn(task.size, task.classes, generator=torch.Generator().manual_seed(0))
    return scores.log_softmax(1)


def test_cues_are_standardised_and_cut(task, evidence, opinion):
    cues = evidence.cues(CUES, torch.full((task.size,), 0.5), opinion)
    assert cues.shape == (120, 5)
    assert cues.abs().max() <= 3
    for name, column in zip(CUES, cues.T, strict=True):
        kept = column[column.abs() < 3]
        assert abs(float(kept.mean())) < 0.3, name
        assert 0.6 < float(column.std()) <= 1.01, name


def test_each_cue_is_what_its_name_says(task, evidence, opinion):
    weight = torch.full((task.size,), 0.5)
    votes = evidence.weighted_votes(weight)
    values = cue_values(CUES, evidence.margin, evidence.trusted_votes[:120], votes, opinion)
    assert values.shape == (120, 10, 5)
    i, c = 17, 4
    others = [float(evidence.margin[i, k]) for k in range(10) if k != c]
    expected = [
        float(evidence.margin[i, c]) - max(others),
        float((evidence.trusted_votes[i, c] + FLOOR).log()),
        float((votes[i, c] + FLOOR).log()),
        -float(opinion[i, c]),
        float(opinion[i, c].exp()),
    ]
    torch.testing.assert_close(values[i, c], torch.tensor(expected))


def test_cues_tell_right_labels_from_wrong_ones(task, evidence, opinion):
    cues = evidence.cues(
        ("margin", "trusted_votes", "weighted_votes"), torch.full((task.size,), 0.5), opinion
    )
    wrong = task.wrong
    assert (cues[~wrong].mean(0) > cues[wrong].mean(0) + 0.5).all()


def test_their_order_is_that_of_the_names(task, evidence, opinion):
    weight = torch.full((task.size,), 0.5)
    both = evidence.cues(("loss", "margin"), weight, opinion)
    torch.testing.assert_close(both[:, 1], evidence.cues(CUES, weight, opinion)[:, 0])


def test_an_unknown_cue(task, evidence, opinion):
    with pytest.raises(BadInput, match=r"There is no cue 'margins'\. Did you mean 'margin'\?"):
        evidence.cues(("margins",), torch.ones(task.size), opinion)  # pyright: ignore


def test_margins():
    scores = torch.tensor([[3.0, 1.0, -2.0], [0.0, 0.0, -1.0]])
    expected = torch.tensor([[2.0, -2.0, -5.0], [0.0, 0.0, -1.0]])
    assert torch.equal(margins(scores), expected)


def test_standardised():
    columns = torch.tensor([[0.0, 7.0], [2.0, 7.0], [4.0, 7.0], [100.0, 7.0]])
    found = standardised(columns, columns[:3])
    spread = (8 / 3) ** 0.5
    expected = torch.tensor([[-2 / spread, 0], [0, 0], [2 / spread, 0], [3, 0]])
    torch.testing.assert_close(found, expected)


def test_of_label():
    values = torch.arange(12).reshape(2, 3, 2)
    assert of_label(values, torch.tensor([2, 0])).tolist() == [[4, 5], [6, 7]]


def test_two_classes_have_two_decision_values():
    x = torch.cat([torch.zeros(5, 2), torch.ones(5, 2)])
    y = torch.arange(10) // 5
    found = svm_decisions(x, y, x, 2)
    assert found.shape == (10, 2)
    assert torch.equal(found.argmax(1), y)
