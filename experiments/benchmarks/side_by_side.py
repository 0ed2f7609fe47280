"""Several ways of doing a thing, in turn in one process: their time, memory and operations."""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from commentaries.training.environment import describe

Step = Callable[[], object]
"""One repetition; what it returns is thrown away."""


class Ratio(NamedTuple):
    """How many times as long one way takes as another.

    Attributes:
        of_medians: Median over median.
        lower: Quartile of the ratios within a round.
        upper: The other quartile.
    """

    of_medians: float
    lower: float
    upper: float


def named_device(device: str) -> str:
    """The device's name; for a CPU how many threads compute besides."""
    about = describe(device)
    threads = about["threads"]
    cores = f", {threads} thread{'s' if threads > 1 else ''}" if about["device"] == "cpu" else ""
    return f"{about['device_name']}{cores}"


def interleaved(
    steps: Mapping[str, Step], *, rounds: int, warm_up: int = 3, device: str = "cpu", seed: int = 0
) -> dict[str, list[float]]:
    """Seconds of every way, one number a round.

    Every round takes each way once, in an order of its own, so that a machine that slows down
    slows all of them, and none always runs behind the same other one.

    Args:
        steps: What to time.
        rounds: Repetitions that count.
        warm_up: Repetitions before them that do not.
        device: Where the steps compute; an accelerator is waited for before and after each.
        seed: Of the orders.
    """
    orders = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warm_up + rounds):
        gc.collect()
        for name in orders.sample(list(steps), len(steps)):
            _wait(device)
            began = time.perf_counter()
            steps[name]()
            _wait(device)
            took = time.perf_counter() - began
            if turn >= warm_up:
                seconds[name].append(took)
    return seconds


def ratio(seconds: Sequence[float], reference: Sequence[float]) -> Ratio:
    """One way beside another of the same rounds."""
    paired = [one / other for one, other in zip(seconds, reference, strict=True)]
    lower, upper = np.quantile(paired, [0.25, 0.75])
    medians = statistics.median(seconds) / statistics.median(reference)
    return Ratio(medians, float(lower), float(upper))


def beside_best(
    steps: Mapping[str, Step],
    peers: Sequence[str],
    *,
    rounds: int,
    warm_up: int,
    device: str,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Time and memory of every way, and their ratios to the fastest and to the leanest peer."""
    seconds = interleaved(steps, rounds=rounds, warm_up=warm_up, device=device, seed=seed)
    memory = {name: peak_memory(step, device) / 2**20 for name, step in steps.items()}
    fastest = min(peers, key=lambda name: statistics.median(seconds[name]))
    least = min(memory[name] for name in peers)
    found = {}
    for name in steps:
        beside = ratio(seconds[name], seconds[fastest])
        found[name] = {
            "ms": 1e3 * statistics.median(seconds[name]),
            "peak MiB": memory[name],
            "time": beside.of_medians,
            "lower quartile": beside.lower,
            "upper quartile": beside.upper,
            "memory": memory[name] / least,
        }
    return found


def operations(step: Step) -> int:
    """Floating point operations of the convolutions and matrix products, two a multiplication."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_memory(step: Step, device: str = "cpu") -> int:
    """The most bytes that torch holds during a step, over what it held before.

    On a CPU these are the allocations that the profiler records, on a GPU those of the caching
    allocator.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports its every start and stop
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"].get("Device Type") == 0
    ]
    held = np.cumsum([size for _, size in sorted(changes, key=lambda change: change[0])])
    return int(max(0, held.max(initial=0)))


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
