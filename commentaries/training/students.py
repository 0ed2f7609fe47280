"""The network that suits some images, and its learning rate."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..data import LabelledImages
from ..errors import BadInput
from ..networks import build
from ..student import Student

LINEAR = "linear"
"""The network on features."""


def student_for(train: LabelledImages, name: str | None = None) -> Student:
    """A network for some images, or a linear one for features.

    Args:
        train: The training examples; all networks but small_cnn normalise by their channels.
        name: Of `networks.build`; if None, small_cnn for images of less than 16 pixels, else
            conv2.

    Raises:
        BadInput: An unknown name, or images that the network does not take.
    """
    return Student(network_for(train, name))


def network_for(
    train: LabelledImages, name: str | None = None, *, outputs: int | None = None, **options: Any
) -> Callable[[], nn.Module]:
    """What builds the module of `student_for`.

    Args:
        train: As there.
        name: As there.
        outputs: Of the last layer; one for each class of the examples if None.
        options: Further ones of `networks.build`.
    """
    outputs = outputs or len(train.classes)
    name = network_name(train, name)
    if train.x.dim() == 2:
        return partial(nn.Linear, train.x.shape[1], outputs)
    options |= {"channels": train.x.shape[1], "size": train.x.shape[2]}
    if name != "small_cnn":
        options["mean"] = train.x.mean((0, 2, 3)).tolist()
        options["std"] = train.x.std((0, 2, 3), correction=0).clamp_min(1e-3).tolist()
    return partial(build, name, outputs, **options)


def network_name(train: LabelledImages, name: str | None) -> str:
    """The name of the network for some images or features: the one asked for, or a fitting one."""
    if train.x.dim() == 4:
        return name or ("small_cnn" if train.x.shape[2] < 16 else "conv2")
    if name not in (None, LINEAR):
        raise BadInput(
            f"The student is {name!r}, but with a backbone it is a linear layer on the features. "
            "Leave the student out, or the backbone."
        )
    return LINEAR


def rate_scale(train: LabelledImages, name: str | None = None) -> float:
    """Factor of the learning rates for a network: small and linear ones bear four times more."""
    return 1.0 if network_name(train, name) in ("small_cnn", LINEAR) else 0.25


def check_device(name: str) -> None:
    """Refuses a device that torch does not know or this machine does not have."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"There is no device {name!r} here ({str(error).splitlines()[0].rstrip('.')}). "
            "Use cpu, or cuda on a machine that has one."
        ) from error
