"""Where an example's weight comes from: four maps from a batch to logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import BadInput, check_positive
from ..types import Batch, Params
from .teacher import Teacher, images


class Score(Protocol):
    """A logit for each example: the weight is its sigmoid, ½ before anything is learned."""

    def init(self, generator: torch.Generator) -> Params:
        """Initial φ."""
        ...

    def __call__(self, phi: Params, batch: Batch) -> Tensor | Callable[[Tensor], Tensor]:
        """Logits (n,), or a function from the examples' losses (n,) to logits (n,)."""
        ...


@dataclass(frozen=True)
class Table:
    """One free logit for each example of the data set.

    Attributes:
        size: Number of examples; ``batch.index`` runs below it.
    """

    size: int

    def __post_init__(self) -> None:
        check_positive("size", self.size)

    def init(self, generator: torch.Generator) -> Params:
        """All logits zero."""
        return {"logits": torch.zeros(self.size, device=generator.device)}

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """The examples' own logits."""
        return rows_of(phi["logits"], batch.index)


@dataclass(frozen=True)
class LossNetwork:
    """A perceptron from an example's present loss to its logit (Meta-Weight-Net, Shu et al. 2019).

    Attributes:
        width: Hidden tanh units.
    """

    width: int = 100

    def __post_init__(self) -> None:
        check_positive("width", self.width)

    def init(self, generator: torch.Generator) -> Params:
        """Random hidden units, a zero output layer."""
        return _perceptron_init(1, self.width, generator)

    def __call__(self, phi: Params, batch: Batch) -> Callable[[Tensor], Tensor]:
        """A function of the losses, which the student's pass supplies."""
        return lambda losses: _perceptron(phi, losses.unsqueeze(-1))


@dataclass(frozen=True)
class CueNetwork:
    """A perceptron from an example's cues to its logit: it learns which cue to trust, and when.

    Cues are numbers known about each example and its given label, such as how many neighbours
    share the label. They are constants of the function; a training loop replaces them now and
    then with `dataclasses.replace(network, cues=...)`.

    Attributes:
        cues: (N, features), one row for each example of the data set; standardise the columns.
        width: Hidden tanh units.
    """

    cues: Tensor
    width: int = 32

    def __post_init__(self) -> None:
        check_positive("width", self.width)
        if self.cues.dim() != 2:
            raise BadInput(
                f"cues has shape {tuple(self.cues.shape)}, but must be (examples, features). "
                "Stack one column for each cue."
            )

    def init(self, generator: torch.Generator) -> Params:
        """Random hidden units, a zero output layer."""
        return _perceptron_init(self.cues.shape[1], self.width, generator)

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Logits from the examples' cues."""
        return _perceptron(phi, rows_of(self.cues, batch.index).to(phi["out.bias"].device))


class ImageNetwork:
    """A network on the image, with the given label and training progress as extra channels.

    The paper's teacher: progress enters as one constant channel (Raghu et al. 2021, section 3).
    It runs in evaluation mode, so that a weight does not depend on the rest of the batch.

    Args:
        module: A module, or a function that builds one, from (n, channels', h, w) to (n, 1), with
            channels' = channels + classes + 1 for what is switched on below.
        classes: Number of classes, to show the given label as one-hot channels; 0 hides it.
        progress: Whether to show ``batch.progress``.

    Raises:
        BadInput: The module uses batch statistics.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        *,
        classes: int = 0,
        progress: bool = False,
    ):
        self._teacher = Teacher(module)
        self._classes = classes
        self._progress = progress

    def init(self, generator: torch.Generator) -> Params:
        """The module's initial parameters, its last one- or two-dimensional layer set to zero."""
        return self._teacher.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Logits from images (n, channels, h, w)."""
        x = images(batch.x)
        shown = [torch.nn.functional.one_hot(batch.y, self._classes)] if self._classes else []
        progress = batch.progress if self._progress else None
        return self._teacher(phi, planes([x], shown, progress)).squeeze(1)


def planes(pictures: Sequence[Tensor], labels: Sequence[Tensor], progress: float | None) -> Tensor:
    """Images and what is known about them as the channels of one image.

    Args:
        pictures: Images (n, channels, h, w).
        labels: Soft labels (n, classes), each class a constant channel.
        progress: One more constant channel, clamped to [0, 1]; None leaves it out.

    Returns:
        (n, all channels, h, w), of the images' dtype.
    """
    first = pictures[0]
    constant = [
        label.to(first.dtype)[..., None, None].expand(-1, -1, *first.shape[2:]) for label in labels
    ]
    if progress is not None:
        constant.append(torch.full_like(first[:, :1], min(max(progress, 0.0), 1.0)))
    return torch.cat([*pictures, *constant], dim=1)


def rows_of(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor by positions that may be on another device; on the tensor's own."""
    return values[index.to(values.device)]


def _perceptron_init(inputs: int, width: int, generator: torch.Generator) -> Params:
    def draw(*shape: int) -> Tensor:
        bound = 1 / math.sqrt(inputs)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        return bound * (2 * uniform - 1)

    zero = torch.zeros(width, device=generator.device)
    return {
        "hidden.weight": draw(width, inputs),
        "hidden.bias": draw(width),
        "out.weight": zero,
        "out.bias": zero[0].clone(),
    }


def _perceptron(phi: Params, x: Tensor) -> Tensor:
    """(n, inputs) -> (n,)."""
    hidden = torch.tanh(x @ phi["hidden.weight"].mT + phi["hidden.bias"])
    return hidden @ phi["out.weight"] + phi["out.bias"]
