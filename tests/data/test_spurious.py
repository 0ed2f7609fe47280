import pytest
import torch

from commentaries.data.spurious import partners, spurious_cue
from commentaries.errors import BadInput

LABELS = torch.arange(10).repeat(500)[torch.randperm(5000, generator=torch.Generator())][:4900]


def cue_of(correlation, seed=0, y=LABELS, cues=10):
    generator = torch.Generator().manual_seed(seed)
    return spurious_cue(y, cues=cues, correlation=correlation, generator=generator)


@pytest.mark.parametrize("correlation", [0, 0.1, 0.333, 0.5, 0.9, 0.95, 1])
def test_exactly_the_share_of_each_class_agrees(correlation):
    cue = cue_of(correlation)
    assert cue.dtype == torch.int64
    for label in range(10):
        own = cue[label == LABELS]
        assert int((own == label).sum()) == round(correlation * len(own))


def test_the_others_have_one_of_the_other_cues_all_equally_likely():
    shift = (cue_of(0) - LABELS) % 10
    counts = shift.bincount(minlength=10)
    assert int(counts[0]) == 0
    # 4,900 in nine: standard deviation 22
    assert (counts[1:] - 4900 / 9).abs().max() < 4 * 22


def test_of_two_cues_none_is_the_other_one():
    y = torch.arange(100) % 2
    assert torch.equal(cue_of(0, y=y, cues=2), 1 - y)


def test_one_in_the_number_of_cues_says_nothing():
    cue = cue_of(0.1)
    table = (10 * LABELS + cue).bincount(minlength=100).reshape(10, 10).double()
    expected = table.sum(1, keepdim=True) / 10
    # chi-squared; the diagonal is exact, so 80 degrees of freedom: above 124.8 once in a thousand
    assert float(((table - expected) ** 2 / expected).sum()) < 124.8


def test_which_images_agree_is_drawn_and_nested():
    some, more = cue_of(0.5), cue_of(0.8)
    assert ((some == LABELS) <= (more == LABELS)).all()
    assert torch.equal(more[more != LABELS], some[more != LABELS])
    first = torch.arange(len(LABELS)) < len(LABELS) // 2
    agreeing = int((some == LABELS)[first].sum())
    assert abs(agreeing - 0.25 * len(LABELS)) < 4 * (len(LABELS) / 16) ** 0.5


def test_it_is_a_function_of_the_seed():
    state = torch.get_rng_state()
    assert torch.equal(cue_of(0.5, 1), cue_of(0.5, 1))
    assert not torch.equal(cue_of(0.5, 1), cue_of(0.5, 2))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("correlation", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_correlation_that_cannot_be(correlation):
    with pytest.raises(BadInput, match=rf"correlation is {correlation}, but must be at least 0 "):
        cue_of(correlation)


def test_too_few_cues():
    with pytest.raises(BadInput, match="There is nothing to mislead with 1 cues"):
        cue_of(0.5, y=torch.zeros(3, dtype=torch.int64), cues=1)
    with pytest.raises(BadInput, match="There are 9 cues for labels up to 9"):
        cue_of(0.5, cues=9)


def partners_of(kind, pool, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return partners(kind, pool, kinds=("a", "b", "c"), generator=generator)


def test_partners_are_of_the_kind_and_evenly_used():
    kind, pool = torch.arange(999) % 3, torch.tensor([0] * 50 + [2] * 400 + [1] * 50)
    found = partners_of(kind, pool)
    assert torch.equal(pool[found], kind)
    uses = found.bincount(minlength=len(pool))
    assert set(uses[pool < 2].tolist()) == {6, 7}
    assert set(uses[pool == 2].tolist()) == {0, 1}
    assert int(uses[pool == 2].sum()) == 333
    assert torch.equal(found, partners_of(kind, pool))
    assert not torch.equal(found, partners_of(kind, pool, 1))


def test_a_kind_that_is_not_there():
    with pytest.raises(BadInput, match="2 images are to go with one of 'c', and there is none"):
        partners_of(torch.tensor([2, 0, 2]), torch.tensor([0, 1]))
