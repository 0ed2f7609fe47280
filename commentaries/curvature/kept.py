"""A preconditioner that outlives the outer step it was made at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import check_positive
from ..types import Batch, Loss, Params, Product
from .kfac import Block, KroneckerFactors


class Kept:
    """The inverse of Kronecker factors, made anew at every few calls.

    A preconditioner need not belong to the present θ: an older one costs some products, and none
    of its own.

    Args:
        build: What makes the factors, as `KFAC` does.
        every: Calls that one set of factors serves.
    """

    def __init__(
        self, build: Callable[[Loss, Params, Params, Batch], KroneckerFactors], every: int = 10
    ):
        check_positive("every", every)
        self._build, self._every = build, every
        self._age = 0
        self._factors: KroneckerFactors | None = None
        self._inverse: Product | None = None

    def __call__(self, inner: Loss, theta: Params, phi: Params, batch: Batch) -> Product:
        """v -> (K + damping · I)⁻¹ v with the present factors, or new ones at (θ, φ, batch)."""
        if self._inverse is None or self._age == self._every:
            self._factors = self._build(inner, theta, phi, batch)
            self._inverse = self._factors.inverse()
            self._age = 0
        self._age += 1
        return self._inverse

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: tensors in plain containers; empty before the first call."""
        if self._factors is None:
            return {}
        fields = vars(self._factors) | {"blocks": [tuple(b) for b in self._factors.blocks]}
        return {"age": self._age, "factors": fields}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self._age, self._factors, self._inverse = 0, None, None
        if state:
            blocks = tuple(Block(*block) for block in state["factors"]["blocks"])
            self._factors = KroneckerFactors(**state["factors"] | {"blocks": blocks})
            self._inverse, self._age = self._factors.inverse(), state["age"]
