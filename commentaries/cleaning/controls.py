"""What a careful engineer would try without a bilevel problem, all given the same trusted labels.

Each control returns outcomes by name. Each was tuned over four settings of weight decay and
trusted share, on one development seed and four rows; filter thresholds were not tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import unknown
from ..student import Student
from ..training import Examples, Recipe, fit, log_probabilities
from ..types import Params
from .cues import Evidence, margins, of_label, svm_decisions
from .final import PASSES, by_votes
from .learner import Learned
from .methods import (
    DEFAULT,
    LIGHT,
    MIDDLE,
    STRONG,
    Outcome,
    Plan,
    Tuning,
    auroc,
    carry_out,
    given_loss,
    score,
)
from .regression import learned_from_cues
from .task import Task

Outcomes = dict[str, Outcome]

ROUNDS = 3
FOLDS = 5
NEIGHBOURS = 10
SELF_TRAINED_PASSES = 4


@dataclass(frozen=True)
class Bench:
    """What the controls share.

    Attributes:
        task: The examples.
        student: The network that every method trains.
        evidence: The graph and the support-vector machine.
        learned: Our weights, for the constant and the shuffled control.
        seed: Of everything random.
        recipe: How every network is trained, but for what is tuned.
    """

    task: Task
    student: Student
    evidence: Evidence
    learned: Learned
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def given(self) -> Tensor:
        """(n,) given labels, on the CPU."""
        return self.evidence.given

    @property
    def ones(self) -> Tensor:
        """(n,) weights of one."""
        return torch.ones(self.task.size)

    def outcome(self, plan: Plan, round: int = 0) -> Outcome:
        """Trains and scores a plan; every method starts from the same initial network."""
        return carry_out(self.task, self.student, plan, self.recipe, seed=self.seed + 7 + round)

    @cached_property
    def out_of_fold(self) -> tuple[Tensor, Tensor]:
        """Log-probabilities of networks that did not see an example, train and trusted."""
        return _out_of_fold(self)

    @cached_property
    def trusted_network(self) -> Outcome:
        """Of the network of the trusted examples alone."""
        task = self.task
        examples = Examples(task.trusted.x, task.trusted.y, torch.ones(len(task.trusted)))
        theta = fit(self.student, examples, DEFAULT.of(self.recipe), seed=self.seed + 7)
        return score(task, self.student, theta, None)

    @cached_property
    def neighbour_votes(self) -> Tensor:
        """(n, classes) shares of the labels of each example's nearest neighbours."""
        return _neighbour_votes(self.evidence)

    @cached_property
    def cue_values(self) -> tuple[Tensor, Tensor]:
        """Cues of the given labels and the probability that a logistic regression gives them."""
        return learned_from_cues(self.task, self.evidence, *self.out_of_fold, seed=self.seed)


def run(names: Sequence[str], bench: Bench) -> Outcomes:
    """Runs controls by name, in order.

    Raises:
        BadInput: An unknown name.
    """
    outcomes: Outcomes = {}
    for name in names:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
        outcomes |= CONTROLS[name](bench)
    return outcomes


def unweighted(bench: Bench) -> Outcomes:
    """All labels as given, the trusted examples among them."""
    task = bench.task
    all_of_them = Examples(task.x, task.y, torch.ones(len(task.y)))
    theta = fit(bench.student, all_of_them, STRONG.of(bench.recipe), seed=bench.seed + 7)
    return {"unweighted": score(task, bench.student, theta, None)}


def early_stopping(bench: Bench) -> Outcomes:
    """All labels as given; the averaged network of least loss on the trusted examples."""
    task, student = bench.task, bench.student
    best: list[tuple[float, Params]] = []

    def watch(step: int, theta: Params) -> None:
        found = log_probabilities(student, theta, task.trusted.x, seen=task.train.x[:1024])
        loss = float(given_loss(found, task.trusted.y).mean())
        if not best or loss < best[0][0]:
            best[:] = [(loss, theta)]

    examples = Examples(task.train.x, bench.given, bench.ones)
    last = fit(student, examples, STRONG.of(bench.recipe), seed=bench.seed + 7, watch=watch)
    return {"early stopping": score(task, student, best[0][1] if best else last, None)}


def trusted_alone(bench: Bench) -> Outcomes:
    """The same network on the trusted examples only."""
    return {"trusted alone": bench.trusted_network}


def svm_alone(bench: Bench) -> Outcomes:
    """A support-vector machine on the trusted examples only; ranked by its margin."""
    task = bench.task
    opinion = bench.evidence.margin.log_softmax(1)
    suspicion = -of_label(margins(bench.evidence.margin), bench.given)
    accuracy = None
    if task.test is not None:
        evidence = bench.evidence
        seen, asked = evidence.features[task.size :], evidence.encode(task.test.x)
        found = svm_decisions(seen, evidence.trusted_label, asked, task.classes).argmax(1)
        accuracy = float((found == task.test.y.cpu()).double().mean())
    area = auroc(task.wrong, suspicion)
    return {"svm alone": Outcome(opinion, suspicion, accuracy, area, area)}


def upweighted(bench: Bench) -> Outcomes:
    """All labels as given, the trusted examples with half of the loss."""
    return {"trusted up-weighted": bench.outcome(Plan(bench.given, bench.ones, STRONG))}


def self_trained(
    bench: Bench, name: str, kept: Tensor, tuning: Tuning, suspicion: Tensor
) -> Outcomes:
    """A filter, and the same filter self-trained for three rounds.

    Each further round keeps what the last network agrees with and trains anew.

    Args:
        bench: What the controls share.
        name: Of the filter.
        kept: (n,) bool, the examples that it keeps.
        tuning: Of its networks.
        suspicion: (n,) its own ranking.
    """
    first = bench.outcome(Plan(bench.given, kept.float(), tuning, suspicion))
    last = first
    for round in range(1, ROUNDS):
        kept = last.log_probability.argmax(1) == bench.given
        last = bench.outcome(Plan(bench.given, kept.float(), tuning), round)
    return {name: first, f"{name} x{ROUNDS}": last}


def neighbour_filter(bench: Bench) -> Outcomes:
    """Keeps labels that no other label outvotes among the ten nearest neighbours."""
    votes = bench.neighbour_votes
    own = of_label(votes, bench.given)
    kept = own >= votes.max(1).values
    return self_trained(bench, "neighbour filter", kept, STRONG, -own)


def svm_filter(bench: Bench) -> Outcomes:
    """Keeps labels that a support-vector machine of the trusted examples agrees with."""
    margin = bench.evidence.margin
    kept = margin.argmax(1) == bench.given
    suspicion = -of_label(margins(margin), bench.given)
    return self_trained(bench, "svm filter", kept, DEFAULT, suspicion)


def cross_validation_filter(bench: Bench) -> Outcomes:
    """Keeps labels that networks agree with which were trained on the other folds."""
    opinion, _ = bench.out_of_fold
    kept = opinion.argmax(1) == bench.given
    suspicion = given_loss(opinion, bench.given)
    return self_trained(bench, "cross-validation filter", kept, STRONG, suspicion)


def trusted_network_filter(bench: Bench) -> Outcomes:
    """Keeps labels that the network of the trusted examples alone agrees with."""
    opinion = bench.trusted_network.log_probability
    kept = opinion.argmax(1) == bench.given
    suspicion = given_loss(opinion, bench.given)
    return self_trained(bench, "trusted-network filter", kept, DEFAULT, suspicion)


def trusted_votes_filter(bench: Bench) -> Outcomes:
    """Keeps labels that the trusted labels agree with as they spread over the graph."""
    votes = bench.evidence.trusted_votes[: bench.task.size]
    kept = votes.argmax(1) == bench.given
    suspicion = -of_label(votes, bench.given)
    return self_trained(bench, "trusted-votes filter", kept, DEFAULT, suspicion)


def equal_cues(bench: Bench) -> Outcomes:
    """The cues averaged with equal weights, split in two by a mixture of Gaussians."""
    from sklearn.mixture import GaussianMixture

    cues, _ = bench.cue_values
    mean = cues.mean(1)
    mixture = GaussianMixture(2, random_state=0).fit(mean[:, None].numpy())
    group = torch.from_numpy(mixture.predict(mean[:, None].numpy())).bool()
    kept = group if mean[group].mean() > mean[~group].mean() else ~group
    return self_trained(bench, "equal cues", kept, MIDDLE, -mean)


def cue_regression(bench: Bench) -> Outcomes:
    """A logistic regression on the cues: trusted labels against random wrong ones."""
    _, right = bench.cue_values
    kept = right > 0.5
    return self_trained(bench, "cue regression", kept, MIDDLE, -right)


def self_trained_votes(bench: Bench) -> Outcomes:
    """Ours without anything learned: the same votes from equal weights, then all the same steps."""
    votes = bench.evidence.self_trained_votes(0.5 * bench.ones, SELF_TRAINED_PASSES)
    verdict = by_votes(bench.evidence, bench.student, votes, seed=bench.seed, recipe=bench.recipe)
    return {"self-trained votes": verdict.outcome}


def votes_of_shuffled_weights(bench: Bench) -> Outcomes:
    """Ours with the learned weights each given to another example, then all the same steps."""
    votes = bench.evidence.self_trained_votes(_shuffled(bench), PASSES, bench.learned.probability)
    verdict = by_votes(bench.evidence, bench.student, votes, seed=bench.seed, recipe=bench.recipe)
    return {"votes of shuffled weights": verdict.outcome}


def constant_weight(bench: Bench) -> Outcomes:
    """Every example with the mean of the learned weights."""
    weight = bench.learned.weight.mean().expand(bench.task.size)
    return {"constant weight": bench.outcome(Plan(bench.given, weight, STRONG))}


def shuffled_weights(bench: Bench) -> Outcomes:
    """The learned weights, each given to another example."""
    return {"shuffled weights": bench.outcome(Plan(bench.given, _shuffled(bench), STRONG))}


def oracle(bench: Bench) -> Outcomes:
    """The true labels; nothing without them."""
    if bench.task.truth is None:
        return {}
    return {"oracle": bench.outcome(Plan(bench.task.truth, bench.ones, LIGHT))}


def _shuffled(bench: Bench) -> Tensor:
    generator = torch.Generator().manual_seed(bench.seed)
    return bench.learned.weight[torch.randperm(bench.task.size, generator=generator)]


def _out_of_fold(bench: Bench) -> tuple[Tensor, Tensor]:
    task = bench.task
    generator = torch.Generator().manual_seed(bench.seed)
    fold = torch.randperm(task.size, generator=generator) % FOLDS
    trusted_fold = torch.zeros(len(task.trusted), dtype=torch.int64)
    for label in task.trusted.y.unique():
        own = (task.trusted.y == label).nonzero().flatten()
        shift = int(torch.randint(FOLDS, (), generator=generator))
        trusted_fold[own] = (torch.arange(len(own)) + shift) % FOLDS
    found = torch.empty(task.size, task.classes)
    found_trusted = torch.empty(len(task.trusted), task.classes)
    for k in range(FOLDS):
        seen, kept = fold != k, trusted_fold != k
        theta = fit(
            bench.student,
            Examples(task.train.x[seen], bench.given[seen], bench.ones[seen]),
            DEFAULT.of(bench.recipe),
            seed=bench.seed + k,
            anchors=Examples(
                task.trusted.x[kept], task.trusted.y[kept], torch.ones(int(kept.sum()))
            ),
        )
        found[~seen] = log_probabilities(
            bench.student, theta, task.train.x[~seen], seen=task.train.x[seen]
        ).cpu()
        if not kept.all():
            found_trusted[~kept] = log_probabilities(
                bench.student, theta, task.trusted.x[~kept], seen=task.train.x[seen]
            ).cpu()
    return found, found_trusted


def _neighbour_votes(evidence: Evidence) -> Tensor:
    from sklearn.neighbors import kneighbors_graph

    task = evidence.task
    near = kneighbors_graph(evidence.features[: task.size].numpy(), NEIGHBOURS)
    label = functional.one_hot(evidence.given, task.classes).float().numpy()
    return torch.from_numpy(near @ label / NEIGHBOURS).float()


CONTROLS: dict[str, Callable[[Bench], Outcomes]] = {
    control.__name__: control
    for control in (
        unweighted,
        early_stopping,
        trusted_alone,
        svm_alone,
        upweighted,
        neighbour_filter,
        svm_filter,
        cross_validation_filter,
        trusted_network_filter,
        trusted_votes_filter,
        equal_cues,
        cue_regression,
        self_trained_votes,
        votes_of_shuffled_weights,
        constant_weight,
        shuffled_weights,
        oracle,
    )
}
