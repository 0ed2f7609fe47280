"""The outer loop: students train, their commentary learns, and nothing is written or printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .. import params as p
from .. import tree
from ..errors import BadInput, check_fraction, check_not_negative, check_positive
from ..hypergradient import Hypergradient
from ..hypergradient.result import Diagnostics, HypergradientResult
from ..inner import InnerOptimizer
from ..problem import Bilevel
from ..types import Batch, Params
from .fit import warmed


class StudentState(NamedTuple):
    """One student: its parameters, its optimiser, its average over time, its adjoint."""

    theta: Params
    optimizer: Any
    average: Params
    adjoint: Params | None


class TrainState(NamedTuple):
    """All that an outer step depends on; tensors and numbers only, so that it can be saved.

    Attributes:
        step: Outer steps taken.
        phi: The commentary.
        outer: State of its optimiser.
        students: One for each problem.
        constants: Whatever `Refresh` made last; ``{}`` before.
    """

    step: int
    phi: Params
    outer: Any
    students: tuple[StudentState, ...]
    constants: Params


class StepResult(NamedTuple):
    """One outer step.

    Attributes:
        state: After the step.
        outer_loss: L_V averaged over the students, a scalar tensor.
        diagnostics: Of each student's hypergradient.
    """

    state: TrainState
    outer_loss: torch.Tensor
    diagnostics: tuple[Diagnostics, ...]


Problems = Callable[[Params], Sequence[Bilevel]]
"""constants -> one problem for each student."""

Refresh = Callable[[TrainState], Params]
"""The constants of the next steps, from the state: cues under the averaged students, for one."""


@dataclass(frozen=True)
class Schedule:
    """How long, and how the steps interleave.

    Attributes:
        steps: Outer steps in all; ``progress`` of the batches should reach 1 there.
        inner_steps: Student steps for each outer step.
        restart_every: Draw the students anew every so many outer steps; None for never.
        average: Decay of the averaged student for each outer step, in [0, 1); see `warmed`.
        refresh_every: Make the constants anew every so many outer steps.
        warm_up: Outer steps in which the students train and φ does not move yet.
        warm_start: Hand each student's adjoint to its next hypergradient, so that the linear
            solver goes on from where it stopped (Dagréou et al. 2022).
    """

    steps: int
    inner_steps: int = 1
    restart_every: int | None = None
    average: float = 0.99
    refresh_every: int = 100
    warm_up: int = 0
    warm_start: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "inner_steps", "refresh_every"):
            check_positive(name, getattr(self, name))
        if self.restart_every is not None:
            check_positive("restart_every", self.restart_every)
        check_fraction("average", self.average)
        check_not_negative("warm_up", self.warm_up)


def start(
    theta: Callable[[torch.Generator], Params],
    phi: Params,
    *,
    inner_optimizer: InnerOptimizer[Any],
    outer_optimizer: InnerOptimizer[Any],
    students: int = 1,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
        theta: Draws a student's initial parameters, as `Student.init`.
        phi: The commentary's initial parameters.
        inner_optimizer: The students' optimiser.
        outer_optimizer: The commentary's optimiser.
        students: How many.
        seed: Of the students' initial parameters.
        device: Where the students and the commentary are put; where they were drawn by default.
            All later steps compute there: the batches and `Refresh` must give tensors there.
    """
    check_positive("students", students)
    fresh = [
        _fresh(theta, inner_optimizer, seed, student, 0, device) for student in range(students)
    ]
    phi = _put(p.detach(phi), device)
    return TrainState(0, phi, outer_optimizer.init(phi), tuple(fresh), {})


def train(
    problems: Bilevel | Problems,
    state: TrainState,
    *,
    inner_optimizer: InnerOptimizer[Any],
    outer_optimizer: InnerOptimizer[Any],
    hypergradient: Hypergradient,
    inner: Callable[[int, int], Batch],
    outer: Callable[[int, int], Batch],
    schedule: Schedule,
    theta: Callable[[torch.Generator], Params] | None = None,
    refresh: Refresh | None = None,
    seed: int = 0,
) -> Iterator[StepResult]:
    """Learns a commentary; yields after every outer step and does no input or output itself.

    Each outer step, every student takes ``inner_steps`` steps on its own problem, its
    hypergradient is taken, and the mean over the students moves φ. A run depends on ``state``,
    the arguments and nothing else: continued from a saved state it is bitwise the same run.

    Args:
        problems: One problem for all students, or a function from the constants to one for each.
        state: Of `start`, or of a checkpoint.
        inner_optimizer: The students' optimiser.
        outer_optimizer: The commentary's optimiser, for example `inner.Adam`.
        hypergradient: `Implicit` or `Unrolled`.
        inner: (student, student step) -> the batch to train on.
        outer: (student, outer step) -> the batch to be judged on.
        schedule: How long, and how the steps interleave.
        theta: Draws a student's parameters; needed for restarts.
        refresh: Makes the constants at step 0 and every ``refresh_every`` steps.
        seed: Of the restarts' initial parameters.

    Raises:
        BadInput: Restarts without ``theta``, or the number of problems and students differ.
        NonFinite: A hypergradient that is not finite; the state before it was yielded.
    """
    if schedule.restart_every is not None and theta is None:
        raise BadInput("restart_every needs theta, which draws a new student. Pass student.init.")
    made: Sequence[Bilevel] | None = None
    while state.step < schedule.steps:
        step = state.step
        if refresh is not None and step % schedule.refresh_every == 0:
            state, made = state._replace(constants=refresh(state)), None
        if made is None:
            made = _problems(problems, state)
        if theta is not None and _restarts(schedule, step):
            state = _restarted(state, theta, inner_optimizer, schedule, seed)
        results = []
        for student, (problem, own) in enumerate(zip(made, state.students, strict=True)):
            first = step * schedule.inner_steps
            results.append(
                hypergradient(
                    problem,
                    inner_optimizer,
                    own.theta,
                    state.phi,
                    inner=[inner(student, first + i) for i in range(schedule.inner_steps)],
                    outer=outer(student, step),
                    state=own.optimizer,
                    adjoint=own.adjoint if schedule.warm_start else None,
                )
            )
        mean = _mean([result.value for result in results])
        phi, outer_state = state.phi, state.outer
        if step >= schedule.warm_up:
            phi, outer_state = outer_optimizer.update(mean, phi, outer_state)
        students = tuple(
            _after(own, result, schedule, step)
            for own, result in zip(state.students, results, strict=True)
        )
        state = TrainState(step + 1, phi, outer_state, students, state.constants)
        yield StepResult(
            state,
            torch.stack([result.outer_loss for result in results]).mean(),
            tuple(result.diagnostics for result in results),
        )


def _restarts(schedule: Schedule, step: int) -> bool:
    return bool(schedule.restart_every and step and step % schedule.restart_every == 0)


def _restarted(
    state: TrainState,
    theta: Callable[[torch.Generator], Params],
    optimizer: InnerOptimizer[Any],
    schedule: Schedule,
    seed: int,
) -> TrainState:
    restart = state.step // (schedule.restart_every or 1)
    fresh = (
        _fresh(theta, optimizer, seed, student, restart, next(iter(own.theta.values())).device)
        for student, own in enumerate(state.students)
    )
    return state._replace(students=tuple(fresh))


def _after(
    own: StudentState, result: HypergradientResult, schedule: Schedule, step: int
) -> StudentState:
    """A student one stretch of training further."""
    return StudentState(
        result.theta,
        result.state,
        p.lerp(own.average, result.theta, 1 - warmed(schedule.average, step)),
        result.adjoint if schedule.warm_start else None,
    )


def _mean(values: Sequence[Params]) -> Params:
    total = values[0]
    for value in values[1:]:
        total = p.add(total, value)
    return p.scale(total, 1 / len(values))


def _problems(problems: Bilevel | Problems, state: TrainState) -> Sequence[Bilevel]:
    if isinstance(problems, Bilevel):
        return [problems] * len(state.students)
    made = problems(state.constants)
    if len(made) != len(state.students):
        raise BadInput(
            f"There are {len(made)} problems for {len(state.students)} students. Give start() as "
            "many students as there are problems."
        )
    return made


def _fresh(
    theta: Callable[[torch.Generator], Params],
    optimizer: InnerOptimizer[Any],
    seed: int,
    student: int,
    restart: int,
    device: str | torch.device | None,
) -> StudentState:
    """A new student on a device; which one depends on the three numbers alone."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + student) * 1_000_003 + restart)
    drawn = _put(theta(generator), device)
    return StudentState(drawn, optimizer.init(drawn), drawn, None)


def _put(values: Params, device: str | torch.device | None) -> Params:
    if device is None:
        return values
    return tree.map_tensors(lambda leaf: leaf.to(device), values)
