"""Pretrained weights from a local file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BadInput
from ..types import Params

_NESTED = ("state_dict", "model_state_dict", "model")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of the Inception family, not built here
_COUNTER = "num_batches_tracked"


def read_weights(path: str | Path) -> Params:
    """The named tensors of a file, which is read without running any code of its.

    Args:
        path: A ``.safetensors`` file, or a state dict written by ``torch.save``, also one under
            "state_dict", "model_state_dict" or "model" of a larger checkpoint.

    Raises:
        BadInput: The file is missing, cannot be read, holds no tensors, or numbers that are not
            finite.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise BadInput(
            f"There is no weights file {path}. Check the path; nothing is downloaded here."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a file that is something else makes a reader raise
        raise BadInput(
            f"{path} is no file of weights: it can be neither a state dict of torch.save, read "
            "with weights_only, nor safetensors. Save module.state_dict() of the network."
        ) from error
    for name in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    tensors = content.items() if isinstance(content, dict) else ()
    found = {str(name): value for name, value in tensors if isinstance(value, Tensor)}
    if not found:
        raise BadInput(f"{path} holds no named tensors. Save module.state_dict() of the network.")
    broken = [name for name, value in found.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise BadInput(
            f"{path} holds numbers that are not finite in {len(broken)} of {len(found)} tensors, "
            f"the first of them {broken[0]}. Give weights of a training that did not diverge."
        )
    return found


def load_into(
    network: nn.Module, found: Params, path: str | Path, *, name: str, heads: tuple[str, ...]
) -> None:
    """Puts weights into a network.

    Prefixes that all names of the file share, such as "module.", are taken off. A last layer for
    another number of classes is left as the network has it, and a first convolution for colour
    serves grey images by the sum over its channels: as if the grey image came three times.

    Args:
        network: It is changed in place.
        found: Of `read_weights`.
        path: Where they come from, for the message.
        name: Of the network, for the message.
        heads: Names of its last layers.

    Raises:
        BadInput: The file does not fit the network.
    """
    wanted = {
        key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)
    }
    found = {
        key: value
        for key, value in _stripped(found, wanted).items()
        if not key.endswith(_COUNTER) and not key.startswith(_AUXILIARY)
    }
    own = tuple(f"{head}." for head in heads)
    first = first_convolution(network)
    for key in list(found):
        other = key not in wanted or found[key].shape != wanted[key].shape
        if key.startswith(own) and other:
            del found[key]
        elif key == f"{first}.weight" and key in wanted:
            found[key] = _for_channels(found[key], wanted[key].shape[1])
    missing = [key for key in wanted if key not in found and not key.startswith(own)]
    unexpected = [key for key in found if key not in wanted]
    reshaped = [key for key in found if key in wanted and found[key].shape != wanted[key].shape]
    wrong = [*missing, *unexpected, *reshaped]
    if wrong:
        raise BadInput(
            f"The weights in {path} do not fit {name}: {len(missing)} of its {len(wanted)} tensors "
            f"are missing, {len(unexpected)} in the file are unexpected and {len(reshaped)} have "
            f"another shape (first {wrong[0]}). Give a file saved from this network, or name the "
            "network it was saved from."
        )
    network.load_state_dict(found, strict=False)


def first_convolution(network: nn.Module) -> str | None:
    """The name of the convolution that reads the images; None without any."""
    parts = (name for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    return next(parts, None)


def _stripped(found: Params, wanted: Params) -> Params:
    """Without the leading parts of the names that all share and the network does not have."""
    found = {k: v for k, v in found.items() if not k.startswith("normalise.")}
    while found and not wanted.keys() & found.keys():
        prefixes = {key.partition(".")[0] for key in found}
        if len(prefixes) > 1 or not all("." in key for key in found):
            break
        found = {key.partition(".")[2]: value for key, value in found.items()}
    return found


def _for_channels(weight: Tensor, channels: int) -> Tensor:
    """A first kernel (out, in, h, w) for grey images from one for colour, or the other way."""
    if channels == 1 and weight.shape[1] == 3:
        return weight.sum(1, keepdim=True)
    if channels == 3 and weight.shape[1] == 1:
        return weight.expand(-1, 3, -1, -1) / 3
    return weight
