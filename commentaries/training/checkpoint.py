"""A training state in one file: saved atomically, restored bit for bit or refused with a reason.

A state is any tree of named tuples, tuples, lists and dicts with str keys over tensors, int,
float, bool, str and None. The file holds leaves and names only, never a class, so reading one
runs no code of the file's; the classes come from the state that `load` is given for comparison.
It is an ordinary ``torch.save`` archive whose zip comment carries the SHA-256 of all before it:
a file that was cut short, altered or made by something else is known before it is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import BadInput, BadRun
from . import atomic

State = TypeVar("State")

FORMAT = "commentaries.checkpoint"
VERSION = 1

_SEAL = b"commentaries.checkpoint sha256="
_SEAL_SIZE = len(_SEAL) + 64
_SCALARS = (int, float, bool, str, type(None))


def save(path: str | Path, state: Any, *, meta: dict[str, Any] | None = None) -> None:
    """Writes a state so that at every moment ``path`` holds the old checkpoint or the new one.

    Tensors are saved detached, with their strides and with the storage they share.

    Args:
        path: The file, conventionally ``checkpoint.pt``; its folder must exist.
        state: A tree of named tuples, tuples, lists, dicts (str keys), tensors, int, float,
            bool, str and None.
        meta: Dicts, lists and tuples of such leaves for `read_meta`, which needs no state to
            compare with.

    Raises:
        BadInput: The state holds something else; the message says where.
        BadRun: The disk is full or not writable. The older checkpoint remains.
    """
    path = Path(path)
    payload = {
        "format": FORMAT,  # first: it stands in the first bytes, so a cut file is still known
        "version": VERSION,
        "state": _flatten(state)._asdict(),
        "meta": _flatten(meta if meta is not None else {})._asdict(),
    }
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    atomic.write_bytes(path, _sealed(buffer.getvalue()))


def load(path: str | Path, like: State) -> State:
    """Reads a state of the same structure as ``like``, a freshly initialised one.

    Each tensor is put on the device of its counterpart. Where ``like`` has None and the file has
    more (an adjoint that did not exist before the first step), that part is rebuilt as it was
    saved, of dicts, lists and tuples, its tensors on the accelerator that ``like`` uses if any.

    Args:
        path: A file written by `save`.
        like: The state at step 0; only its structure, types, shapes, dtypes and devices are used.

    Raises:
        BadRun: The file is missing, cut short, damaged, of another kind or a newer version, or
            its names, types, shapes or dtypes are not those of ``like``.
    """
    path = Path(path)
    saved = _Flat(**_read(path)["state"])
    return _rebuild(path, saved, "", like, _home(_flatten(like)))


def read_meta(path: str | Path) -> dict[str, Any]:
    """Reads what was saved beside the state.

    Raises:
        BadRun: The file is missing, cut short, damaged, of another kind or a newer version.
    """
    path = Path(path)
    saved = _Flat(**_read(path)["meta"])
    return _rebuild(path, saved, "", None, torch.device("cpu"))


class _Flat(NamedTuple):
    """A tree taken apart. Places are JSON pointers: "/phi/layer.weight", "" for the root."""

    containers: dict[str, tuple[str, list[str]]]  # place -> (kind, names of its children)
    leaves: dict[str, Any]  # place -> tensor, int, float, bool, str or None


def _kind(node: Any) -> str:
    """What a container is; "" for a leaf."""
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return f"named tuple {type(node).__name__}"
    return type(node).__name__ if type(node) in (dict, list, tuple) else ""


def _children(node: Any) -> dict[str, Any]:
    if isinstance(node, dict):
        return node
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return node._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    return {str(position): child for position, child in enumerate(node)}


def _under(place: str, name: str) -> str:
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def _flatten(tree: Any) -> _Flat:
    flat = _Flat({}, {})

    def visit(place: str, node: Any) -> None:
        kind = _kind(node)
        if kind:
            children = _children(node)
            for name in children:
                if type(name) is not str:
                    raise BadInput(
                        f"The state has the key {name!r} at {place or '/'}, and only str keys "
                        "can be saved. Name its entries by str."
                    )
            flat.containers[place] = (kind, list(children))
            for name, child in children.items():
                visit(_under(place, name), child)
        elif isinstance(node, Tensor):
            flat.leaves[place] = node.detach()
        elif type(node) in _SCALARS:
            flat.leaves[place] = node
        else:
            raise BadInput(
                f"The state has a {type(node).__name__} at {place or '/'}, which cannot be saved. "
                "Keep only named tuples, tuples, lists, dicts, tensors, int, float, bool, str "
                "and None in it."
            )

    visit("", tree)
    return flat


def _rebuild(path: Path, saved: _Flat, place: str, like: Any, home: torch.device) -> Any:
    if place in saved.leaves:
        return _restored(path, place, saved.leaves[place], like, home)
    kind, names = saved.containers[place]
    if like is None:
        if kind not in ("dict", "list", "tuple"):
            raise _mismatch(path, place, f"a {kind}", "None and so cannot rebuild it")
        children = dict.fromkeys(names)
    elif kind != _kind(like):
        raise _mismatch(path, place, f"a {kind}", _describe(like))
    else:
        children = _children(like)
        absent = [name for name in children if name not in names]
        extra = [name for name in names if name not in children]
        if absent:
            raise _mismatch(path, _under(place, absent[0]), "nothing", "an entry")
        if extra:
            raise _mismatch(path, _under(place, extra[0]), "an entry", "nothing")
    # In the order of the file: sums over a dict run in its order, and so do their roundings.
    values = {
        name: _rebuild(path, saved, _under(place, name), children[name], home) for name in names
    }
    if kind == "dict":
        return values
    if kind == "list":
        return list(values.values())
    return tuple(values.values()) if kind == "tuple" else type(like)(**values)


def _restored(path: Path, place: str, value: Any, like: Any, home: torch.device) -> Any:
    if like is None:
        return value.to(home) if isinstance(value, Tensor) else value
    if isinstance(value, Tensor) and isinstance(like, Tensor):
        if value.shape != like.shape or value.dtype != like.dtype:
            raise _mismatch(path, place, _describe(value), _describe(like))
        return value.to(like.device)
    if type(value) is not type(like):
        raise _mismatch(path, place, _describe(value), _describe(like))
    return value


def _describe(node: Any) -> str:
    if isinstance(node, Tensor):
        return f"a {str(node.dtype).removeprefix('torch.')} tensor of shape {tuple(node.shape)}"
    return "None" if node is None else f"a {_kind(node) or type(node).__name__}"


def _mismatch(path: Path, place: str, found: str, wanted: str) -> BadRun:
    return BadRun(
        f"The checkpoint {path} was made by another configuration: at {place or '/'} it has "
        f"{found}, where this run has {wanted}. Resume with the configuration of the run that "
        "wrote it, or start a new run."
    )


def _home(like: _Flat) -> torch.device:
    """Where tensors without a counterpart go: the first device of ``like`` but the CPU."""
    devices = [leaf.device for leaf in like.leaves.values() if isinstance(leaf, Tensor)]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def _sealed(archive: bytes) -> bytes:
    """Adds the digest as the zip's comment, whose length is the last two bytes of a zip."""
    body = archive[:-2] + _SEAL_SIZE.to_bytes(2, "little")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode()


def _read(path: Path) -> dict[str, Any]:
    """The payload of a file that is proven to be whole and ours before it is unpickled."""
    if not os.path.lexists(path):
        raise BadRun(f"There is no checkpoint {path}. Check the path, or start a new run.")
    with atomic.explained(path, "read"):
        data = path.read_bytes()
    body, seal = data[:-_SEAL_SIZE], data[-_SEAL_SIZE:]
    if seal != _SEAL + hashlib.sha256(body).hexdigest().encode():
        if not data or FORMAT.encode() in data[:1024]:
            raise BadRun(
                f"The checkpoint {path} is cut short or damaged. "
                "Restore a copy of it, or start a new run."
            )
        raise BadRun(
            f"{path} is not a checkpoint of commentaries. "
            "Give the checkpoint.pt of a run folder, or start a new run."
        )
    try:
        payload = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise BadRun(
            f"This version of torch ({torch.__version__}) cannot read the checkpoint {path}. "
            "Resume with the version in the run's environment.json, or start a new run."
        ) from error
    if payload["version"] > VERSION:
        raise BadRun(
            f"The checkpoint {path} has format version {payload['version']}, and this release "
            f"reads up to {VERSION}. Upgrade commentaries, or start a new run."
        )
    return payload
