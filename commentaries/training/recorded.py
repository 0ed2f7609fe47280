"""Outer steps that leave metrics and checkpoints in a run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from ..types import Params
from . import atomic, checkpoint
from .loop import StepResult, TrainState
from .run_folder import RunFolder

HISTORY = "history"
"""Of the folder within a run folder that holds earlier commentaries."""

Metrics = dict[str, float | None]


class Stepped(Protocol):
    """A state that can be saved, and says how many steps were taken and what is learned."""

    @property
    def step(self) -> int:
        """Steps taken."""
        ...

    @property
    def phi(self) -> Params:
        """What is learned."""
        ...


class Taken(Protocol):
    """What a step yields: `StepResult`, or the like."""

    @property
    def state(self) -> Any:
        """The state after it."""
        ...


State = TypeVar("State", bound=Stepped)
Result = TypeVar("Result", bound=Taken)


def resumed(folder: RunFolder, start: State) -> State:
    """The state of a run's last checkpoint, or its start; later metrics are dropped."""
    state = start
    if folder.checkpoint.exists():
        state = folder.load_checkpoint(start)
        folder.warn_if_threads_differ()
    folder.rewind(state.step)
    for place in folder.path.iterdir():
        if place.is_dir():
            atomic.remove_temporaries(place)
    return state


def take(
    folder: RunFolder,
    state: State,
    steps: Iterable[Result],
    *,
    last: int,
    checkpoint_every: int,
    metrics: Callable[[Result], Metrics],
    more: Callable[[State], dict[str, Any]] = lambda state: {},
    history_every: int | None = None,
    on_step: Callable[[int, Metrics], None] | None = None,
) -> State:
    """Takes the steps and returns the state after them.

    Args:
        folder: Of the run.
        state: Before the first step.
        steps: Of `train` or `meta_train`, from that state.
        last: How many steps there are in all.
        checkpoint_every: Steps between checkpoints, at most as many as a kill loses.
        metrics: What is logged of each step, and shown.
        more: What is logged besides, of the state after the step.
        history_every: Keep the commentary every so many steps; None for never.
        on_step: Called with the steps taken and the metrics.
    """
    for result in steps:
        state = result.state
        found = metrics(result)
        folder.log(state.step - 1, **found, **more(state))
        if history_every is not None and state.step % history_every == 0:
            place = folder.path / HISTORY
            place.mkdir(exist_ok=True)
            checkpoint.save(place / f"{state.step:07}.pt", state.phi)
        if on_step is not None:
            on_step(state.step, found)
        if state.step % checkpoint_every == 0 or state.step == last:
            folder.save_checkpoint(state)
    return state


def history(folder: RunFolder, like: TrainState) -> list[TrainState]:
    """The commentaries that a run has kept, in order, each with its step.

    Args:
        folder: Of the run.
        like: A state of the same run, for the structure.
    """
    return [
        like._replace(step=int(path.stem), phi=checkpoint.load(path, like.phi))
        for path in sorted((folder.path / HISTORY).glob("*.pt"))
    ]


def diagnostics(result: StepResult) -> Metrics:
    """Of the hypergradients of a step: means over the students."""

    def mean(name: str) -> float | None:
        values = [each.get(name) for each in result.diagnostics]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return {
        "loss": mean("inner_loss"),
        "outer_loss": float(result.outer_loss),
        "stationarity": mean("stationarity"),
        "relative_residual": mean("relative_residual"),
    }
