"""Runs cells in worker processes of one thread each, and says how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


def run_all(
    function: Callable[[Given], Made], cells: Sequence[Given], *, workers: int
) -> Iterator[Made]:
    """Yields results as they come; prints progress with an estimate of the time that is left."""
    if not cells:
        print("Nothing is left to measure.")
        return
    print(f"{len(cells)} cells to measure in {workers} processes.", flush=True)
    began = time.monotonic()
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(function, cell) for cell in cells]
        for done, future in enumerate(as_completed(futures), start=1):
            yield future.result()
            each = (time.monotonic() - began) / done
            left = each * (len(cells) - done)
            print(f"{done}/{len(cells)} done, about {left / 60:.1f} min left", flush=True)
