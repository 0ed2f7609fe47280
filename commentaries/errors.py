"""One base error. Every message says what is wrong and ends with a remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CommentariesError(Exception):
    """Base of all errors raised on purpose; the command line prints its message and exits."""


class BadInput(CommentariesError, ValueError):
    """An argument, data set or file that cannot be used as given."""


class NotConverged(CommentariesError, ArithmeticError):
    """A linear system whose solution cannot be trusted: a divergent series, negative curvature."""


class NonFinite(CommentariesError, ArithmeticError):
    """A loss or a gradient that is not finite."""


class BadRun(CommentariesError, OSError):
    """A run folder or checkpoint that cannot be read or written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """An error that quotes an unknown name and proposes the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]!r}?" if near else f"Choose one of {', '.join(names)}."
    return BadInput(f"There is no {kind} {name!r}. {hint}")


def check_positive(name: str, value: object) -> None:
    """Refuses a plain number that is not positive; tensors are taken on trust."""
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        raise BadInput(f"{name} is {value}, but must be positive and finite. Choose {name} > 0.")


def check_count(name: str, value: object) -> None:
    """Refuses what is not a positive whole number."""
    if not isinstance(value, int) or value < 1:
        raise BadInput(f"{name} is {value}, but counts something. Choose 1, 2, 3, ...")


def check_fraction(name: str, value: float) -> None:
    """Refuses what is not in [0, 1)."""
    if not 0 <= value < 1:
        raise BadInput(f"{name} is {value}, but must be at least 0 and below 1.")


def check_less(name: str, value: float, above: str, limit: float) -> None:
    """Refuses what is not less than something else."""
    if not value < limit:
        raise BadInput(
            f"{name} is {value}, but must be less than {above}, which is {limit}. Lower {name}, or "
            f"raise {above}."
        )


def check_not_negative(name: str, value: float) -> None:
    """Refuses negative and non-finite numbers."""
    if not 0 <= value < float("inf"):
        raise BadInput(f"{name} is {value}, but must be finite and not negative. Use 0 for none.")
