"""A user's own images: a folder of class folders, a table of files and labels, or arrays."""

from __future__ import annotations

import difflib
import os
import statistics
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import BadInput, check_positive
from .arrays import prepare, read_arrays
from .images import LabelledImages
from .labels import check_known, check_own, name_problem, number
from .layouts import Listing, list_csv, list_folder
from .named import NAMES
from .pictures import Preparation, Unreadable, decode, inspect

Result = TypeVar("Result")

LARGEST_SIZE = 64
"""Side in pixels of what is chosen for a user."""

THREADS = min(16, (os.cpu_count() or 1) + 4)
"""That read and decode files: waiting for the disk is most of it."""

_SHOWN = 3


def read(
    path: Path,
    *,
    preparation: Preparation | None = None,
    classes: tuple[str, ...] | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> tuple[LabelledImages, Preparation]:
    """Images from a user's disk, of mixed sizes and modes, as one tensor in [0, 1].

    Args:
        path: A folder with one folder of images for each class; a ``.csv`` with the columns
            ``file`` (or ``path``, as seen from the table's folder) and ``label``; or an ``.npz``
            (see `read_arrays`).
        preparation: How another set was prepared, for this to be the same. None: the median
            shorter side, at most 64, and one channel where all images are grey by their modes.
        classes: Of the training set: for a trusted or test set, which gets the same numbering, may
            lack classes and have single images of some. None: this is the training set.
        size: Side in pixels, in place of the median shorter side.
        skip_unreadable: Leave out the images that cannot be used (damaged, 16-bit, animated).
        on_skip: Is told of each that is left out, in the order of the files.

    Returns:
        The images in the order of class and file name, or of the table, or of the arrays; and how
        they were prepared.

    Raises:
        BadInput: Anything that the user has to put right, before anything is written.
    """
    path = Path(path).expanduser()
    if preparation is not None and size not in (None, preparation.size):
        raise BadInput(
            f"size is {size}, but the images it goes with have {preparation.size}. Leave size out."
        )
    if size is not None:
        check_positive("size", size)
    if not path.exists():
        raise _missing(path)
    if path.suffix.lower() == ".npz" and path.is_file():
        return _from_arrays(path, preparation, classes, size)
    if path.is_dir():
        listing = list_folder(path)
    elif path.suffix.lower() == ".csv":
        listing = list_csv(path)
    else:
        raise BadInput(
            f"{path} is no folder, .csv or .npz. Give a folder with one folder of images for each "
            "class, a CSV with the columns file and label, or an .npz with the arrays x and y."
        )
    return read_listing(
        path,
        listing,
        preparation=preparation,
        classes=classes,
        size=size,
        skip_unreadable=skip_unreadable,
        on_skip=on_skip,
    )


def read_listing(
    path: Path,
    listing: Listing,
    *,
    preparation: Preparation | None = None,
    classes: tuple[str, ...] | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
    on_skip: Callable[[str], None] | None = None,
) -> tuple[LabelledImages, Preparation]:
    """The images of a listing, which errors say is of `path`; for the rest see `read`."""
    _check(path, listing.labels, listing.classes, classes)
    broken = {
        row: problem for row, name in enumerate(listing.files) if (problem := name_problem(name))
    }
    if preparation is None:
        preparation = _chosen(path, listing, size, broken, classes)
    pixels = _decoded(path, listing, preparation, broken)
    if broken:
        _report(path, listing, broken, skip_unreadable, on_skip)
        keep = [row for row in range(len(pixels)) if row not in broken]
        pixels = _compacted(pixels, keep)
        listing = listing.rows(keep)
        _check(f"{path} without what cannot be read", listing.labels, listing.classes, classes)
    names = tuple(listing.classes) if classes is None else classes
    y = number(listing.labels, names)
    name = path.resolve().name if path.is_dir() else path.stem
    return LabelledImages(pixels, y, names, name, tuple(listing.files)), preparation


def is_own(data: str) -> bool:
    """Whether a word on the command line means a path and not a set by name.

    The name of a set means that set, also where there is a folder of that name: write
    ``./mnist`` for the folder.
    """
    if data in NAMES:
        return False
    path = Path(data).expanduser()
    return "/" in data or os.sep in data or bool(path.suffix) or path.exists()


def _missing(path: Path) -> BadInput:
    near = difflib.get_close_matches(path.stem.lower(), NAMES, n=1)
    meant = f", or give {near[0]} alone if you mean the data set of that name" if near else ""
    return BadInput(f"There is no folder or file {path}. Check the path{meant}.")


def _check(
    source: object, labels: list[str], found: list[str], classes: tuple[str, ...] | None
) -> None:
    if classes is None:
        check_own(source, labels, found)
    else:
        check_known(source, labels, classes)


def _from_arrays(
    path: Path,
    preparation: Preparation | None,
    classes: tuple[str, ...] | None,
    size: int | None,
) -> tuple[LabelledImages, Preparation]:
    x, labels, found = read_arrays(path)
    _check(path, labels, found, classes)
    if preparation is None:
        side = size or min(LARGEST_SIZE, *x.shape[1:3])
        preparation = Preparation(side, 1 if x.shape[3] == 1 else 3)
    names = tuple(found) if classes is None else classes
    pixels = prepare(x, preparation.size, preparation.channels)
    return LabelledImages(pixels, number(labels, names), names, path.stem), preparation


def _chosen(
    path: Path,
    listing: Listing,
    size: int | None,
    broken: dict[int, str],
    classes: tuple[str, ...] | None,
) -> Preparation:
    """The preparation for what can be opened; what cannot is added to `broken`."""
    rows = [row for row in range(len(listing.paths)) if row not in broken]
    found = _each(lambda row: inspect(listing.paths[row]), rows, broken)
    sides = [side for side, _ in found.values()]
    if not sides:
        raise _all_broken(path, listing, broken)
    grey = all(grey for _, grey in found.values())
    middle = int(statistics.median_low(sides))
    return Preparation(size or min(LARGEST_SIZE, middle), 1 if grey else 3)


def _decoded(
    path: Path, listing: Listing, preparation: Preparation, broken: dict[int, str]
) -> Tensor:
    """(n, channels, size, size); rows of files that cannot be decoded are added to `broken`."""
    shape = (len(listing.paths), preparation.channels, preparation.size, preparation.size)
    try:
        x = torch.zeros(shape)
    except RuntimeError as error:
        raise BadInput(
            f"{path}: {shape[0]} images of {shape[2]} x {shape[3]} pixels do not fit in memory. "
            "Choose a smaller size."
        ) from error
    pixels = x.numpy()

    def fill(row: int) -> None:
        pixels[row] = decode(listing.paths[row], preparation)
        pixels[row] /= 255

    _each(fill, [row for row in range(len(x)) if row not in broken], broken)
    if len(broken) == len(x):
        raise _all_broken(path, listing, broken)
    return x


def _each(
    do: Callable[[int], Result], rows: Iterable[int], broken: dict[int, str]
) -> dict[int, Result]:
    """What `do` gives for each row, in order, on several threads; the unreadable into `broken`."""

    def attempt(row: int) -> tuple[int, Result | Unreadable]:
        try:
            return row, do(row)
        except Unreadable as error:
            return row, error

    done: dict[int, Result] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for row, result in pool.map(attempt, rows):
            if isinstance(result, Unreadable):
                broken[row] = str(result)
            else:
                done[row] = result
    return done


def _report(
    path: Path,
    listing: Listing,
    broken: dict[int, str],
    skip: bool,
    on_skip: Callable[[str], None] | None,
) -> None:
    rows = sorted(broken)
    if not skip:
        first = "; ".join(f"{listing.files[row]!r} ({broken[row]})" for row in rows[:_SHOWN])
        more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        raise BadInput(
            f"{len(rows)} of {len(listing.files)} images in {path} cannot be used: {first}{more}. "
            "Repair them, convert them to plain 8-bit images of one frame, or leave them out with "
            "skip_unreadable=True (on the command line --skip-unreadable)."
        )
    if on_skip is not None:
        for row in rows:
            on_skip(f"Left out {listing.files[row]!r}: {broken[row]}.")


def _all_broken(path: Path, listing: Listing, broken: dict[int, str]) -> BadInput:
    row = min(broken)
    return BadInput(
        f"None of the {len(listing.files)} images in {path} can be used; the first is "
        f"{listing.files[row]!r} ({broken[row]}). Convert them to plain 8-bit images of one "
        "frame, such as PNG or JPEG."
    )


def _compacted(x: Tensor, keep: list[int]) -> Tensor:
    """The rows to keep, moved up within the same memory."""
    for place, row in enumerate(keep):
        if place != row:
            x[place] = x[row]
    return x[: len(keep)]
