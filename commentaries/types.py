"""The shapes that pass between the layers: named tensors, batches and functions of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

Params = dict[str, Tensor]
"""Named tensors: student parameters θ, commentary parameters φ, or a direction among either."""

Inputs = Tensor | dict[str, Tensor]
"""What a student reads: one tensor, or several by name; examples along the first dimension."""

Product = Callable[[Params], Params]
"""A linear map known only through its products, v -> A v."""


class Batch(NamedTuple):
    """Examples, where they stand in the data set, and everything random about one evaluation.

    Attributes:
        x: Inputs, (n, ...), or a dict of such tensors.
        y: (n,) int64 labels, (n, classes) soft labels, or (n, ...) regression targets.
        index: (n,) int64 positions in the data set.
        progress: How far training has come, 0 to 1.
        seed: The only source of randomness of an evaluation: the same batch gives the same loss.
    """

    x: Inputs
    y: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    progress: float = 1.0
    seed: int = 0

    @property
    def size(self) -> int:
        """Number of examples (``len`` counts the fields)."""
        return self.y.shape[0]

    def rows(self, rows: slice) -> Batch:
        """The same evaluation restricted to some of its examples."""
        return self._replace(x=select(self.x, rows), y=self.y[rows], index=self.index[rows])


def select(x: Inputs, rows: slice | Tensor) -> Inputs:
    """Rows of a tensor, or of each tensor of a dict."""
    if isinstance(x, dict):
        return {name: value[rows] for name, value in x.items()}
    return x[rows]


Loss = Callable[[Params, Params, Batch], Tensor]
"""(θ, φ, batch) -> scalar mean over the examples; deterministic, and without ``.detach()``."""


class GradFn(Protocol):
    """∇L as a function of θ, for one batch: what an inner optimiser receives."""

    @property
    def size(self) -> int:
        """Number of examples in the batch."""
        ...

    def __call__(self, params: Params, rows: slice | None = None) -> tuple[Params, Tensor]:
        """Returns ∇L(θ) and the detached L(θ), over all examples or some rows of them.

        Differentiable exactly when grad mode is on and θ or φ requires grad.
        """
        ...
