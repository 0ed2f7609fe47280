"""An outer optimiser that moves the commentary faster than the initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import check_positive
from ..inner import InnerOptimizer
from ..types import GradFn, Params
from .meta_parameters import TEACHER


@dataclass(frozen=True)
class FasterCommentary:
    """Another optimiser whose moves of the commentary are several times as long.

    A commentary begins silent and has much further to go than an initialisation, which would not
    survive its rate.

    Attributes:
        base: The optimiser, such as ``Adam(1e-3)``.
        factor: How many times.
    """

    base: InnerOptimizer[Any]
    factor: float = 10.0

    def __post_init__(self) -> None:
        check_positive("factor", self.factor)

    def init(self, params: Params) -> Any:
        """The base's."""
        return self.base.init(params)

    def gradient(self, grad_fn: GradFn, params: Params, state: Any) -> tuple[Params, Any, Tensor]:
        """The base's."""
        return self.base.gradient(grad_fn, params, state)

    def stationarity(self, gradient: Params, params: Params, state: Any) -> Params:
        """The base's: both come to rest at the same place."""
        return self.base.stationarity(gradient, params, state)

    def update(self, gradient: Params, params: Params, state: Any) -> tuple[Params, Any]:
        """The base's, with longer moves of the commentary."""
        moved, state = self.base.update(gradient, params, state)
        for name, value in params.items():
            if name.startswith(TEACHER):
                moved[name] = value + self.factor * (moved[name] - value)
        return moved, state
