"""Which examples were what, kept with a run so that it goes on with the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import BadRun
from .images import LabelledImages


def record(
    parts: Mapping[str, LabelledImages | None], *, skipped: Iterable[str] = (), **more: Any
) -> dict[str, Any]:
    """The names of all examples of each part, as JSON can hold them.

    ``labels`` is the SHA-256 of all their labels. A later training can leave out the examples by
    which a commentary was judged.

    Args:
        parts: The examples of each role; None where there are none.
        skipped: One sentence for each image that was left out.
        more: Whatever else says which examples they are.
    """
    digest = hashlib.sha256()
    for images in parts.values():
        digest.update(b"-" if images is None else images.y.cpu().numpy().tobytes())
    return {
        **more,
        **{name: [] if images is None else images.names for name, images in parts.items()},
        "labels": digest.hexdigest(),
        "skipped": list(skipped),
    }


def check_unchanged(present: Mapping[str, Any], written: Mapping[str, Any], data: str) -> None:
    """Refuses to go on with data that are not those with which a run began.

    Raises:
        BadRun: Examples or labels differ from what was written.
    """
    changed = [name for name in present if present[name] != written.get(name)]
    if changed:
        raise BadRun(
            f"The data {data} have changed since this run began ({', '.join(changed)}). Restore "
            "them, or start a new run."
        )
