"""Networks of torchvision and timm, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import BadInput, unknown
from .normalise import IMAGENET_MEAN, IMAGENET_STD
from .weights import first_convolution


class Classifier(NamedTuple):
    """A network, and which of its parts know the classes.

    Attributes:
        network: (n, channels, h, w) -> (n, outputs).
        heads: Names of its last layers.
    """

    network: nn.Module
    heads: tuple[str, ...]


def torchvision_model(name: str, outputs: int, channels: int) -> Classifier:
    """A classification model of torchvision with random weights.

    Raises:
        BadInput: There is no such model.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    # training passes return one tensor, and nothing warns of a change that does not matter here
    single: dict[str, Any] = {"aux_logits": False, "init_weights": True}
    more = single if name in ("googlenet", "inception_v3") else {}
    network = models.get_model(name, weights=None, num_classes=outputs, **more)
    _adapt_channels(network, channels)
    return Classifier(network, (head_of(network),))


def timm_model(name: str, outputs: int, channels: int) -> Classifier:
    """A model of timm with random weights.

    Raises:
        BadInput: timm is not installed, or has no such model.
    """
    timm = _timm(name)
    network = timm.create_model(name, pretrained=False, num_classes=outputs, in_chans=channels)
    heads = network.default_cfg.get("classifier") or head_of(network)
    return Classifier(network, (heads,) if isinstance(heads, str) else tuple(heads))


def timm_pixels(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of each colour that the published weights of a timm model expect.

    Raises:
        BadInput: timm is not installed, or has no such model.
    """
    settings = _timm(name).get_pretrained_cfg(name)
    return (IMAGENET_MEAN, IMAGENET_STD) if settings is None else (settings.mean, settings.std)


def _timm(name: str) -> Any:
    """The package, which has a model of this name."""
    try:
        import timm
    except ImportError as error:
        raise BadInput(
            f"timm:{name} needs timm, which is not installed. Install it with pip install timm, "
            "or choose a torchvision model."
        ) from error
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    return timm


def head_of(network: nn.Module) -> str:
    """The name of the last linear layer, else of the last convolution."""
    for kind in (nn.Linear, nn.Conv2d):
        names = [name for name, part in network.named_modules() if isinstance(part, kind)]
        if names:
            return names[-1]
    return ""


def without_head(network: nn.Module, name: str) -> nn.Module:
    """The network up to what its last linear layer reads; it is changed in place.

    Args:
        network: A classifier.
        name: Of the network, for the message.

    Raises:
        BadInput: The network does not end in a linear layer.
    """
    cut: Any = getattr(network, "reset_classifier", None)
    if cut is not None:  # timm's own way
        cut(0)
        return network
    head = head_of(network)
    if not isinstance(network.get_submodule(head), nn.Linear):
        raise BadInput(
            f"{name} does not end in a linear layer, so it has no features to give. Choose a "
            "network that does, for example torchvision:resnet18."
        )
    network.set_submodule(head, nn.Identity())
    return network


@torch.no_grad()
def tried(network: nn.Module, x: Tensor, name: str) -> Tensor:
    """The output in evaluation mode for some images; the network is left in its mode.

    Raises:
        BadInput: The network does not take images of this size.
    """
    training = network.training
    network.eval()
    try:
        return network(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        shape = " x ".join(str(side) for side in x.shape[1:])
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
        raise BadInput(
            f"{name} does not take images of {shape} ({reason}). Resize them, usually to 224 x "
            "224 pixels, or choose another network."
        ) from error
    finally:
        network.train(training)


def _adapt_channels(network: nn.Module, channels: int) -> None:
    """Gives the first convolution another number of input channels, drawn by He et al. 2015."""
    name = first_convolution(network)
    if name is None:
        return
    old = network.get_submodule(name)
    if not isinstance(old, nn.Conv2d) or old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # pyright: ignore[reportArgumentType]
        old.stride,  # pyright: ignore[reportArgumentType]
        old.padding,  # pyright: ignore[reportArgumentType]
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    network.set_submodule(name, new)
