"""Python values as JSON that every reader accepts: no NaN, no Infinity, no foreign types."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput


def encode(value: Any, *, indent: int | None = 2, finite: bool = False) -> bytes:
    """The value as JSON in UTF-8, with a line break at its end.

    Args:
        value: Dataclasses and named tuples (objects of their fields), dicts, lists, tuples,
            tensors, arrays, numbers, str, bool, None, paths, torch devices and dtypes (as str).
        indent: Spaces per level, or None for one line.
        finite: Refuse non-finite numbers, which otherwise become null.

    Raises:
        BadInput: The value holds something else, or a non-finite number with ``finite``.
    """
    return (json.dumps(_plain(value, finite, ""), indent=indent, allow_nan=False) + "\n").encode()


def _plain(value: Any, finite: bool, place: str) -> Any:
    """The value in the types of JSON; ``place`` says where it stands, such as "inner.lr"."""
    value = _unwrapped(value)
    if isinstance(value, float) and not math.isfinite(value):
        if finite:
            raise BadInput(
                f"The value {place or 'given'} is {value}, which JSON cannot hold. "
                "Use a finite number, or None for no limit."
            )
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {
            str(name): _plain(child, finite, f"{place}.{name}" if place else str(name))
            for name, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(child, finite, f"{place}[{position}]") for position, child in enumerate(value)
        ]
    raise BadInput(
        f"A {type(value).__name__} ({place or 'the value itself'}) cannot be written as JSON. "
        "Use dataclasses, dicts, lists, numbers, str, bool, None, tensors or paths."
    )


def _unwrapped(value: Any) -> Any:
    """One level closer to JSON."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value
