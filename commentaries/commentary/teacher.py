"""A network that reads images to teach: it sees each image alone, and says nothing at first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..student import Student
from ..types import Inputs, Params


class Teacher:
    """A module in evaluation mode, whose last layer is zero before anything is learned.

    Args:
        module: A module, or a function that builds one.

    Raises:
        BadInput: The module uses batch statistics.
    """

    def __init__(self, module: nn.Module | Callable[[], nn.Module]):
        self._network = Student(module)
        if self._network.uses_batch_statistics:
            raise BadInput(
                "A teacher with batch normalisation says things that depend on the rest of the "
                "batch. Use group normalisation in it, as networks.unet() and "
                "networks.cbr(norm='group') do."
            )

    def init(self, generator: torch.Generator) -> Params:
        """The module's initial parameters, its last layer of two or more dimensions zero."""
        phi = self._network.init(generator)
        last = [name for name, value in phi.items() if value.dim() >= 2][-1:]
        silent = {*last, *(name.removesuffix("weight") + "bias" for name in last)}
        return {k: torch.zeros_like(v) if k in silent else v for k, v in phi.items()}

    def __call__(self, phi: Params, x: Inputs) -> Tensor:
        """The module's output for images (n, channels, h, w); x is one tensor.

        Raises:
            BadInput: The inputs are a dict.
        """
        return self._network(phi, images(x), buffers={})


def images(x: Inputs) -> Tensor:
    """The inputs, which are one image tensor.

    Raises:
        BadInput: They are a dict.
    """
    if isinstance(x, dict):
        raise BadInput(
            f"This commentary reads one image tensor, but the inputs are a dict of {sorted(x)}. "
            "Write one of your own: any object with init(generator) and __call__(phi, batch)."
        )
    return x
