"""What a folder or a table says which images there are, and of which class."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import BadInput
from .pictures import OTHER_SUFFIXES, SUFFIXES
from .spreadsheet import original

FILE_COLUMNS = ("file", "path")
LABEL_COLUMN = "label"
_DELIMITERS = ",;\t"
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "trusted"}


class Listing(NamedTuple):
    """Image files and their labels, in order.

    Attributes:
        paths: Where to open them.
        files: What they are called: as under the folder, or as written in the table.
        labels: Class name of each.
        classes: All class names, sorted; some may have no image.
    """

    paths: list[Path]
    files: list[str]
    labels: list[str]
    classes: list[str]

    def rows(self, keep: Sequence[int]) -> Listing:
        """The images at some positions; the classes stay."""
        return Listing(
            [self.paths[row] for row in keep],
            [self.files[row] for row in keep],
            [self.labels[row] for row in keep],
            self.classes,
        )


def list_folder(folder: Path) -> Listing:
    """Images in class folders, also in folders within those; hidden files are passed over.

    Raises:
        BadInput: An empty folder, no class folders, images beside the class folders, or folders
            named like parts of a data set.
    """
    inside = [each for each in _names(folder) if not _hidden(each)]
    classes = [each for each in inside if (folder / each).is_dir()]
    loose = [each for each in inside if each not in set(classes) and _is_image(each)]
    if not inside:
        raise BadInput(
            f"The folder {folder} is empty. Put one folder for each class into it, named after "
            "the class, with its images inside."
        )
    if loose:
        among = "beside the class folders" if classes else "and not in class folders"
        raise BadInput(
            f"{len(loose)} images lie directly in {folder} {among} (the first is {loose[0]}), so "
            "they have no label. Move each into a folder named after its class, or give a CSV "
            "with the columns file and label."
        )
    if not classes:
        raise BadInput(
            f"{folder} holds no class folders. Put one folder for each class into it, named after "
            "the class, with its images inside."
        )
    if {each.lower() for each in classes} <= _PARTS:
        raise BadInput(
            f"The folders in {folder} ({', '.join(classes)}) are named like parts of a data set "
            f"and not like classes. Give one of them, such as {folder / classes[0]}."
        )
    files, labels = [], []
    for name in classes:
        own = sorted(_images(folder / name))
        files += [f"{name}/{each}" for each in own]
        labels += [name] * len(own)
    return Listing([folder / each for each in files], files, labels, classes)


def list_csv(path: Path) -> Listing:
    """Images in a table with the columns file (or path) and label; others are ignored.

    The columns are separated by commas, semicolons or tabs; paths start at the table's folder.
    Cells are taken as `spreadsheet` writes them, so that a run's own tables can be data.
    Lines that repeat a file with the same label count once.

    Raises:
        BadInput: Not UTF-8, not a table, missing columns, no lines, lines without a file or a
            label, one file with two labels, or files that are not there.
    """
    lines = _lines(path)
    try:
        head = next(lines)[1]
        file_at, label_at = _columns(head) or (-1, -1)
        if file_at < 0:
            raise BadInput(
                f"{path} has no columns file (or path) and label; its first line is "
                f"{', '.join(head)!r}. Name the columns in the first line."
            )
        found: dict[str, tuple[str, str, int]] = {}  # by path: as written, label, line
        for number, cells in lines:
            file, label = (
                original(cells[at]) if at < len(cells) else "" for at in (file_at, label_at)
            )  # fmt: skip
            label = label.strip()
            if not file or not label:
                raise BadInput(
                    f"Line {number} of {path} has no {'label' if file else 'file'}. Fill it in, or "
                    "remove the line."
                )
            before = found.setdefault(os.path.normpath(file), (file, label, number))
            if before[1] != label:
                raise BadInput(
                    f"{path} gives {file} two labels: {before[1]!r} in line {before[2]} and "
                    f"{label!r} in line {number}. Keep one of them."
                )
    except (csv.Error, StopIteration) as error:
        reason = f" ({error})" if str(error) else ""
        raise BadInput(
            f"{path} is empty or not a table{reason}. Give a CSV whose first line names the "
            "columns file and label."
        ) from error
    if not found:
        raise BadInput(f"{path} has no lines below the first. Add one line for each image.")
    files, labels, _ = (list(each) for each in zip(*found.values(), strict=True))
    paths = [path.parent / each for each in files]
    missing = [file for file, each in zip(files, paths, strict=True) if not each.is_file()]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(files)} files in {path} do not exist, the first is "
            f"{missing[0]}. Give paths as seen from {path.parent}, or remove these lines."
        )
    return Listing(paths, files, labels, sorted(set(labels)))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: object, error: OSError) -> BadInput:
    return BadInput(
        f"The folder {folder} cannot be listed ({error.strerror}). Check that it exists and that "
        "you may read it."
    )


def _images(folder: Path) -> Iterator[str]:
    """Names of images as under the folder, "/" between the parts."""

    def refuse(error: OSError) -> None:
        raise _unlisted(error.filename, error) from error

    for top, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(os.path.realpath(top))
        # A link to a folder it lies in would go round for ever.
        folders[:] = [
            each
            for each in folders
            if not _hidden(each) and not here.is_relative_to(os.path.realpath(Path(top, each)))
        ]
        for name in names:
            if _is_image(name) and not _hidden(name):
                yield Path(top, name).relative_to(folder).as_posix()


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES + OTHER_SUFFIXES


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; lines with nothing in them are passed over."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror}). Check that you may read it."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8 (byte {error.start} is not). Save it as UTF-8; spreadsheets call "
            "that 'CSV UTF-8'."
        ) from error
    first = text.lstrip().split("\n", 1)[0]
    delimiter = next(
        (each for each in _DELIMITERS if _columns(first.split(each)) is not None), ","
    )  # fmt: skip
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield reader.line_num, cells


def _columns(head: list[str]) -> tuple[int, int] | None:
    """Positions of the columns of files and labels, where there are both."""
    names = [each.strip().strip('"').lower() for each in head]
    file = next((each for each in FILE_COLUMNS if each in names), None)
    if file is None or LABEL_COLUMN not in names:
        return None
    return names.index(file), names.index(LABEL_COLUMN)
