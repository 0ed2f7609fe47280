from collections import Counter

import pytest
import torch

from commentaries.data import NOISES, corrupt, load, look_alikes
from commentaries.data.look_alikes import CIFAR100_SUPERCLASSES
from commentaries.data.named import default_root
from commentaries.errors import BadInput


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def wrong_of(digits, noise, rate, seed=0):
    return corrupt(digits.x, digits.y, noise=noise, rate=rate, classes=digits.classes, seed=seed)


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
    given = corrupt(y, y, noise="uniform", rate=0.6, classes=tuple("abcde"), seed=1)
    shift = (given - y) % 5
    counts = shift.bincount(minlength=5)
    assert int(counts[0]) == 8000
    # 12,000 in four: standard deviation 47
    assert (counts[1:] - 3000).abs().max() < 4 * 47


def test_uniform_does_not_depend_on_the_images(digits):
    one = wrong_of(digits, "uniform", 0.3)
    other = corrupt(
        digits.x.flip(0), digits.y, noise="uniform", rate=0.3, classes=digits.classes, seed=0
    )
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


@pytest.mark.parametrize("noise", ["uniform", "pair", "block", "asymmetric", "instance"])
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
        given = corrupt(y, y, noise=noise, rate=0.3, classes=("a", "b"), seed=0)
        assert int((given == 1 - y).sum()) == 30


def test_errors(digits):
    with pytest.raises(BadInput, match=r"There is no kind of noise 'unifrom'\. Did you mean 'unif"):
        wrong_of(digits, "unifrom", 0.3)
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(BadInput, match="The noise rate is"):
            wrong_of(digits, "uniform", rate)
    with pytest.raises(BadInput, match="There are no wrong labels with 1 classes"):
        corrupt(digits.x, digits.y * 0, noise="uniform", rate=0.3, classes=("a",), seed=0)
    assert set(NOISES) == {"none", "uniform", "pair", "asymmetric", "instance", "block"}


CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def flips(classes, rate=0.4, n=100):
    """{(true, given): how many} of `n` examples of each class, the right ones left out."""
    y = torch.arange(len(classes)).repeat_interleave(n)
    given = corrupt(y, y, noise="asymmetric", rate=rate, classes=classes, seed=3)
    pairs = zip(y[given != y].tolist(), given[given != y].tolist(), strict=True)
    return Counter((classes[true], classes[wrong]) for true, wrong in pairs)


def test_asymmetric_cifar10_is_that_of_patrini():
    expected = {
        ("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"),
        ("dog", "cat"),
    }  # fmt: skip
    found = flips(CIFAR10)
    assert found == dict.fromkeys(expected, 40)
    assert flips(CIFAR10[::-1]) == found  # by name, whatever the order


def test_asymmetric_digits():
    expected = {("7", "1"), ("2", "7"), ("5", "6"), ("6", "5"), ("3", "8")}
    assert flips(tuple("0123456789"), rate=0.17) == dict.fromkeys(expected, 17)


def test_asymmetric_fashion():
    from torchvision.datasets import FashionMNIST

    found = flips(tuple(FashionMNIST.classes))
    assert set(found.values()) == {40}
    assert len(found) == 6
    assert ("Shirt", "T-shirt/top") in found


def test_asymmetric_cifar100_stays_in_the_superclass():
    members = [line.split() for line in CIFAR100_SUPERCLASSES.splitlines()]
    classes = tuple(sorted(name for line in members for name in line))
    assert len(members) == 20
    assert len(set(classes)) == 100
    found = flips(classes, rate=0.2, n=10)
    assert found == {
        (line[i], line[(i + 1) % 5]): 2 for line in members for i in range(5)
    }  # fmt: skip
    assert all(line == sorted(line) for line in members)


def test_the_classes_of_cifar100_are_known():
    if not (default_root() / "cifar-100-python").exists():
        pytest.skip(f"cifar100 is not in {default_root()}; set COMMENTARIES_DATA")
    assert len(look_alikes(load("cifar100", "test").classes)) == 100


@pytest.mark.parametrize("classes", [("cat", "dog"), ("a", "b", "c", "d"), (*CIFAR10, "extra")])
def test_asymmetric_noise_needs_known_look_alikes(classes):
    y = torch.arange(2)
    with pytest.raises(BadInput, match=r"does not know which of the classes .* choose pair noise"):
        corrupt(y, y, noise="asymmetric", rate=0.3, classes=classes, seed=0)


@pytest.mark.parametrize("rate", [0.2, 0.4, 0.6])
def test_instance_noise_has_the_rate(digits, rate):
    given = wrong_of(digits, "instance", rate)
    share = float((given != digits.y).double().mean())
    assert abs(share - rate) < 4 * (rate * (1 - rate) / 1797) ** 0.5
    assert 0 <= int(given.min()) <= int(given.max()) <= 9


def test_instance_noise_depends_on_the_image(digits):
    # Two copies of each image: those of which both are wrong mostly have the same wrong label.
    x, y = digits.x.repeat(2, 1, 1, 1), digits.y.repeat(2)
    one, two = corrupt(
        x, y, noise="instance", rate=0.5, classes=digits.classes, seed=0
    ).chunk(2)  # fmt: skip
    both = (one != digits.y) & (two != digits.y)
    assert float((one == two)[both].double().mean()) > 0.8
    # ... but one class goes to several others.
    assert len(one[both & (digits.y == 3)].unique()) >= 3


def test_flip_rates_are_a_truncated_normal():
    from scipy.stats import truncnorm

    from commentaries.data.noise import _truncated_normal

    for mean in (0.05, 0.4, 0.95):
        drawn = _truncated_normal(20_000, mean, torch.Generator().manual_seed(0))
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
        expected = truncnorm(-mean / 0.1, (1 - mean) / 0.1, loc=mean, scale=0.1)
        assert abs(float(drawn.mean()) - expected.mean()) < 4 * expected.std() / 20_000**0.5
        assert abs(float(drawn.std()) / expected.std() - 1) < 0.03


def test_instance_noise_of_no_rate_and_of_features(digits):
    assert torch.equal(wrong_of(digits, "instance", 0.0), digits.y)
    y = torch.arange(3000) % 3
    x = torch.randn(3000, 5, generator=torch.Generator().manual_seed(0))
    given = corrupt(x, y, noise="instance", rate=0.3, classes=("a", "b", "c"), seed=0)
    assert abs(float((given != y).double().mean()) - 0.3) < 0.035


def test_blocks_of_many_examples(digits, monkeypatch):
    from commentaries.data import noise

    monkeypatch.setattr(noise, "ONE_LEVEL", 500)
    block = noise._neighbourhoods(digits.x.flatten(1), 0)
    sizes = block.bincount()
    assert int(sizes.min()) >= 1
    assert abs(len(sizes) - 69) <= 8

    def purity(of):
        return sum(
            int(digits.y[of == each].bincount().max()) for each in of.unique()
        ) / 1797  # fmt: skip

    assert purity(block) > 0.9  # nearly as neighbourly as at once, 0.97
    given = wrong_of(digits, "block", 0.4)
    assert 0.3 < float((given != digits.y).double().mean()) < 0.45


def test_blocks_of_images_that_are_all_the_same():
    y = torch.arange(100) % 4
    given = corrupt(
        torch.zeros(100, 1, 2, 2), y, noise="block", rate=0.3, classes=tuple("abcd"), seed=0
    )  # fmt: skip
    assert len(given) == 100
