"""A network by its name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BadInput, check_positive, unknown
from ..types import Params
from .cbr import cbr
from .conv2 import conv2
from .conv4 import conv4
from .frozen import Frozen
from .library import (
    Classifier,
    head_of,
    timm_model,
    timm_pixels,
    torchvision_model,
    tried,
    without_head,
)
from .normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from .pyramidnet import pyramidnet, pyramidnet_shakedrop
from .resnet import resnet18, resnet32, resnet34
from .shake_shake import shake_shake
from .small import small_cnn
from .weights import load_into, read_weights
from .wide_resnet import wide_resnet

_STUDENTS: dict[str, Callable[..., nn.Module]] = {
    "small_cnn": small_cnn,
    "conv2": conv2,
    "cbr": cbr,
    "conv4": conv4,
    "resnet18": resnet18,
    "resnet32": resnet32,
    "resnet34": resnet34,
    "wide_resnet": wide_resnet,
    "shake_shake": shake_shake,
    "pyramidnet": pyramidnet,
    "pyramidnet_shakedrop": pyramidnet_shakedrop,
}
_LIBRARIES: dict[str, Callable[[str, int, int], Classifier]] = {
    "torchvision": torchvision_model,
    "timm": timm_model,
}

Pixels = tuple[Sequence[float], Sequence[float]]
"""Mean and deviation of each channel."""

STUDENTS: tuple[str, ...] = tuple(_STUDENTS)
"""Networks that need nothing else; beside them "torchvision:NAME" and "timm:NAME"."""


def build(
    name: str,
    outputs: int,
    *,
    channels: int,
    size: int,
    weights: str | Path | None = None,
    frozen: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    width: int | None = None,
) -> nn.Module:
    """A network for some images and classes.

    Give a `Student` the function, ``Student(lambda: build(...))``, so that its initial parameters
    are the weights of the file and a last layer drawn from the seed.

    Args:
        name: One of `STUDENTS`, "torchvision:NAME" or "timm:NAME".
        outputs: Number of outputs.
        channels: Channels of the images (n, channels, size, size).
        size: Height and width of the images.
        weights: A local file to start from (see `read_weights`). A last layer for another number
            of classes is dropped.
        frozen: Train a new last layer only, on the features that the weights give.
        mean: Of each channel of the pixels in [0, 1], which a first layer subtracts; three for
            grey images show the image three times. None: without weights no such layer; with
            them what the file says if it has a `Normalise`, else what published weights of
            torchvision and timm expect.
        std: Of each channel, by which it divides.
        width: Of a network of `STUDENTS`: its own default where None (see each).

    Raises:
        BadInput: An unknown name, images that the network does not take, a file that does not
            fit, or ``frozen`` without weights.
    """
    for label, value in (("outputs", outputs), ("channels", channels), ("size", size)):
        check_positive(label, value)
    if frozen and weights is None:
        raise BadInput(
            f"{name} is to be frozen without pretrained weights, and random features teach little. "
            "Give a weights file, or do not freeze."
        )
    if (mean is None) != (std is None):
        raise BadInput("Of mean and std only one is given. Give both, or neither.")
    found = None if weights is None else read_weights(weights)
    pixels = None if mean is None or std is None else (mean, std)
    if pixels is None and found is not None:
        pixels = _expected(name, found)
    inputs = _inputs(pixels, channels)
    network, heads = _made(name, outputs, inputs, size, width)
    example = torch.zeros(1, inputs, size, size)
    if name not in _STUDENTS:
        tried(network, example, name)
    if found is not None:
        load_into(network, found, weights or "", name=name, heads=heads)
    if frozen:
        body = Frozen(without_head(network, name))
        head = nn.Linear(tried(body, example, name).shape[1], outputs)
        network = nn.Sequential(OrderedDict(backbone=body, head=head))
    return _normalised(network, pixels)


def backbone(
    name: str, weights: str | Path, *, channels: int, size: int = 32, width: int | None = None
) -> nn.Module:
    """A pretrained network up to its last layer, in evaluation mode, of which nothing trains.

    Args:
        name: As in `build`.
        weights: A local file.
        channels: Channels of the images; grey ones are shown to a colour network three times.
        size: Height and width of the images, for small_cnn and cbr, whose weights depend on it.
        width: As in `build`.

    Returns:
        A module from images (n, channels, h, w) in [0, 1] to features (n, d). It normalises as
        the file says if it has a `Normalise`, else as published weights of torchvision and timm
        expect.

    Raises:
        BadInput: An unknown name, or a file that is missing or does not fit.
    """
    check_positive("channels", channels)
    found = read_weights(weights)
    pixels = _expected(name, found)
    network, heads = _made(name, 1, _inputs(pixels, channels), size, width)
    load_into(network, found, weights, name=name, heads=heads)
    return _normalised(Frozen(without_head(network, name)), pixels).eval()


@torch.no_grad()
def embed(backbone: nn.Module, x: Tensor, *, batch: int = 256) -> Tensor:
    """Features of images, some at a time.

    Args:
        backbone: Of `backbone`, or any module; it is put in evaluation mode and runs where its
            parameters are.
        x: (n, channels, h, w) in [0, 1].
        batch: Images at a time.

    Returns:
        (n, d) float32, on the device of x.

    Raises:
        BadInput: The backbone does not take images of this size.
    """
    check_positive("batch", batch)
    backbone.eval()
    device = next((value.device for value in backbone.parameters()), x.device)
    tried(backbone, x[:1].to(device), "The backbone")
    pieces = (backbone(piece.to(device)) for piece in x.split(batch))
    return torch.cat([piece.flatten(1).float().to(x.device) for piece in pieces])


def _made(name: str, outputs: int, inputs: int, size: int, width: int | None) -> Classifier:
    library, _, model = name.partition(":")
    if library in _LIBRARIES and model:
        if width is not None:
            raise BadInput(f"{name} has no width to choose. Leave width out.")
        return _LIBRARIES[library](model, outputs, inputs)
    if name not in _STUDENTS:
        raise unknown("student", name, [*STUDENTS, *(f"{each}:NAME" for each in _LIBRARIES)])
    more = {} if width is None else {"width": width}
    network = _STUDENTS[name](outputs, channels=inputs, size=size, **more)
    return Classifier(network, (head_of(network),))


def _expected(name: str, found: Params) -> Pixels | None:
    """Mean and deviation of the pixels that weights were made with; None where none is known."""
    if {"normalise.mean", "normalise.std"} <= found.keys():
        return found["normalise.mean"].flatten().tolist(), found["normalise.std"].flatten().tolist()
    library, _, model = name.partition(":")
    if library == "timm":
        return timm_pixels(model)
    return (IMAGENET_MEAN, IMAGENET_STD) if library == "torchvision" else None


def _inputs(pixels: Pixels | None, channels: int) -> int:
    """Channels behind the normalisation."""
    given = channels if pixels is None else len(pixels[0])
    if given == channels or (given, channels) == (3, 1):
        return given
    raise BadInput(
        f"mean has {given} values for images of {channels} channels. Give one for each channel "
        "(three also serve grey images)."
    )


def _normalised(network: nn.Module, pixels: Pixels | None) -> nn.Module:
    if pixels is None:
        return network
    return nn.Sequential(OrderedDict(normalise=Normalise(*pixels), network=network))
