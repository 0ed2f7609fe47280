"""Where a trained student looks, by its gradients: what learned masks are compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..student import Student
from ..types import Batch, Params


def saliency(student: Student, theta: Params, x: Tensor, *, seen: Tensor) -> Tensor:
    """|∂ z_c / ∂ pixel| of the predicted class c, summed over the channels (Simonyan et al. 2014).

    Args:
        student: The network.
        theta: Its parameters.
        x: Images (n, channels, h, w).
        seen: Training images, for the statistics of batch normalisation.

    Returns:
        (n, 1, h, w), not negative.
    """
    from captum.attr import Saliency

    forward = _forward(student, theta, seen)
    attribute = Saliency(forward).attribute
    pieces = (
        attribute(piece.clone().requires_grad_(), target=forward(piece).argmax(1)).sum(
            1, keepdim=True
        )
        for piece in x.split(256)
    )
    return torch.cat([piece.detach() for piece in pieces])


def grad_cam(student: Student, theta: Params, x: Tensor, *, seen: Tensor) -> Tensor:
    """Grad-CAM of the predicted class at the last convolution (Selvaraju et al. 2017).

    Args:
        student: The network, with at least one convolution.
        theta: Its parameters.
        x: Images (n, channels, h, w).
        seen: Training images, for the statistics of batch normalisation.

    Returns:
        (n, 1, h, w), not negative, interpolated to the size of the images.

    Raises:
        BadInput: The student has no convolution.
    """
    from captum.attr import LayerAttribution, LayerGradCam

    convolutions = [part for part in student.modules() if isinstance(part, nn.Conv2d)]
    if not convolutions:
        raise BadInput(
            "Grad-CAM needs a convolution, and this student has none. Choose another student, or "
            "leave out the Grad-CAM window."
        )
    forward = _forward(student, theta, seen)
    attribute = LayerGradCam(forward, convolutions[-1]).attribute
    pieces = []
    for piece in x.split(256):
        found = attribute(piece, target=forward(piece).argmax(1), relu_attributions=True)
        assert isinstance(found, Tensor)
        size = (x.shape[2], x.shape[3])
        pieces.append(LayerAttribution.interpolate(found, size, "bilinear").detach())
    return torch.cat(pieces).clamp_min(0)


def _forward(student: Student, theta: Params, seen: Tensor) -> Callable[[Tensor], Tensor]:
    count = torch.arange(len(seen), device=seen.device)
    buffers = student.statistics(theta, (Batch(seen[i], i, i) for i in count.split(256)))
    theta = {name: value.detach() for name, value in theta.items()}
    return lambda x: student(theta, x, buffers=buffers)
