"""What can be known about an example and its given label before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import unknown
from .graph import NeighbourGraph, weighted_labels
from .task import Task

CueName = Literal["margin", "trusted_votes", "weighted_votes", "loss", "probability"]
CUES: tuple[CueName, ...] = get_args(CueName)

FLOOR = 1e-3
"""Added to shares of votes before their logarithm."""

TRUSTED_SHARE = 0.25
"""Share of all votes that the trusted labels have together among the weighted votes."""


@dataclass(frozen=True)
class Evidence:
    """The parts of the cues that do not change while students train.

    Attributes:
        task: The examples.
        graph: Over all positions of the task.
        margin: (n, classes) decision values of a support-vector machine of the trusted examples.
        trusted_votes: (n, classes) shares of the trusted labels as they spread over the graph.
    """

    task: Task
    graph: NeighbourGraph
    margin: Tensor
    trusted_votes: Tensor

    @classmethod
    def gather(cls, task: Task, *, neighbours: int = 5, alpha: float = 0.99) -> Evidence:
        """Fits the support-vector machine and builds the graph."""
        graph = NeighbourGraph.build(task.x, neighbours=neighbours, alpha=alpha)
        votes = graph.spread(trusted_labels(task))[: task.size]
        return cls(task, graph, trusted_decisions(task, task.train.x), votes)

    def weighted_votes(self, weight: Tensor) -> Tensor:
        """Class shares at each training example by the given labels of the *others*, (n, classes).

        Args:
            weight: (n,) how much each given label counts.
        """
        return self.votes_everywhere(weight)[: self.task.size]

    def votes_everywhere(self, weight: Tensor) -> Tensor:
        """As `weighted_votes`, at the trusted examples too, (n + trusted, classes)."""
        task = self.task
        mass = weighted_labels(task.train.y, weight, task.trusted.y, task.classes, TRUSTED_SHARE)
        return self.graph.votes_of_others(mass)

    def self_trained_votes(self, weight: Tensor, passes: int) -> Tensor:
        """Weighted votes, repeated with the weights that the votes themselves give.

        Each pass weighs a label by the square of its own share over the best one.

        Args:
            weight: (n,) the first weights.
            passes: Repetitions.
        """
        votes = self.weighted_votes(weight)
        for _ in range(passes):
            votes = self.weighted_votes(self._agreement(votes))
        return votes

    def _agreement(self, votes: Tensor) -> Tensor:
        own = of_label(votes, self.task.train.y)
        return (own / votes.max(1).values).square()

    def cues(self, names: tuple[CueName, ...], weight: Tensor, log_probability: Tensor) -> Tensor:
        """Cues of the given labels, standardised and cut at ±3, (n, len(names)).

        Args:
            names: Which, of `CUES`.
            weight: (n,) present weights, for the weighted votes.
            log_probability: (n, classes) under the averaged students.

        Raises:
            BadInput: An unknown name.
        """
        # Once cleaned: votes that confirm the weights they came from can lock in on an error.
        cleaned = weight * self._agreement(self.weighted_votes(weight))
        values = cue_values(
            names, self.margin, self.trusted_votes, self.weighted_votes(cleaned), log_probability
        )
        own = of_label(values, self.task.train.y)
        return standardised(own, own)


def trusted_labels(task: Task) -> Tensor:
    """Label mass of one at each trusted example, none elsewhere, (n + trusted, classes)."""
    return functional.one_hot(task.y, task.classes) * task.is_trusted[:, None].float()


def cue_values(
    names: tuple[CueName, ...],
    decisions: Tensor,
    trusted_votes: Tensor,
    weighted_votes: Tensor,
    log_probability: Tensor,
) -> Tensor:
    """Every cue for every label that an example might have, (m, classes, len(names)).

    Args:
        names: Which, of `CUES`.
        decisions: (m, classes) decision values; the cue is the margin over the other classes.
        trusted_votes: (m, classes) shares.
        weighted_votes: (m, classes) shares.
        log_probability: (m, classes).

    Raises:
        BadInput: An unknown name.
    """
    columns = []
    for name in names:
        if name == "margin":
            columns.append(margins(decisions))
        elif name == "trusted_votes":
            columns.append((trusted_votes + FLOOR).log())
        elif name == "weighted_votes":
            columns.append((weighted_votes + FLOOR).log())
        elif name == "loss":
            columns.append(-log_probability)
        elif name == "probability":
            columns.append(log_probability.exp())
        else:
            raise unknown("cue", name, CUES)
    return torch.stack(columns, dim=2)


def of_label(values: Tensor, label: Tensor) -> Tensor:
    """What belongs to one label of each example: (m, classes, ...), (m,) -> (m, ...)."""
    return values[torch.arange(len(label)), label]


def svm_decisions(x: Tensor, y: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Decision values of a support-vector machine, (m, classes).

    Args:
        x: (t, ...) inputs to fit, of every class.
        y: (t,) labels.
        asked: (m, ...) inputs to decide.
        classes: Number of classes.
    """
    from sklearn.svm import SVC

    machine = SVC(C=10.0, decision_function_shape="ovr")
    machine.fit(x.flatten(1).numpy(), y.numpy())
    values = torch.from_numpy(machine.decision_function(asked.flatten(1).numpy())).float()
    return values if classes > 2 else torch.stack([-values, values], dim=1)


def trusted_decisions(task: Task, asked: Tensor) -> Tensor:
    """Decision values of a support-vector machine fitted to the trusted examples, (m, classes)."""
    return svm_decisions(task.trusted.x, task.trusted.y, asked, task.classes)


def margins(scores: Tensor) -> Tensor:
    """Each class's score above the best other one, (m, classes)."""
    best = scores.topk(2, dim=1)
    rival = best.values[:, :1].expand_as(scores).scatter(1, best.indices[:, :1], best.values[:, 1:])
    return scores - rival


def standardised(columns: Tensor, like: Tensor) -> Tensor:
    """Columns scaled by the mean and deviation of those of ``like``, and cut at ±3.

    Args:
        columns: (..., cues).
        like: (m, cues).
    """
    spread = like.std(0, correction=0).clamp_min(1e-8)
    return ((columns - like.mean(0)) / spread).clamp(-3, 3)
