"""Model-agnostic meta-learning: an initialisation that a few steps adapt to a new task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .. import params as p
from ..commentary.lesson import Commentary, Criterion, cross_entropy
from ..curvature import Hessian
from ..errors import BadInput, check_not_negative, check_positive, unknown
from ..hypergradient import Implicit, Unrolled
from ..hypergradient.result import Diagnostics
from ..inner import SGD, Adam, InnerOptimizer, step
from ..problem import Bilevel
from ..student import Student
from ..types import Batch, Params
from .episodes import Episode, stacked
from .meta_parameters import RATE, START, TEACHER, part, under
from .step_gradient import StepGradient
from .task import Task

Statistics = Literal["transductive", "support"]


class MetaGradient(NamedTuple):
    """The gradient of the mean query loss over the tasks of a meta-batch.

    Attributes:
        value: With respect to all of φ, detached.
        outer_loss: The mean query loss after adaptation, a detached scalar.
        diagnostics: Of each task's hypergradient; of all at once where they were batched.
    """

    value: Params
    outer_loss: Tensor
    diagnostics: tuple[Diagnostics, ...]


@dataclass(frozen=True)
class MAML:
    """MAML (Finn, Abbeel and Levine 2017) and what has been made of it, by choice.

    All that is learned is one dict φ: "start.NAME" the initialisation, "rate.NAME" the rates,
    "teacher.NAME" the commentary. Every outer optimiser of `inner` moves it as it is.

    Attributes:
        student: The network.
        optimizer: An adaptation step. Its state starts anew in each task.
        steps: Adaptation steps.
        hypergradient: `Unrolled` differentiates through the steps; ``Unrolled(every=1)``
            recomputes them one by one in little memory. `Implicit` is implicit MAML (Rajeswaran
            et al. 2019) and needs ``proximal``.
        commentary: What the student is shown of the support set, such as `ExampleWeights` of an
            `ImageNetwork` or a `SupportNetwork`. ``batch.progress`` is k / (steps - 1) at step k,
            and 1 at steps beyond those. It is learned together with the initialisation. With
            `Implicit` the weights of progress 1 are those that count.
        learn_rates: Learn one rate for each step and parameter tensor (MAML++, Antoniou et al.
            2019), which begin at the optimizer's ``lr``. At further steps the last one is used.
        proximal: λ ≥ 0: adaptation minimises L(θ) + ½ λ ‖θ - θ_0‖².
        first_order: Leave out the second derivatives of the support loss with respect to θ.
        statistics: What batch normalisation of the query examples uses; the support set is always
            normalised by its own statistics. "transductive": those of the task's query examples,
            which are predicted together (as the MAML paper's code does). "support": those of the
            support set under the same θ, so that each query example is predicted alone. No
            statistics are kept from task to task.
        criterion: The losses of the student.

    Raises:
        BadInput: Options that do not go together.
    """

    student: Student
    optimizer: InnerOptimizer[Any] = field(default_factory=lambda: SGD(0.01))
    steps: int = 5
    hypergradient: Unrolled | Implicit = field(default_factory=Unrolled)
    commentary: Commentary | None = None
    learn_rates: bool = False
    proximal: float = 0.0
    first_order: bool = False
    statistics: Statistics = "transductive"
    criterion: Criterion = cross_entropy

    def __post_init__(self) -> None:
        check_positive("steps", self.steps)
        check_not_negative("proximal", self.proximal)
        if self.statistics not in get_args(Statistics):
            raise unknown("kind of statistics", self.statistics, get_args(Statistics))
        if self.learn_rates:
            _check_rates(self.optimizer)
        if isinstance(self.hypergradient, Implicit):
            if not self.proximal:
                raise BadInput(
                    "proximal is 0, so that the point of rest that Implicit differentiates does "
                    "not depend on the initialisation. Set proximal, for example to 1."
                )
            for name in ("learn_rates", "first_order"):
                if getattr(self, name):
                    raise BadInput(
                        f"{name} is True, but Implicit differentiates a point of rest and no "
                        f"steps. Leave {name} out, or use Unrolled."
                    )

    def init(self, generator: torch.Generator) -> Params:
        """φ before anything is learned, drawn from the generator alone."""
        start = self.student.init(generator)
        phi = under(START, start)
        if self.learn_rates:
            assert isinstance(self.optimizer, SGD)
            assert isinstance(self.optimizer.lr, float | int)
            rate = float(self.optimizer.lr)
            phi |= under(RATE, {k: v.new_full((self.steps,), rate) for k, v in start.items()})
        if self.commentary is not None:
            phi |= under(TEACHER, self.commentary.init(generator))
        return phi

    def adapt(self, phi: Params, episode: Episode, *, steps: int | None = None) -> Iterator[Params]:
        """θ before the first step and after each; nothing is differentiated.

        Args:
            phi: What `init` or meta-training gave.
            episode: A task, of which only the support set is seen; or the tasks of `stacked`,
                for which θ has a first dimension (tasks, ...).
            steps: How many, in place of the number that was trained with.
        """
        task = self.task(episode)
        phi = p.detach(phi)
        theta = task.start(part(phi, START))
        optimizer, gradient = self._optimizer, self._gradient
        state = optimizer.init(theta)
        yield theta
        for batch in self.support(episode, self.steps if steps is None else steps):
            with torch.no_grad():
                grad_fn = gradient(task.inner, phi, batch)
                theta, state, _ = step(optimizer, grad_fn, theta, state)
            yield theta

    def meta_gradient(
        self, phi: Params, episodes: Sequence[Episode], *, batched: bool | None = None
    ) -> MetaGradient:
        """dL/dφ of the mean query loss L after adaptation, over the tasks of a meta-batch.

        Args:
            phi: What `init` or meta-training gave.
            episodes: The tasks, on the device of φ.
            batched: True: all tasks at once, with `torch.func.vmap` over the tasks. False: one
                after another, each graph freed before the next. None: at once on an accelerator
                where that is possible, one after another on the CPU, where it is faster.

        Raises:
            BadInput: No tasks, or ``batched`` with options that only work task by task.
            NonFinite: A meta-gradient that is not finite.
            NotConverged: `Implicit`'s solver did not.
        """
        if not episodes:
            raise BadInput("There are no episodes. Give at least one.")
        device = next(iter(phi.values())).device
        if batched is None:
            batched = device.type != "cpu" and self.batchable and len(episodes) > 1
        if batched:
            self.check_batchable()
            tasks = [stacked(episodes)]
        else:
            tasks = list(episodes)
        total: Params = {}
        losses, diagnostics = [], []
        for each in tasks:
            value, loss, found = self._task_gradient(phi, each)
            total = p.add(total, value) if total else value
            del value  # the next task needs the room
            losses.append(loss)
            diagnostics.append(found)
        share = 1 / len(episodes)
        return MetaGradient(
            p.scale(total, share), torch.stack(losses).sum() * share, tuple(diagnostics)
        )

    @property
    def batchable(self) -> bool:
        """Whether all tasks of a meta-batch can be adapted to at once."""
        return (
            isinstance(self.hypergradient, Unrolled)
            and isinstance(self.hypergradient.curvature, Hessian)
            and isinstance(self.optimizer, SGD | Adam)
        )

    def check_batchable(self) -> None:
        """Refuses options that would mix the tasks of a meta-batch.

        Raises:
            BadInput: Such options.
        """
        if not self.batchable:
            raise BadInput(
                "batched is True, but only SGD or Adam with Unrolled and the Hessian keep the "
                "tasks apart when they are adapted to at once: other steps and solvers take norms "
                "over all parameters. Choose batched=False."
            )

    def task(self, episode: Episode) -> Task:
        """The losses of a task, or of stacked ones."""
        by_support = self.statistics == "support"
        return Task(self.student, self.commentary, self.criterion, by_support, episode)

    def support(self, episode: Episode, steps: int) -> list[Batch]:
        """The batch of each adaptation step: the support set, with the step's progress."""
        batch, last = episode.support, max(self.steps - 1, 1)
        return [
            batch._replace(progress=min(k / last, 1.0), seed=batch.seed + k) for k in range(steps)
        ]

    def _task_gradient(self, phi: Params, episode: Episode) -> tuple[Params, Tensor, Diagnostics]:
        task = self.task(episode)
        implicit = isinstance(self.hypergradient, Implicit)
        method = replace(self.hypergradient, curvature=self._gradient)
        result = method(
            Bilevel(task.inner, task.outer),
            self._optimizer,
            task.start(part(phi, START)),
            phi,
            # Implicit takes its last batch for F at the point that the others led to.
            inner=self.support(episode, self.steps + implicit),
            outer=episode.query,
        )
        value = result.value
        if not implicit:
            start = under(START, task.summed(result.adjoint))
            value = {name: v + start[name] if name in start else v for name, v in value.items()}
        return value, result.outer_loss, result.diagnostics

    @property
    def _gradient(self) -> StepGradient:
        return StepGradient(self.hypergradient.curvature, self.proximal, self.first_order)

    @property
    def _optimizer(self) -> InnerOptimizer[Any]:
        """The step; learned rates are part of the gradient."""
        if self.learn_rates:
            assert isinstance(self.optimizer, SGD)
            return replace(self.optimizer, lr=1.0)
        return self.optimizer


def _check_rates(optimizer: InnerOptimizer[Any]) -> None:
    if (
        isinstance(optimizer, SGD)
        and isinstance(optimizer.lr, float | int)
        and optimizer == SGD(optimizer.lr)
    ):
        return
    raise BadInput(
        f"learn_rates goes with plain gradient steps, and the optimizer is {optimizer}. Use "
        "inner.SGD(lr) with a number and without momentum or weight decay."
    )
