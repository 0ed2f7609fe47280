"""What a run was asked to do, from its ``config.json``, taken strictly."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import BadRun
from .run_folder import RunFolder

T = TypeVar("T")


def read_config(folder: RunFolder, kinds: Mapping[str, type[T]]) -> T:
    """The configuration of a run.

    Args:
        folder: Its folder.
        kinds: The dataclasses it may be, by the ``kind`` that each writes.

    Raises:
        BadRun: It is not JSON, of another kind, or has other keys or types than its dataclass.
        BadInput: A value is out of range.
    """
    found = folder.config()
    try:
        if not isinstance(found, dict):
            raise _Mismatch("it is not an object")
        kind = found.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise _Mismatch(f"its kind is {kind!r}, not one of {', '.join(kinds)}")
        return rebuild(kinds[kind], found)
    except _Mismatch as mismatch:
        raise BadRun(
            f"{folder.path}/config.json was made by another version or edited: {mismatch}. Use the "
            "version that environment.json names, or start a new run."
        ) from mismatch


class _Mismatch(Exception):
    """What stands in a configuration and should not, or the other way around."""


def rebuild(kind: type[T], found: Any) -> T:
    """A dataclass of nested dataclasses from the dicts that JSON made of it."""
    return _dataclass(kind, found, "")


def _dataclass(kind: Any, found: Any, place: str) -> Any:
    if not isinstance(found, dict):
        raise _Mismatch(f"{place or 'it'} is not an object")
    prefix = f"{place}." if place else ""
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name in found:
        if name not in known:
            raise _Mismatch(f"it has {prefix}{name}, which is not known")
    for name in known:
        if name not in found:
            raise _Mismatch(f"it lacks {prefix}{name}")
    return kind(**{name: _value(hints[name], found[name], prefix + name) for name in known})


def _value(kind: Any, found: Any, place: str) -> Any:
    origin, choices = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass(kind, found, place)
    if origin is Literal:
        if type(found) is str and found in choices:
            return found
    elif origin in (Union, types.UnionType):
        for choice in choices:
            with contextlib.suppress(_Mismatch):
                return _value(choice, found, place)
    elif origin is tuple:
        if isinstance(found, list):
            of_each = choices[:1] * len(found) if choices[-1] is Ellipsis else choices
            if len(of_each) == len(found):
                pairs = zip(of_each, found, strict=True)
                return tuple(_value(*pair, f"{place}[{i}]") for i, pair in enumerate(pairs))
    elif kind is float:
        if type(found) in (int, float):
            return float(found)
    elif kind is Path:
        if type(found) is str:
            return Path(found)
    elif type(found) is kind:
        return found
    raise _Mismatch(f"{place} is {found!r}")
