"""What can be known about an example and its given label before anything is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import unknown
from . import ridge, stacking
from .features import Encoder, fit_encoder, is_tiny
from .graph import NeighbourGraph, weighted_labels
from .posterior import NoiseModel
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
        encode: Images to the vectors by which they are compared.
        features: (n + trusted, d) such vectors.
        graph: Of their nearest neighbours.
        decisions: (n + trusted, classes) decision values of support-vector machines of trusted
            examples, those of a trusted example by machines that have not seen it.
        trusted_votes: (n + trusted, classes) shares of the trusted labels as they spread over the
            graph, without an example's own label.
    """

    task: Task
    encode: Encoder
    features: Tensor
    graph: NeighbourGraph
    decisions: Tensor
    trusted_votes: Tensor

    @classmethod
    def gather(cls, task: Task, *, encode: Encoder | None = None) -> Evidence:
        """Learns features, fits the support-vector machines and builds the graph.

        Args:
            task: The examples.
            encode: What describes them; learned unless given.
        """
        encode = encode or fit_encoder(task.train.x)
        features = encode(task.x)
        # Pixels of tiny images tell near neighbours apart well: labels may travel far from them.
        neighbours, alpha = (5, 0.99) if is_tiny(task.x) else (10, 0.9)
        graph = NeighbourGraph.build(features, neighbours=neighbours, alpha=alpha)
        trusted = functional.one_hot(task.y.cpu(), task.classes) * task.is_trusted[:, None].float()
        votes = torch.cat(
            [graph.spread(trusted)[: task.size], graph.votes_of_others(trusted)[task.size :]]
        )
        own, label = features[task.size :], task.trusted.y.cpu()
        decisions = torch.cat(
            [
                svm_decisions(own, label, features[: task.size], task.classes),
                out_of_fold_decisions(own, label, task.classes),
            ]
        )
        return cls(task, encode, features, graph, decisions, votes)

    @property
    def given(self) -> Tensor:
        """(n,) given labels, on the CPU as all evidence is."""
        return self.task.train.y.cpu()

    @property
    def trusted_label(self) -> Tensor:
        """(trusted,) right labels of the trusted examples, on the CPU."""
        return self.task.trusted.y.cpu()

    @property
    def margin(self) -> Tensor:
        """(n, classes) decision values at the training examples."""
        return self.decisions[: self.task.size]

    def weighted_votes(self, weight: Tensor, students: Tensor | None = None) -> Tensor:
        """Class shares at each training example by the given labels of the *others*, (n, classes).

        The trusted labels teach how to join the `opinions`.

        Args:
            weight: (n,) how much each given label counts.
            students: As in `opinions`.
        """
        return stacking.at_training(self.opinions(weight, students), self.trusted_label)

    def votes_everywhere(self, weight: Tensor, students: Tensor | None = None) -> Tensor:
        """As `weighted_votes`, at the trusted examples too, (n + trusted, classes)."""
        opinions, label = self.opinions(weight, students), self.trusted_label
        return torch.cat(
            [stacking.at_training(opinions, label), stacking.at_trusted(opinions, label)]
        )

    def opinions(self, weight: Tensor, students: Tensor | None = None) -> Tensor:
        """Class shares by neighbours in the graph, a ridge regression and the trusted examples.

        None of these at an example depends on its own label. With students there are theirs too.

        Args:
            weight: (n,) how much each given label counts.
            students: (n + trusted, classes) probabilities by students; of a trusted example by one
                that has not seen it.

        Returns:
            (opinions, n + trusted, classes).
        """
        classes, label = self.task.classes, self.trusted_label
        mass = weighted_labels(self.given, weight, label, classes, TRUSTED_SHARE)
        found = [
            self.graph.votes_of_others(mass),
            ridge.votes_of_others(self.features, mass),
            self.decisions.softmax(1),
        ]
        return torch.stack(found if students is None else [*found, students])

    def self_trained_votes(
        self, weight: Tensor, passes: int, students: Tensor | None = None
    ) -> Tensor:
        """Votes everywhere, repeated with the weights that the votes themselves give.

        In each pass a label weighs what the posterior under the votes of others gives it.

        Args:
            weight: (n,) the first weights.
            passes: Repetitions.
            students: As in `opinions`.
        """
        for _ in range(passes):
            weight = self.probably_right(self.weighted_votes(weight, students))
        return self.votes_everywhere(weight, students)

    def probably_right(self, votes: Tensor) -> Tensor:
        """(n,) posterior probability of each given label under votes, (n, classes)."""
        model = NoiseModel.estimate(votes, self.given)
        return of_label(model.log_posterior(votes, self.given), self.given).exp()

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
        cleaned = weight * self.probably_right(self.weighted_votes(weight))
        trusted_votes = self.trusted_votes[: self.task.size]
        votes = self.weighted_votes(cleaned)
        values = cue_values(names, self.margin, trusted_votes, votes, log_probability)
        own = of_label(values, self.given)
        return standardised(own, own)


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


def out_of_fold_decisions(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """Decision values of support-vector machines that did not see the example, (t, classes).

    All zero where a class has a single example.

    Args:
        x: (t, ...) inputs.
        y: (t,) labels.
        classes: Number of classes.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = min(5, int(y.bincount().min()))
    found = torch.zeros(len(y), classes)
    if folds < 2:
        return found
    splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
    for kept, held in splitter.split(x.flatten(1).numpy(), y.numpy()):
        found[held] = svm_decisions(x[kept], y[kept], x[held], classes)
    return found


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
