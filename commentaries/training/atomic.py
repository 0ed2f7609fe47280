"""Files that are either wholly written or not at all, and system errors said in plain words."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadRun

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = {errno.ENOENT, errno.ENOTDIR}


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces the file at ``path`` in one step that survives a kill and a power cut.

    The bytes go to a temporary file in the same folder, are synchronised to the disk and then
    renamed over ``path``. Whatever happens, ``path`` holds the old bytes or the new ones; only a
    kill leaves a temporary file behind (see `remove_temporaries`).

    Raises:
        BadRun: The disk is full, the folder is missing or read-only, or the disk failed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with explained(path, "write"):
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        synchronise(path.parent)


def synchronise(path: Path) -> None:
    """Waits until a file or the entries of a folder are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Whether this is a file that `write_bytes` leaves behind when it is killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_temporaries(folder: Path) -> None:
    """Removes what killed writers left behind; only for the one process that owns the folder."""
    with explained(folder, "write"):
        for path in folder.iterdir():
            if is_temporary(path):
                path.unlink(missing_ok=True)


@contextmanager
def explained(path: Path, verb: str) -> Iterator[None]:
    """Turns a system error met while reading or writing ``path`` into one with a remedy.

    Args:
        path: The file or folder that the message names.
        verb: What was tried, "read" or "write".

    Raises:
        BadRun: In place of any ``OSError`` of the body.
    """
    try:
        yield
    except BadRun:
        raise
    except OSError as error:
        raise BadRun(_message(path, verb, error)) from error


def _message(path: Path, verb: str, error: OSError) -> str:
    if error.errno in _FULL:
        return (
            f"The disk is full: could not {verb} {path}, and what was there before is kept. "
            "Free some space and resume the run."
        )
    if error.errno in _FORBIDDEN:
        return (
            f"There is no permission to {verb} {path}. "
            "Change the permissions of its folder, or choose another folder."
        )
    if error.errno in _ABSENT:
        return f"Could not {verb} {path}: it or its folder is missing. Check the path."
    reason = error.strerror or str(error) or type(error).__name__
    return f"Could not {verb} {path} ({reason}). Check the path and the disk, then try again."
