import pytest
import torch

from commentaries.data import long_tail
from commentaries.errors import BadInput

TEN = tuple("abcdefghij")


@pytest.fixture
def y():
    return torch.arange(10).repeat(500)[torch.randperm(5000, generator=torch.Generator())]


@pytest.mark.parametrize("imbalance", [1, 10, 50, 100, 200])
def test_sizes_are_those_of_cui(y, imbalance):
    kept = long_tail(y, imbalance=imbalance, classes=TEN, seed=0)
    expected = [int(500 * imbalance ** (-c / 9) + 1e-9) for c in range(10)]
    assert y[kept].bincount().tolist() == expected
    assert expected[0] == 500
    assert expected[-1] == 500 // imbalance
    assert torch.equal(kept, kept.unique())
    assert kept.dtype == torch.int64


def test_it_is_a_function_of_the_seed_and_nested(y):
    state = torch.get_rng_state()
    one, same, other = (long_tail(y, imbalance=20, classes=TEN, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())
    smaller = long_tail(y, imbalance=100, classes=TEN, seed=1)
    assert set(smaller.tolist()) < set(one.tolist())


def test_a_class_keeps_at_least_one_and_at_most_all_it_has():
    y = torch.tensor([0] * 20 + [1] * 3 + [2] * 20)
    kept = long_tail(y, imbalance=1000, classes=("a", "b", "c"), seed=0)
    assert y[kept].bincount().tolist() == [20, 1, 1]
    kept = long_tail(y, imbalance=1.1, classes=("a", "b", "c"), seed=0)
    assert y[kept].bincount().tolist() == [20, 3, 18]


@pytest.mark.parametrize("imbalance", [0.5, 0, -1, float("inf"), float("nan")])
def test_an_imbalance_that_cannot_be(y, imbalance):
    with pytest.raises(BadInput, match=r"The imbalance is .*, but must be at least 1 and finite"):
        long_tail(y, imbalance=imbalance, classes=TEN, seed=0)


def test_one_class(y):
    with pytest.raises(BadInput, match="1 classes have no long tail"):
        long_tail(y * 0, imbalance=10, classes=("a",), seed=0)
