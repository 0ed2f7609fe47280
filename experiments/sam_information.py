"""What a measure of a network says of another one, over pairs of networks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import combinations
from statistics import mean
from typing import NamedTuple


class Information(NamedTuple):
    """What a measure says of the gap.

    Attributes:
        plain: Mutual information of the two signs over the entropy of the gap's, 0 to 1.
        conditional: The least of that given any one hyperparameter of both networks of a pair:
            what is left once none of them can explain both.
        kendall: Mean product of the two signs, -1 to 1 (Kendall's τ).
    """

    plain: float
    conditional: float
    kendall: float


def information(
    measure: Sequence[float], gap: Sequence[float], hyperparameters: Sequence[Sequence[Hashable]]
) -> Information:
    """How well the sign of a measure's difference tells that of the gap's, over ordered pairs.

    Jiang et al. 2020, section 2.2.3, with sets of one hyperparameter, where they also take
    those of two, which would leave few pairs each in a small grid. Pairs that are level in either
    are left out. Few pairs for each condition bias the conditional information upwards.

    Args:
        measure: Of each network.
        gap: Of each network.
        hyperparameters: For each hyperparameter its value in each network.
    """
    pairs = [
        (i, j, measure[i] > measure[j], gap[i] > gap[j])
        for a, b in combinations(range(len(gap)), 2)
        for i, j in ((a, b), (b, a))
        if measure[i] != measure[j] and gap[i] != gap[j]
    ]

    def given(values: Sequence[Hashable]) -> float:
        groups: dict[Hashable, list[tuple[bool, bool]]] = defaultdict(list)
        for i, j, first, second in pairs:
            groups[values[i], values[j]].append((first, second))
        shared = sum(len(signs) * _shared(signs) for signs in groups.values())
        whole = sum(len(signs) * _entropy([b for _, b in signs]) for signs in groups.values())
        return shared / whole if whole else 0.0

    agreements = [1 if first == second else -1 for _, _, first, second in pairs]
    return Information(
        plain=given([None] * len(gap)),
        conditional=min(map(given, hyperparameters)),
        kendall=mean(agreements) if pairs else 0.0,
    )


def _shared(signs: list[tuple[bool, bool]]) -> float:
    """Mutual information of two signs, in nats."""
    first, second = zip(*signs, strict=True)
    return _entropy(first) + _entropy(second) - _entropy(signs)


def _entropy(values: Sequence[Hashable]) -> float:
    """Of the observed frequencies, in nats."""
    shares = [count / len(values) for count in Counter(values).values()]
    return -sum(share * math.log(share) for share in shares)
