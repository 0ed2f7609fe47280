"""Power iteration: how large a matrix is, from a few products."""

from __future__ import annotations

import math
from typing import NamedTuple

from .. import params as p
from ..errors import NotConverged
from ..types import Params, Product


class LargestEigenvalue(NamedTuple):
    """An estimate of max |λ|.

    Attributes:
        value: The largest growth ‖A v‖ / ‖v‖ that was met: for symmetric A at most max |λ|, and
            never smaller with more iterations.
        curvature: vᵀA v / vᵀv of the last v: negative where what dominates is negative.
        products: Products that were taken.
    """

    value: float
    curvature: float
    products: int


def largest_eigenvalue(product: Product, start: Params, iterations: int) -> LargestEigenvalue:
    """Estimates max |λ| among the eigenvectors that ``start`` has a part of.

    Raises:
        NotConverged: A product is zero or not finite.
    """
    v = p.scale(start, 1 / p.norm(start))
    value = curvature = 0.0
    for _ in range(iterations):
        a_v = product(v)
        length = p.norm(a_v)
        growth, curvature = float(length), float(p.dot(v, a_v))
        if not math.isfinite(growth):
            raise NotConverged(
                "Power iteration met a value that is not finite. Lower the student's learning "
                "rate, or add damping."
            )
        if growth == 0:
            raise NotConverged(
                "The matrix maps a direction of the right-hand side to zero: it is singular. Add "
                "damping, or weight decay to the student."
            )
        value = max(value, growth)
        v = p.scale(a_v, 1 / length)
    return LargestEigenvalue(value, curvature, iterations)
