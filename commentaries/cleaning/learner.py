"""Learns a weight for every training example from the trusted ones, by cross-fitted students."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..commentary import (
    CueNetwork,
    ExampleWeights,
    ImageNetwork,
    LossNetwork,
    Score,
    Table,
    effective_sample_size,
)
from ..commentary.lesson import judged, taught
from ..commentary.weights import Normalise
from ..errors import (
    BadInput,
    NonFinite,
    NotConverged,
    check_fraction,
    check_less,
    check_not_negative,
    check_positive,
    unknown,
)
from ..hypergradient import Hypergradient, Implicit, Unrolled
from ..inner import SGD, Adam
from ..networks import cbr
from ..problem import Bilevel
from ..solvers import Neumann
from ..student import Student
from ..training import Schedule, StepResult, TrainState, log_probabilities, order, start, train
from ..types import Batch, Params
from .cues import CUES, CueName, Evidence, of_label
from .task import Task

LEAST_PROBABILITY = 1e-8
"""That a student gives a label, in what is said of it."""

ScoreName = Literal["cues", "table", "loss", "image"]


@dataclass(frozen=True)
class Settings:
    """How the weights are learned. The defaults were chosen on development seeds, once for all.

    Attributes:
        score: What a weight is a function of: the cues, a free table, the example's loss
            (Meta-Weight-Net), or the image with its label and training progress.
        cues: Which cues the cue network sees.
        normalise: See `ExampleWeights`.
        cross_fitted: Train each of two students on one half of the trusted examples and judge it
            on the other; otherwise the same trusted examples do both.
        terms: Summands of the Neumann series; 0 unrolls ``inner_steps`` steps instead.
        steps: Outer steps.
        inner_steps: Student steps for each outer step.
        batch: Training examples for each student step, besides its trusted ones.
        trusted_batch: Trusted examples for each student step and each judgement, at most.
        share: Share of a student's loss that its trusted examples have.
        lr: Of the students' SGD, which is also the step size of the series.
        momentum: Of the students' SGD (Nesterov).
        weight_decay: Of the students.
        average: Decay of the averaged students.
        outer_lr: Of the commentary's Adam.
        warm_up: Outer steps before the commentary moves.
        refresh_every: Outer steps between new cues.
        width: Hidden units of the cue network or the loss network.
    """

    score: ScoreName = "cues"
    cues: tuple[CueName, ...] = CUES
    normalise: Normalise = "sum"
    cross_fitted: bool = True
    terms: int = 1
    steps: int = 600
    inner_steps: int = 1
    batch: int = 128
    trusted_batch: int = 128
    share: float = 0.5
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-2
    average: float = 0.98
    outer_lr: float = 3e-3
    warm_up: int = 50
    refresh_every: int = 25
    width: int = 32

    def __post_init__(self) -> None:
        if self.score not in get_args(ScoreName):
            raise unknown("score", self.score, get_args(ScoreName))
        for name in self.cues:
            if name not in CUES:
                raise unknown("cue", name, CUES)
        if not self.cues:
            raise BadInput("cues is empty, so the network would see nothing. Name at least one.")
        for name in ("steps", "inner_steps", "batch", "trusted_batch", "lr", "outer_lr", "width"):
            check_positive(name, getattr(self, name))
        check_positive("refresh_every", self.refresh_every)
        for name in ("terms", "weight_decay", "warm_up"):
            check_not_negative(name, getattr(self, name))
        for name in ("share", "momentum", "average"):
            check_fraction(name, getattr(self, name))
        check_less("warm_up", self.warm_up, "steps", self.steps)

    @property
    def hypergradient(self) -> Hypergradient:
        """The method that the settings describe."""
        if self.terms == 0:
            return Unrolled()
        return Implicit(Neumann(self.terms, step_size=self.lr))


class Learned(NamedTuple):
    """What was learned about the n training examples.

    Attributes:
        weight: (n,) in (0, 1).
        log_probability: (n, classes) under the averaged students.
        trusted_log_probability: (trusted, classes), each under the student that is judged on it.
    """

    weight: Tensor
    log_probability: Tensor
    trusted_log_probability: Tensor

    @property
    def probability(self) -> Tensor:
        """(n + trusted, classes) under the averaged students."""
        return torch.cat([self.log_probability, self.trusted_log_probability]).exp()


class Learner:
    """The bilevel problem of a task: two students, one commentary.

    Args:
        task: What to clean.
        student: The network of both students.
        settings: How.
        seed: Of everything random.
        evidence: Gathered from the task unless given.
    """

    def __init__(
        self,
        task: Task,
        student: Student,
        settings: Settings | None = None,
        *,
        seed: int = 0,
        evidence: Evidence | None = None,
    ):
        self.task = task
        self.student = student
        self.settings = settings or Settings()
        self.seed = seed
        self.evidence = evidence or Evidence.gather(task)
        halves = task.halves(seed)
        if not self.settings.cross_fitted:
            halves = (torch.cat(halves), torch.cat(halves))
        self._own, self._other = halves, halves[::-1]
        self._inner_optimizer = SGD(
            self.settings.lr,
            self.settings.momentum,
            bool(self.settings.momentum),
            self.settings.weight_decay,
        )
        self._outer_optimizer = Adam(self.settings.outer_lr)
        self._drawn = order(task.size, self.settings.batch, seed=seed)

    def start(self) -> TrainState:
        """The state before the first step."""
        # A fresh commentary weighs by a half whatever the cues: the first votes are equal.
        cues = torch.zeros(len(self.task.y), len(self.settings.cues))
        constants = {"cues": cues.to(self.task.x.device)}
        generator = torch.Generator().manual_seed(self.seed)
        state = start(
            self.student.init,
            self._score(constants).init(generator),
            inner_optimizer=self._inner_optimizer,
            outer_optimizer=self._outer_optimizer,
            students=2,
            seed=self.seed,
            device=self.task.x.device,
        )
        return state._replace(constants=constants)

    def steps(self, state: TrainState) -> Iterator[StepResult]:
        """Outer steps from a state to the end."""
        settings = self.settings
        try:
            yield from train(
                self._problems,
                state,
                inner_optimizer=self._inner_optimizer,
                outer_optimizer=self._outer_optimizer,
                hypergradient=settings.hypergradient,
                inner=self._inner_batch,
                outer=self._outer_batch,
                schedule=Schedule(
                    settings.steps,
                    settings.inner_steps,
                    average=settings.average,
                    refresh_every=settings.refresh_every,
                    warm_up=settings.warm_up,
                ),
                refresh=self._refresh,
                seed=self.seed,
            )
        except (NotConverged, NonFinite) as error:
            raise NonFinite(
                f"The students or the series diverge: lr = {settings.lr:g}, the step of both. "
                "Lower it (on the command line --settings.lr)."
            ) from error

    def finish(self) -> Learned:
        """Takes all steps, without keeping anything on the way."""
        return self.learned(self.last(self.start()))

    def last(self, state: TrainState) -> TrainState:
        """The state after all steps from a state."""
        for result in self.steps(state):
            state = result.state
        return state

    def learned(self, state: TrainState) -> Learned:
        """The weights of a state, with cues as fresh as the students, and the opinion of these."""
        opinion = self._opinion(state)
        return Learned(self._weigh_anew(state, opinion), opinion, self._trusted_opinion(state))

    def weights(self, state: TrainState) -> Tensor:
        """(n,) those of `learned`, without the rest."""
        return self._weigh_anew(state, self._opinion(state))

    def batch_sample_size(self, state: TrainState) -> float | None:
        """Effective sample size of the weights of the last step's batch, as a share of the batch.

        None where the weights are a function of losses, which only a student's pass knows.
        """
        if self.settings.score == "loss":
            return None
        index = self._drawn(state.step * self.settings.inner_steps - 1)
        with torch.no_grad():
            batch = self._batch(index, state.step)
            weight = self._commentary(state.constants).raw(state.phi, batch)
        return float(effective_sample_size(weight)) / len(index)

    def _weigh_anew(self, state: TrainState, opinion: Tensor) -> Tensor:
        """(n,) weights by cues as fresh as an opinion."""
        return self._weigh(state._replace(constants=self._cues(state, opinion)), opinion)

    def _weigh(self, state: TrainState, opinion: Tensor) -> Tensor:
        n = self.task.size
        batch = Batch(
            self.task.train.x,
            self.task.train.y,
            torch.arange(n),
            progress=min(state.step / self.settings.steps, 1.0),
        )
        losses = -of_label(opinion, batch.y.cpu()).to(batch.y.device)
        with torch.no_grad():
            return self._commentary(state.constants).raw(state.phi, batch, losses).cpu()

    def _opinion(self, state: TrainState) -> Tensor:
        """Log of the averaged students' mean probability, (n, classes), on the CPU."""
        x = self.task.train.x
        each = [
            log_probabilities(self.student, own.average, x, seen=self.task.x)
            for own in state.students
        ]
        mean = torch.logsumexp(torch.stack(each), dim=0) - math.log(len(each))
        return mean.clamp_min(math.log(LEAST_PROBABILITY)).cpu()

    def _trusted_opinion(self, state: TrainState) -> Tensor:
        """Log-probability under the student that is judged on the example, (trusted, classes)."""
        found = torch.empty(len(self.task.trusted), self.task.classes)
        for own, held in zip(state.students, self._other, strict=True):
            x = self.task.x[held]
            opinion = log_probabilities(self.student, own.average, x, seen=self.task.x)
            found[held - self.task.size] = opinion.cpu()
        return found.clamp_min(math.log(LEAST_PROBABILITY))

    def _refresh(self, state: TrainState) -> Params:
        return self._cues(state, self._opinion(state))

    def _cues(self, state: TrainState, opinion: Tensor) -> Params:
        """Cues under the present students, the votes weighted as the last cues said."""
        weight = self._weigh(state, opinion)
        cues = self.evidence.cues(self.settings.cues, weight, opinion).to(self.task.x.device)
        return {"cues": torch.cat([cues, cues.new_zeros(len(self.task.trusted), cues.shape[1])])}

    def _score(self, constants: Params) -> Score:
        settings = self.settings
        if settings.score == "cues":
            return CueNetwork(constants["cues"], settings.width)
        if settings.score == "table":
            return Table(len(self.task.y))
        if settings.score == "loss":
            return LossNetwork(settings.width)
        channels, size = self.task.train.x.shape[1:3]
        planes = channels + self.task.classes + 1
        return ImageNetwork(
            lambda: cbr(1, channels=planes, size=size, norm="group"),
            classes=self.task.classes,
            progress=True,
        )

    def _commentary(self, constants: Params) -> ExampleWeights:
        settings = self.settings
        return ExampleWeights(
            self._score(constants), settings.normalise, self.task.is_trusted, settings.share
        )

    def _problems(self, constants: Params) -> list[Bilevel]:
        inner = taught(self.student, self._commentary(constants))
        return [Bilevel(inner, judged(self.student))] * 2

    def _inner_batch(self, student: int, step: int) -> Batch:
        drawn = self._drawn(step)
        return self._batch(torch.cat([drawn, self._some(self._own[student], 2 * step)]), step)

    def _outer_batch(self, student: int, step: int) -> Batch:
        return self._batch(self._some(self._other[student], 2 * step + 1), step)

    def _some(self, trusted: Tensor, seed: int) -> Tensor:
        """The trusted examples of a step: all of them, or some drawn by the step alone."""
        if len(trusted) <= self.settings.trusted_batch:
            return trusted
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + seed)
        order = torch.randperm(len(trusted), generator=generator)
        return trusted[order[: self.settings.trusted_batch]]

    def _batch(self, index: Tensor, step: int) -> Batch:
        progress = min(step / (self.settings.steps * self.settings.inner_steps), 1.0)
        return Batch(self.task.x[index], self.task.y[index], index, progress, seed=step)
