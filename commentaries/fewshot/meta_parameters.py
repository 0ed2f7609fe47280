"""What few-shot learning learns, in one dict: the initialisation, the rates, the commentary."""

from __future__ import annotations

from ..types import Params

START = "start."
"""The student's initialisation, by the student's own names."""

RATE = "rate."
"""Learned step sizes, (steps,) for each parameter tensor."""

TEACHER = "teacher."
"""The commentary."""


def part(phi: Params, prefix: str) -> Params:
    """The entries under a prefix, without it."""
    size = len(prefix)
    return {name[size:]: value for name, value in phi.items() if name.startswith(prefix)}


def under(prefix: str, values: Params) -> Params:
    """The same entries with a prefix."""
    return {prefix + name: value for name, value in values.items()}
