import pytest
import torch

from commentaries.data import NOISES, corrupt, load
from commentaries.errors import BadInput


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def wrong_of(digits, noise, rate, seed=0):
    return corrupt(digits.x, digits.y, noise=noise, rate=rate, classes=10, seed=seed)


@pytest.mark.parametrize("noise", ["uniform", "pair"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.4, 0.45, 0.99])
def test_exactly_the_rate(digits, noise, rate):
    given = wrong_of(digits, noise, rate)
    assert int((given != digits.y).sum()) == round(rate * 1797)
    assert given.dtype == torch.int64


def test_none_leaves_all_as_they_are_in_a_new_tensor(digits):
    given = wrong_of(digits, "none", 0.4)
    assert torch.equal(given, digits.y)
    assert given.data_ptr() != digits.y.data_ptr()


def test_pair_moves_to_the_next_class_and_the_last_to_the_first(digits):
    given = wrong_of(digits, "pair", 0.4)
    wrong = given != digits.y
    assert torch.equal(given[wrong], (digits.y[wrong] + 1) % 10)


def test_uniform_moves_to_every_other_class_about_equally():
    y = torch.arange(20_000) % 5
    given = corrupt(y, y, noise="uniform", rate=0.6, classes=5, seed=1)
    shift = (given - y) % 5
    counts = shift.bincount(minlength=5)
    assert int(counts[0]) == 8000
    # 12,000 in four: standard deviation 47
    assert (counts[1:] - 3000).abs().max() < 4 * 47


def test_uniform_does_not_depend_on_the_images(digits):
    one = wrong_of(digits, "uniform", 0.3)
    other = corrupt(digits.x.flip(0), digits.y, noise="uniform", rate=0.3, classes=10, seed=0)
    assert torch.equal(one, other)


def test_block_gives_each_block_one_wrong_label(digits):
    from sklearn.cluster import KMeans

    given = wrong_of(digits, "block", 0.3, seed=4)
    generator = torch.Generator().manual_seed(4)
    count = round(1797 / 26)
    state = int(torch.randint(2**31, (), generator=generator))
    block = torch.from_numpy(
        KMeans(count, random_state=state).fit_predict(digits.x.flatten(1).numpy())
    )
    spoiled = 0
    largest = int(block.bincount().max())
    for each in range(count):
        own = block == each
        if torch.equal(given[own], digits.y[own]):
            continue
        labels = given[own].unique()
        assert len(labels) == 1
        assert int(labels) != int(digits.y[own].mode().values)
        spoiled += int(own.sum())
    # Blocks are added until they hold the rate: more by less than one block.
    assert 0.3 * 1797 <= spoiled < 0.3 * 1797 + largest
    # Few of those labels are right by chance.
    assert 0.24 < float((given != digits.y).double().mean()) <= spoiled / 1797


@pytest.mark.parametrize("noise", ["uniform", "pair", "block"])
def test_it_is_a_function_of_the_seed(digits, noise):
    before, state = digits.y.clone(), torch.get_rng_state()
    one, same, other = (wrong_of(digits, noise, 0.3, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, digits.y)
    assert torch.equal(state, torch.get_rng_state())


def test_two_classes():
    y = torch.arange(100) % 2
    for noise in ("uniform", "pair"):
        given = corrupt(y, y, noise=noise, rate=0.3, classes=2, seed=0)
        assert int((given == 1 - y).sum()) == 30


def test_errors(digits):
    with pytest.raises(BadInput, match=r"There is no kind of noise 'unifrom'\. Did you mean 'unif"):
        wrong_of(digits, "unifrom", 0.3)
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(BadInput, match="The noise rate is"):
            wrong_of(digits, "uniform", rate)
    assert set(NOISES) == {"none", "uniform", "pair", "block"}
