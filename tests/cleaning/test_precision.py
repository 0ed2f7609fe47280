"""How many to look at, against simulated truth."""

import numpy as np
import pytest

from commentaries.cleaning.precision import (
    Estimate,
    advise,
    expected_precision,
    interval,
    right_labels,
    trusted_above,
)


def drawn(seed, *, n=1500, rate=0.1, trusted=100, separation=3.0):
    """Suspicion of training and trusted examples, and which labels are wrong."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(n) < rate
    suspicion = generator.normal(size=n) + separation * wrong
    return suspicion, generator.normal(size=trusted), wrong


def share(found, wrong, suspicion):
    """The true precision of what is advised."""
    return wrong[np.argsort(-suspicion)[: found.first]].mean()


def test_trusted_examples_above():
    assert trusted_above(np.array([9.0, 3.0, 2.0, 0.0]), np.array([2.0, 1.0, 3.0])).tolist() == [
        0, 1, 2, 3
    ]  # fmt: skip


def test_precision_by_its_formula():
    above = np.array([0, 0, 1, 2])
    plain = 1 - 4 * (above + 1) / 5 / np.arange(1, 5)  # .2, .6, .467, .4
    expected = [plain[1], plain[1], plain[2], plain[3]]
    np.testing.assert_allclose(expected_precision(above, 4, 4.0), expected)


def test_the_interval_is_that_of_the_hypergeometric_draw():
    """Right labels above the a-th highest trusted one, simulated."""
    generator = np.random.default_rng(0)
    trusted, right, a = 20, 50, 3
    counts = []
    for _ in range(20_000):
        order = generator.permutation(trusted + right)  # the first ones are trusted
        place = np.sort(order[:trusted])[a - 1]
        counts.append((order[trusted:] < place).sum())
    low, high = np.quantile(counts, 0.025), np.quantile(counts, 0.975)
    exact = Estimate(50.0, 50.0, 50.0)
    k = np.array([100])
    _, best = interval(k, np.array([a]), trusted, exact)  # fewest above the a-th
    worst, _ = interval(k, np.array([a - 1]), trusted, exact)  # most above the a-th
    assert (1 - best[0]) * 100 == pytest.approx(low, abs=1)
    assert (1 - worst[0]) * 100 == pytest.approx(high, abs=1)


def test_right_labels_are_counted():
    suspicion, trusted, wrong = drawn(0, n=20_000, trusted=20_000, separation=8)
    found = right_labels(np.sort(suspicion)[::-1], trusted)
    assert found.low <= (~wrong).sum() <= found.high
    assert found.value == pytest.approx((~wrong).sum(), rel=0.01)


def test_ties_at_no_suspicion_at_all_do_no_harm():
    """Most right labels may have a suspicion of exactly nothing."""
    suspicion, trusted, wrong = drawn(1, n=5000, trusted=500, rate=0.4, separation=6)
    found = right_labels(np.sort(suspicion.clip(0.3))[::-1], trusted.clip(0.3))
    assert found.low <= (~wrong).sum() <= found.high
    assert found.value == pytest.approx((~wrong).sum(), rel=0.05)


def test_with_many_trusted_examples_the_estimate_is_exact():
    suspicion, trusted, wrong = drawn(0, n=20_000, trusted=20_000, separation=4)
    found = advise(suspicion, trusted)
    assert found.precision is not None
    assert found.precision.value == pytest.approx(share(found, wrong, suspicion), abs=0.03)
    assert found.precision.value == pytest.approx(0.5, abs=0.001)
    order = np.argsort(-suspicion)
    truth = np.cumsum(wrong[order]) / np.arange(1, 20_001)
    np.testing.assert_allclose(found.curve.value[20:], truth[found.curve.first - 1][20:], atol=0.05)


@pytest.mark.parametrize(
    ("rate", "trusted", "separation"),
    [(0.02, 100, 3), (0.1, 20, 3), (0.1, 100, 3), (0.1, 500, 2), (0.4, 100, 6), (0.4, 20, 2)],
)
def test_coverage(rate, trusted, separation):
    """What is said holds in nine cases of ten, where nothing is said included."""
    runs, missed, missed_wrong = 60, 0, 0
    for seed in range(runs):
        suspicion, held, wrong = drawn(seed, rate=rate, trusted=trusted, separation=separation)
        found = advise(suspicion, held)
        missed_wrong += not found.wrong.low <= wrong.sum() <= found.wrong.high
        if found.precision is not None:
            truth = share(found, wrong, suspicion)
            missed += not found.precision.low - 1e-9 <= truth <= found.precision.high + 1e-9
    assert missed <= 0.1 * runs
    assert missed_wrong <= 0.15 * runs


def test_without_wrong_labels_hardly_any_number_is_advised():
    advised = [advise(*drawn(seed, rate=0.0)[:2]).first for seed in range(40)]
    assert sum(first > 0 for first in advised) <= 4


def test_too_few_trusted_examples_advise_nothing():
    suspicion, trusted, _ = drawn(0, n=5000, rate=0.01, trusted=3)
    found = advise(suspicion, trusted)
    assert (found.first, found.precision) == (0, None)


def test_the_curve_never_rises_and_stays_in_its_interval():
    for seed in range(10):
        suspicion, trusted, _ = drawn(seed, rate=0.2)
        curve = advise(suspicion, trusted).curve
        assert (np.diff(curve.value) <= 1e-12).all()
        assert (np.diff(curve.low) <= 1e-12).all()
        assert (curve.low <= curve.high).all()
        assert curve.first[0] == 1
        assert curve.first[-1] == len(suspicion)


@pytest.mark.parametrize("trusted", [1, 2, 7])
def test_ties_and_tiny_sets(trusted):
    found = advise(np.zeros(12), np.zeros(trusted))
    assert found.first == 0
    assert 0 <= found.wrong.low <= found.wrong.value <= found.wrong.high <= 12
