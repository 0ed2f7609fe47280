"""Attention masks: where the student is to look."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import BadInput, check_fraction, check_not_negative, check_positive
from ..types import Batch, Params
from .lesson import Lesson
from .teacher import Teacher, images


class Mask(Protocol):
    """A number in [0, 1] for each pixel of each image, 1 where the student sees it in full."""

    def init(self, generator: torch.Generator) -> Params:
        """Initial φ."""
        ...

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Masks (n, 1, h, w); functions of the images, without the labels."""
        ...


class UNetMask:
    """The sigmoid of a network's output: any shape of mask.

    The network's last layer is zero at first, so that every pixel has the same mask: ½, where
    the sigmoid is steepest and a mask can open as fast as it closes. A higher ``initial`` starts
    nearer to no mask (the student sees the image brighter), with smaller derivatives: those of
    the sigmoid are ``initial`` (1 - ``initial``).

    Args:
        module: A module, or a function that builds one, from images (n, channels, h, w) to
            (n, 1, h, w), for example `networks.unet`. It runs in evaluation mode, so that a mask
            does not depend on the rest of the batch.
        initial: The mask of every pixel before anything is learned, in (0, 1).

    Raises:
        BadInput: The module uses batch statistics, or ``initial`` is not in (0, 1).
    """

    def __init__(self, module: nn.Module | Callable[[], nn.Module], *, initial: float = 0.5):
        if not 0 < initial < 1:
            raise BadInput(
                f"initial is {initial}, but must be between 0 and 1, where a mask can still be "
                "learned. Choose for example 0.5, or 0.9 to start near no mask."
            )
        self._teacher = Teacher(module)
        self._offset = math.log(initial / (1 - initial))

    def init(self, generator: torch.Generator) -> Params:
        """The module's initial parameters, its last layer zero."""
        return self._teacher.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Masks (n, 1, h, w) in (0, 1)."""
        return torch.sigmoid(_plane(self._teacher(phi, batch.x), images(batch.x)) + self._offset)


class GaussianWindow:
    """A window exp(-d² / 2σ²), where d is the distance to a point of the image that is learned.

    The point is the expected place of a pixel drawn from the softmax of a network's output, as
    in the paper's masks (Raghu et al. 2021); at first the middle of the image. σ is one number
    for all images.

    Args:
        module: As for `UNetMask`.
        deviation: σ as a fraction of the image's shorter side.
        learned: Whether σ is learned, from ``deviation`` on, as φ's "log_deviation".

    Raises:
        BadInput: The module uses batch statistics, or ``deviation`` is not positive.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        *,
        deviation: float = 0.2,
        learned: bool = True,
    ):
        check_positive("deviation", deviation)
        self._teacher = Teacher(module)
        self._deviation = deviation
        self._learned = learned

    def init(self, generator: torch.Generator) -> Params:
        """The module's initial parameters, its last layer zero, and log σ where it is learned."""
        phi = self._teacher.init(generator)
        if not self._learned:
            return phi
        log = next(iter(phi.values())).new_tensor(math.log(self._deviation))
        return {**phi, "log_deviation": log}

    def centre(self, phi: Params, x: Tensor) -> Tensor:
        """Where the windows are.

        Args:
            phi: The mask's parameters.
            x: Images (n, channels, h, w).

        Returns:
            (n, 2), row and column in pixels; the first pixel's middle is (0, 0).
        """
        network = {name: value for name, value in phi.items() if name != "log_deviation"}
        logits = _plane(self._teacher(network, x), x)
        share = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape)
        rows, columns = _grid(x)
        return torch.cat([(share * rows).sum((2, 3)), (share * columns).sum((2, 3))], dim=1)

    def __call__(self, phi: Params, batch: Batch) -> Tensor:
        """Masks (n, 1, h, w) in [0, 1]."""
        x = images(batch.x)
        row, column = self.centre(phi, x)[:, :, None, None, None].unbind(1)
        rows, columns = _grid(x)
        distance = (rows - row).square() + (columns - column).square()
        deviation = phi["log_deviation"].exp() if self._learned else self._deviation
        return torch.exp(distance / (-2 * (deviation * min(x.shape[2:])) ** 2))


@dataclass(frozen=True)
class AttentionMasks:
    """A commentary that multiplies each image by a mask.

    Multiplying darkens: what is masked becomes 0, which is black for pixels in [0, 1] and the
    mean for standardised ones. A student that is taught through masks should also be judged and
    used through them, ``judged(student, commentary=masks)``; judged without, it tells whether
    what was learned under masks serves on whole images.

    A mask of ones is never wrong, only idle, so ask for small or sharp masks by a penalty on the
    outer loss. Penalties are means over the images of the batch; `judged` adds them where it is
    given the commentary. The student's own loss has none.

    Attributes:
        mask: Where the masks come from: `UNetMask`, `GaussianWindow`, or any callable of the same
            shape.
        background: In [0, 1): how much is seen of what the mask hides. The image is multiplied by
            background + (1 - background) · mask.
        area: Coefficient of the mean of the mask over the pixels.
        entropy: Coefficient of the entropy of the mask, as a distribution over the pixels, in
            units of the largest: 1 for a flat mask, 0 for a single pixel. It does not see how
            bright the mask is.
    """

    mask: Mask
    background: float = 0.0
    area: float = 0.0
    entropy: float = 0.0

    def __post_init__(self) -> None:
        check_fraction("background", self.background)
        check_not_negative("area", self.area)
        check_not_negative("entropy", self.entropy)

    def init(self, generator: torch.Generator) -> Params:
        """The mask's own initial φ."""
        return self.mask.init(generator)

    def __call__(self, phi: Params, batch: Batch) -> Lesson:
        """The images seen through their masks, the targets as they are, and the penalty."""
        x = images(batch.x)
        mask = self._mask(phi, batch)
        return Lesson(x * self._seen(mask), batch.y, penalty=self._penalty(mask))

    def masks(self, phi: Params, batch: Batch) -> Tensor:
        """What the images are multiplied by: (n, 1, h, w) in [background, 1]."""
        return self._seen(self._mask(phi, batch))

    def _mask(self, phi: Params, batch: Batch) -> Tensor:
        return _plane(self.mask(phi, batch), images(batch.x))

    def _seen(self, mask: Tensor) -> Tensor:
        # exactly 1 where the mask is 1, and exactly the background where it is 0
        return mask + self.background * (1 - mask)

    def _penalty(self, mask: Tensor) -> Tensor | None:
        if not self.area and not self.entropy:
            return None
        penalty = mask.new_zeros(())
        if self.area:
            penalty = penalty + self.area * mask.mean()
        if self.entropy:
            penalty = penalty + self.entropy * relative_entropy(mask).mean()
        return penalty


def relative_entropy(mask: Tensor) -> Tensor:
    """Entropy of masks over their pixels, in units of that of a flat mask.

    -Σ p log p / log(h w) with p = mask / Σ mask. A mask that is zero everywhere counts as flat.

    Args:
        mask: (n, 1, h, w), not negative.

    Returns:
        (n,) in [0, 1], with finite derivatives also where a pixel is exactly 0.
    """
    flat = mask.flatten(1)
    tiny = torch.finfo(mask.dtype).tiny
    empty = flat.sum(1, keepdim=True) <= math.sqrt(tiny)  # before p's derivative overflows
    flat = torch.where(empty, torch.ones_like(flat), flat)
    p = flat / flat.sum(1, keepdim=True)
    return -(p * p.clamp_min(tiny).log()).sum(1) / math.log(max(flat.shape[1], 2))


def _plane(values: Tensor, x: Tensor) -> Tensor:
    """Values, one for each pixel of the images.

    Raises:
        BadInput: They have another shape.
    """
    shape = (x.shape[0], 1, *x.shape[2:])
    if values.shape != shape:
        raise BadInput(
            f"A mask needs one number for each pixel, {tuple(shape)}, for images of shape "
            f"{tuple(x.shape)}, and these are {tuple(values.shape)}. Use a network that keeps the "
            "image's size and has one output, as networks.unet(channels=...) does."
        )
    return values


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each pixel, (h, 1) and (1, w)."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)
    columns = torch.arange(width, device=x.device, dtype=x.dtype)
    return rows[:, None], columns[None, :]
