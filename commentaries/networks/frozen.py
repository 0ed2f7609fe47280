"""A part of a network that is a constant."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn


class Frozen(nn.Module):
    """A network of which nothing trains and nothing moves.

    Its parameters require no grad, and it stays in evaluation mode whatever the network around it
    does: batch normalisation uses its running statistics and never moves them, dropout drops
    nothing. A `Student` honours that in training passes as well.

    Args:
        network: The module; it is changed in place.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Evaluation mode, whatever is asked for."""
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, ...) -> (n, d): what the network returns, flattened."""
        return self.network(x).flatten(1)
