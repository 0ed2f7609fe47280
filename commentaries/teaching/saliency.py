"""Where a trained student looks, by its gradients: what learned masks are compared with."""

from __future__ import annotations

import copy

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

    module = _evaluated(student, theta, seen)
    attribute = Saliency(module).attribute
    pieces = (
        attribute(piece.clone().requires_grad_(), target=module(piece).argmax(1)).sum(
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

    module = _evaluated(student, theta, seen)
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    if not convolutions:
        raise BadInput(
            "Grad-CAM needs a convolution, and this student has none. Choose another student, or "
            "leave out the Grad-CAM window."
        )
    attribute = LayerGradCam(module, convolutions[-1]).attribute
    pieces = []
    for piece in x.split(256):
        found = attribute(piece, target=module(piece).argmax(1), relu_attributions=True)
        assert isinstance(found, Tensor)
        size = (x.shape[2], x.shape[3])
        pieces.append(LayerAttribution.interpolate(found, size, "bilinear").detach())
    return torch.cat(pieces).clamp_min(0)


def _evaluated(student: Student, theta: Params, seen: Tensor) -> nn.Module:
    """A module of its own in evaluation mode, where the images are, for captum to hook into."""
    count = torch.arange(len(seen), device=seen.device)
    buffers = student.statistics(theta, (Batch(seen[i], i, i) for i in count.split(256)))
    module = copy.deepcopy(next(student.modules())).to(seen.device)
    module.load_state_dict({**theta, **buffers}, strict=False)  # constants stay as they are
    return module.requires_grad_(False).eval()
