"""How many of the most suspicious labels to look at, judged by the trusted ones.

The trusted labels are right, and their suspicion was found as if they had not been: they stand in
for the right labels among the training examples. Of these, as large a share lies above a threshold
as of the trusted ones, and whatever else lies above it is wrong. (This is the false discovery rate
of conformal p-values: Bates, Candès, Lei, Romano and Sesia 2023, with the number of right labels
estimated as by Storey 2002.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LEVEL = 0.95
"""Of every interval here."""

ENOUGH = 0.5
"""Precision down to which looking goes on: every second image that is looked at is wrong."""

SURE = 0.2
"""What the lower end of the precision's interval must reach for a number to be advised."""

TAIL, MIDDLE = 0.1, 0.5
"""Shares of the trusted examples above the two thresholds at which right labels are counted."""

POINTS = 60
"""Places at which the curve has an interval."""


class Estimate(NamedTuple):
    """A number between two ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Curve(NamedTuple):
    """Share of wrong labels among the ``first`` so many of the most suspicious, (points,) each."""

    first: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Advice(NamedTuple):
    """How far to look.

    Attributes:
        first: Number of examples to look at: the most of which at least half are wrong by the
            estimate, and a fifth by the lower end of its interval. 0 where the trusted examples
            are too few to show that of any number, or where hardly a label is wrong.
        precision: Share of wrong labels among these; None for none.
        wrong: Number of wrong labels among all.
        curve: Precision by the number looked at.
    """

    first: int
    precision: Estimate | None
    wrong: Estimate
    curve: Curve


def advise(suspicion: np.ndarray, trusted: np.ndarray) -> Advice:
    """How many of the most suspicious examples to look at.

    Args:
        suspicion: (n,) of the training examples, higher for likely wrong labels.
        trusted: (t,) of trusted examples, right all of them and no part of what the suspicion
            was learned from; t > 0.
    """
    ordered = np.sort(np.asarray(suspicion, dtype=np.float64))[::-1]
    above = trusted_above(ordered, np.asarray(trusted, dtype=np.float64))
    right = right_labels(ordered, np.asarray(trusted, dtype=np.float64))
    precision = expected_precision(above, len(trusted), right.value)
    first = _last_of_enough(precision, above, len(trusted), right)
    count = np.unique(np.geomspace(1, len(ordered), POINTS).round().astype(int))
    if first:
        count = np.union1d(count, [first])
    low, high = interval(count, above[count - 1], len(trusted), right)
    curve = Curve(count, precision[count - 1], low, high)
    at = np.searchsorted(count, first)
    shown = Estimate(*(float(line[at]) for line in curve[1:])) if first else None
    n = len(ordered)
    wrong = Estimate(n - right.value, n - right.high, n - right.low)
    return Advice(first, shown, wrong, curve)


def trusted_above(ordered: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """How many trusted examples are at least as suspicious as the k-th training example, (n,).

    Args:
        ordered: (n,) suspicion of the training examples, highest first.
        trusted: (t,) suspicion of the trusted ones.
    """
    return len(trusted) - np.searchsorted(np.sort(trusted), ordered, side="left")


def right_labels(ordered: np.ndarray, trusted: np.ndarray) -> Estimate:
    """The number R of right labels among the training examples.

    Below a threshold that a share f of the right labels exceeds there are (1 - f) R of them, and
    some wrong ones: R is at most (number below) / (1 - f), the closer the fewer wrong labels look
    right. The value is the least of these for f up to 1/10. The upper end is the lower one of
    those of the least f and of 1/10, which are the most certain; the lower end is that of f = 1/2,
    below which there are fewest wrong labels.
    """
    t = len(trusted)
    tail, middle = max(1, round(TAIL * t)), max(1, round(MIDDLE * t))
    counts = [_counted_below(ordered, trusted, over) for over in range(1, tail + 1)]
    value = min(each.value for each in counts)
    high = min(counts[0].high, counts[-1].high)
    low = _counted_below(ordered, trusted, middle).low
    return Estimate(value, min(low, value), max(high, value))


def _counted_below(ordered: np.ndarray, trusted: np.ndarray, over: int) -> Estimate:
    """R by the threshold at the a-th highest of t trusted examples, ties with it below.

    The interval of Clopper and Pearson for the share above, here with t lowered for the chance in
    the training examples.

    Args:
        ordered: (n,) suspicion of the training examples, highest first.
        trusted: (t,) suspicion of the trusted ones.
        over: a.
    """
    from scipy.special import betaincinv

    n, t = len(ordered), len(trusted)
    threshold = np.sort(trusted)[-over]
    below, above = int((ordered <= threshold).sum()), int((trusted > threshold).sum())
    worth = 1 / (1 + t / n)
    tail = (1 - LEVEL) / 4  # there are two upper ends
    least = betaincinv(worth * above, worth * (t + 1 - above), tail) if above else 0.0
    most = betaincinv(worth * (above + 1), worth * (t - above), 1 - tail)
    value, low, high = (
        min(float(n), float(below / (1 - f))) for f in ((above + 1) / (t + 1), least, most)
    )
    return Estimate(value, low, high)


def expected_precision(above: np.ndarray, trusted: int, right: float) -> np.ndarray:
    """Share of wrong labels among the first k, for every k, (n,); never rising with k.

    1 - R (a + 1) / (t + 1) / k: with a of t trusted examples above, (a + 1) / (t + 1) is the mean
    share of right labels above the next trusted one, and so a little too large. The first k are
    taken to be at least as good as the first k + 1.

    Args:
        above: (n,) of `trusted_above`.
        trusted: Number t of trusted examples.
        right: Number R of right labels.
    """
    k = np.arange(1, len(above) + 1)
    plain = 1 - right * (above + 1) / (trusted + 1) / k
    return np.maximum.accumulate(plain[::-1])[::-1].clip(0, 1)


def interval(
    count: np.ndarray, above: np.ndarray, trusted: int, right: Estimate
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the interval of the precision of the first ``count``, (points,) each.

    How many of R right labels lie above the a-th highest of t trusted ones is beta-binomial with
    (a, t + 1 - a), whatever the distribution of suspicion. The ends take the lowest and highest
    R of its own interval, so that together they are conservative. The lower end, like the
    estimate, never rises with the count.
    """
    from scipy.stats import betabinom

    tail = (1 - LEVEL) / 2
    fewest, most = np.floor(right.low), np.ceil(right.high)
    best = np.where(
        above > 0, betabinom.ppf(tail, fewest, above.clip(1), trusted + 1 - above.clip(1)), 0
    )
    least = (above + 1).clip(None, trusted)
    worst = np.where(
        above < trusted, betabinom.ppf(1 - tail, most, least, trusted + 1 - least), most
    )
    low, high = (1 - worst / count).clip(0, 1), (1 - best / count).clip(0, 1)
    return np.maximum.accumulate(low[::-1])[::-1], high


def _last_of_enough(precision: np.ndarray, above: np.ndarray, trusted: int, right: Estimate) -> int:
    """The most examples whose precision is enough, and surely not nothing; 0 for none."""
    last = int((precision >= ENOUGH).sum())
    while last:
        low, _ = interval(np.array([last]), above[last - 1 : last], trusted, right)
        if low[0] >= SURE:
            return last
        # Fewer examples above as few trusted ones are no surer: on to where there are fewer.
        last = int((above < above[last - 1]).sum())
    return 0
