"""Measures cells in worker processes of one thread each, and says how long it will take."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

import torch

from .store import Cell, Store

Given = TypeVar("Given")


def measure_all(
    measure: Callable[[Given], Sequence[Cell]],
    left: Sequence[Given],
    kept: Store,
    *,
    workers: int,
) -> None:
    """Keeps what is measured as it comes; prints progress and an estimate of the time left.

    Args:
        measure: A function of a module, from what a worker is given to the cells measured.
        left: What is not measured yet.
        kept: Where cells are added.
        workers: Processes.
    """
    if not left:
        print("Nothing is left to measure.")
        return
    print(f"{len(left)} cells to measure in {workers} processes.", flush=True)
    began = time.monotonic()
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin) as pool:
        futures = [pool.submit(measure, each) for each in left]
        for done, future in enumerate(as_completed(futures), start=1):
            kept.add(future.result())
            each = (time.monotonic() - began) / done
            remaining = each * (len(left) - done)
            print(f"{done}/{len(left)} done, about {remaining / 60:.1f} min left", flush=True)


def _begin() -> None:
    """One thread; and a worker does not outlive the process that was to keep what it measures."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
