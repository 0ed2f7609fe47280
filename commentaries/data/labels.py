"""Class names and their numbers."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import BadInput


def name_problem(name: str) -> str | None:
    """Why the name of a file or class cannot stand in a table of results, where it cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in name):
        return "its name holds a line break or another control character"
    return None


def number(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """(n,) int64 position of each label among the classes."""
    place = {name: i for i, name in enumerate(classes)}
    return torch.tensor([place[each] for each in labels], dtype=torch.int64)


def check_own(source: object, labels: Sequence[str], classes: Sequence[str]) -> None:
    """Refuses classes that a training set cannot have.

    Args:
        source: What the error calls the data.
        labels: Of each example.
        classes: All class names, those without examples too.

    Raises:
        BadInput: A name that cannot be written, a single class, two that differ in case only, or
            one with fewer than two images.
    """
    for name in classes:
        if problem := name_problem(name):
            raise BadInput(f"{source} has the class {name!r}: {problem}. Rename the class.")
    by_case: dict[str, str] = {}
    for name in classes:
        other = by_case.setdefault(name.casefold(), name)
        if other != name:
            raise BadInput(
                f"{source} has the classes {other!r} and {name!r}, which differ in upper and lower "
                "case only. Give them one name if they are one class, else clearly different ones."
            )
    if len(classes) < 2:
        raise BadInput(
            f"{source} has only the class {classes[0]!r}, so there is nothing to tell apart. Give "
            "images of at least two classes."
        )
    counts = Counter(labels)
    few = [name for name in classes if counts[name] < 2]
    if few:
        held = "only one image" if counts[few[0]] else "no image"
        more = f" ({len(few)} of {len(classes)} classes have fewer than two)"
        raise BadInput(
            f"{source}: the class {few[0]!r} has {held}{more if len(few) > 1 else ''}. Add images "
            "so that each class has at least two, or remove the class."
        )


def check_known(source: object, labels: Sequence[str], classes: Sequence[str]) -> None:
    """Refuses labels that the training set does not have.

    Raises:
        BadInput: No label at all, or such a label; the message proposes the nearest known one.
    """
    if not labels:
        raise BadInput(f"{source} holds no images. Put at least one image of each class into it.")
    known = set(classes)
    strange = sorted({each for each in labels if each not in known})
    if strange:
        near = difflib.get_close_matches(
            strange[0].casefold(), [each.casefold() for each in classes], n=1, cutoff=0.8
        )
        meant = [each for each in classes if near and each.casefold() == near[0]]
        also = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise BadInput(
            f"{source} has the label {strange[0]!r}{also}, which the training set lacks. "
            + (f"Did you mean {meant[0]!r}? " if meant else "")
            + f"Rename or remove it; the training set has {_few(classes)}."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
