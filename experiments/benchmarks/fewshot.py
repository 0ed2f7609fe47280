"""Meta-steps a second and peak memory of MAML beside learn2learn, higher and TorchOpt.

    python -m experiments.benchmarks.fewshot                   # about half an hour on one core
    python -m experiments.benchmarks.fewshot --preset smoke    # seconds
    python -m experiments.benchmarks.fewshot --device cuda

A meta-step is the meta-gradient of the mean query loss of four tasks, by second-order MAML of five
steps. All ways have the same network, initial weights and tasks, run in one process and in turn;
before anything is timed, each has to give the same loss and the same meta-gradient in float64. A
peer that is not installed is left out, with the reason.

Aims on a CPU: at least 2.2 times the fastest peer on images of 84 pixels and 1.3 times on 28; on
a GPU 5 times; with recomputed steps at most half the memory of the leanest peer.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
import tyro

from commentaries import params as p
from commentaries.fewshot import MAML, START, Episode, part
from commentaries.hypergradient import Unrolled
from commentaries.inner import SGD
from commentaries.networks import conv4
from commentaries.report.tables import text_table
from commentaries.student import Student
from commentaries.types import Batch, Params

from ..store import Cell, Store
from .peers import PEERS, Loss, Peer
from .side_by_side import Step, interleaved, named_device, peak_memory, ratio

WAY, TASKS, STEPS, LR = 5, 4, 5, 0.1
TOLERANCE = 1e-6
"""Of the loss and the meta-gradient, relative, in float64."""


class Setting(NamedTuple):
    """Images, network and shots."""

    size: int
    channels: int
    width: int
    shot: int
    query: int = 15


SETTINGS = {
    "28 x 28, 1-shot": Setting(28, 1, 64, 1),
    "84 x 84, 5-shot": Setting(84, 3, 32, 5),
}
SMOKE = Setting(16, 1, 4, 1, 2)

OURS = "commentaries"
RECOMPUTED = "commentaries, recomputed"
AT_ONCE = "commentaries, all tasks at once"

LABELS = ("device", "setting", "way")
METRICS = ("ratio", "lower quartile", "upper quartile", "meta-steps/s", "peak MiB", "memory ratio")
"""The ratio is of a way's median time to ours, that of memory of ours with recomputed steps to
the way's; then the quartiles of the first over the rounds."""

FASTER = {"cpu": {"28 x 28, 1-shot": 1.3, "84 x 84, 5-shot": 2.2}}
FASTER_ON_GPU = 5.0
LEANER = 0.5
"""Aims: the least ratio of time and the greatest of memory, against the best peer."""


@dataclass(frozen=True)
class Arguments:
    """Which cells to measure.

    Attributes:
        preset: "paper": as given. "smoke": tiny images and two rounds of the first seed.
        settings: Names of settings.
        seeds: Each draws its own tasks and weights, and the order of the ways.
        rounds: Timed meta-steps of every way for each seed.
        device: Where to compute: cpu or cuda.
        threads: Of torch's CPU kernels; torch's own choice if not given.
        name: Of the result file.
    """

    preset: Literal["paper", "smoke"] = "paper"
    settings: tuple[str, ...] = tuple(SETTINGS)
    seeds: tuple[int, ...] = (0, 1, 2)
    rounds: int = 7
    device: str = "cpu"
    threads: int | None = None
    name: str = "benchmark_fewshot"

    def shortened(self) -> Arguments:
        """With what the preset scales down."""
        if self.preset == "paper":
            return self
        return replace(self, settings=self.settings[:1], seeds=self.seeds[:1], rounds=2)


def tasks_of(setting: Setting, seed: int, dtype: torch.dtype, device: str) -> list[Episode]:
    """Random images of random classes."""
    generator = torch.Generator().manual_seed(seed)

    def batch(each: int) -> Batch:
        y = torch.arange(WAY).repeat_interleave(each)
        shape = (len(y), setting.channels, setting.size, setting.size)
        x = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
        return Batch(x.to(device), y.to(device), torch.arange(len(y), device=device))

    def episode() -> Episode:
        support = batch(setting.shot)
        classes = torch.arange(WAY, device=device)
        return Episode(support, batch(setting.query), support.y, classes)

    return [episode() for _ in range(TASKS)]


def ways_of(
    setting: Setting, episodes: list[Episode], seed: int, peers: dict[str, Peer]
) -> dict[str, Loss]:
    """Every way as a function that returns the mean query loss and its gradient by name."""
    shape = {"channels": setting.channels, "size": setting.size, "width": setting.width}
    example = episodes[0].query.x
    assert isinstance(example, torch.Tensor)
    student = Student(lambda: conv4(WAY, **shape))
    start = student.init(torch.Generator().manual_seed(seed))
    start = {name: value.to(example) for name, value in start.items()}
    phi = {f"{START}{name}": value for name, value in start.items()}

    def ours(maml: MAML, batched: bool) -> tuple[torch.Tensor, Params]:
        found = maml.meta_gradient(phi, episodes, batched=batched)
        return found.outer_loss, part(found.value, START)

    maml = MAML(student, SGD(LR), steps=STEPS)
    recomputed = replace(maml, hypergradient=Unrolled(every=1))
    ways: dict[str, Loss] = {
        OURS: functools.partial(ours, maml, False),
        RECOMPUTED: functools.partial(ours, recomputed, False),
        AT_ONCE: functools.partial(ours, maml, True),
    }
    for name, peer in peers.items():
        module = conv4(WAY, **shape).to(example)
        module.load_state_dict(start, strict=False)
        ways[name] = peer(module, episodes, lr=LR, steps=STEPS)
    return ways


def check(setting: Setting, seed: int, device: str, peers: dict[str, Peer]) -> None:
    """Compares loss and meta-gradient of every way with ours, in float64.

    Raises:
        ArithmeticError: They differ.
    """
    ways = ways_of(setting, tasks_of(setting, seed, torch.float64, device), seed, peers)
    loss, value = ways[OURS]()
    scale = float(p.norm(value))
    for name, way in ways.items():
        other, found = way()
        apart = abs(float(other - loss)) / abs(float(loss))
        apart = max(apart, float(p.norm(p.subtract(value, found))) / scale)
        if not apart < TOLERANCE:
            raise ArithmeticError(f"{name} is {apart:.1e} from {OURS}, on {setting}.")


def measure(name: str, seed: int, arguments: Arguments, peers: dict[str, Peer]) -> list[Cell]:
    """Every way of one setting and seed."""
    setting = SMOKE if arguments.preset == "smoke" else SETTINGS[name]
    check(setting, seed, arguments.device, peers)
    episodes = tasks_of(setting, seed, torch.float32, arguments.device)
    steps: dict[str, Step] = dict(ways_of(setting, episodes, seed, peers))
    seconds = interleaved(
        steps, rounds=arguments.rounds, warm_up=1, device=arguments.device, seed=seed
    )
    memory = {way: peak_memory(step, arguments.device) for way, step in steps.items()}
    cells = []
    for way in steps:
        figures = (
            *ratio(seconds[way], seconds[OURS]),
            1 / statistics.median(seconds[way]),
            memory[way] / 2**20,
            memory[RECOMPUTED] / memory[way],
        )
        labels = labels_of(name, arguments) | {"way": way, "seed": seed}
        cells.append(labels | dict(zip(METRICS, figures, strict=True)))
    return cells


def labels_of(setting: str, arguments: Arguments) -> dict[str, Any]:
    """What the cells of a setting are called."""
    return {"device": named_device(arguments.device), "setting": setting}


def found_peers() -> dict[str, Peer]:
    """The peers that are installed; says which are not, and why."""
    found: dict[str, Peer] = {}
    for name, load in PEERS.items():
        try:
            found[name] = load()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def run(given: Arguments) -> Store:
    """Measures what the result file does not hold yet."""
    arguments = given.shortened()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    kept = Store(
        arguments.name,
        labels=LABELS,
        metrics=METRICS,
        preset=arguments.preset,
        device=arguments.device,
    )
    peers = found_peers()
    for seed in arguments.seeds:
        for name in arguments.settings:
            if not kept.has(seed, **labels_of(name, arguments)):
                kept.add(measure(name, seed, arguments, peers))
                print(f"done: {name}, seed {seed}")
    return kept


def verdict(kept: Store, device: str) -> list[list[Any]]:
    """Against the best peer of each setting: ratios of time and memory, with their aims."""
    lines = []
    peers = [row for row in kept.rows() if row["way"] in PEERS]
    for place in sorted({(row["device"], row["setting"]) for row in peers}):
        own = [row for row in peers if (row["device"], row["setting"]) == place]
        time = min((row for row in own if row["metric"] == "ratio"), key=_value)
        memory = max((row for row in own if row["metric"] == "memory ratio"), key=_value)
        aims = FASTER.get(torch.device(device).type, {})
        faster = f"at least {aims.get(place[1], FASTER_ON_GPU)}"
        for row, what, aim in ((time, "time", faster), (memory, "memory", f"at most {LEANER}")):
            lines.append([*place, what, row["way"], row["value"], row["low"], row["high"], aim])
    return lines


def _value(row: dict[str, Any]) -> float:
    return row["value"]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    kept = run(arguments)
    print(text_table([*LABELS, *METRICS], kept.table()))
    columns = ["device", "setting", "of", "best peer", "ratio", "low", "high", "aim"]
    print(f"\n{text_table(columns, verdict(kept, arguments.device))}")


if __name__ == "__main__":
    main()
