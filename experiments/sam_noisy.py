"""One noisy training set, and the methods that `experiments.sam_label_noise` compares on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from commentaries.cleaning.cues import Evidence
from commentaries.cleaning.final import conclude
from commentaries.cleaning.job import Job, make_learner
from commentaries.cleaning.learner import Learned, Settings
from commentaries.cleaning.prepared import Prepared, prepare
from commentaries.data import LabelledImages
from commentaries.inner import InnerOptimizer
from commentaries.student import Student
from commentaries.teaching.mixing import standard_mixup
from commentaries.training import Examples, Recipe, follow, log_probabilities
from commentaries.training.students import network_for, student_for

from .flat import (
    CLIMBING,
    Images,
    Trained,
    accuracy_of,
    plain,
    scores_of,
    suited,
    trained,
)

ALPHAS = (1.0, 8.0)
"""Of mixup; Zhang et al. 2018 have 8 or 32 for wrong labels, and 1 otherwise."""

Scores = dict[str, dict[str, Any]]
"""Method -> metric -> value."""


@dataclass(frozen=True)
class Sizes:
    """How much is computed.

    Attributes:
        data: The images.
        train: Training images with noisy labels.
        trusted: Images with right labels, besides.
        test: Test images; all if None.
        student: The network of all methods.
        recipe: How it is trained.
        settings: How weights are learned.
        learners: The network with which they are.
        rhos: SAM's radii, of which the right labels pick one; the paper's for each rate if empty.
        asam_rhos: ASAM's; ten times as large as SAM's if empty.
    """

    data: str
    train: int
    trusted: int
    test: int | None
    student: str
    recipe: Recipe
    settings: Settings
    learners: str
    rhos: tuple[float, ...] = ()
    asam_rhos: tuple[float, ...] = ()


class Planned(NamedTuple):
    """Methods for one rate and seed, and how much is computed where."""

    rate: float
    methods: tuple[str, ...]
    seed: int
    rhos: tuple[float, ...]
    asam_rhos: tuple[float, ...]
    sizes: Sizes
    device: str

    @property
    def labels(self) -> dict[str, Any]:
        """What the row is called in the results."""
        sizes = self.sizes
        return {
            "data": sizes.data,
            "student": sizes.student,
            "train": sizes.train,
            "steps": sizes.recipe.steps_for(sizes.train),
            "rate": self.rate,
        }


class Bfloat16(nn.Module):
    """A network that computes in bfloat16, with parameters, loss and statistics in float32.

    Args:
        network: The module.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """What the network returns, in float32."""
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x).float()


def student_in_bfloat16(train: LabelledImages, name: str) -> Student:
    """`student_for` in mixed precision."""
    made = network_for(train, name)
    return Student(lambda: Bfloat16(made()))


class Chosen(NamedTuple):
    """A student with the radius that did best on the right labels, and its scores."""

    rho: float
    made: Trained
    scores: dict[str, float]


@dataclass(frozen=True)
class Bench:
    """One noisy training set, and what its methods share."""

    planned: Planned

    @cached_property
    def job(self) -> Job:
        """What the cleaning job would be asked."""
        planned, sizes = self.planned, self.planned.sizes
        return Job(
            data=sizes.data,
            noise="uniform",
            rate=planned.rate,
            train=sizes.train,
            trusted=sizes.trusted,
            test=sizes.test,
            student=sizes.learners,
            device=planned.device,
            seed=planned.seed,
            settings=sizes.settings,
            recipe=sizes.recipe,
        )

    @cached_property
    def prepared(self) -> Prepared:
        """The examples, with wrong labels."""
        return prepare(self.job)

    @cached_property
    def images(self) -> Images:
        """The training images as labelled, those with right labels, the test images."""
        task = self.prepared.task
        assert task.test is not None
        return Images(task.train, task.trusted, task.test)

    @cached_property
    def student(self) -> Student:
        """The network of all methods."""
        train, name = self.images.train, self.planned.sizes.student
        made = student_for if train.x.device.type == "cpu" else student_in_bfloat16
        return made(train, name)

    @cached_property
    def recipe(self) -> Recipe:
        """How it is trained."""
        recipe = self.planned.sizes.recipe
        return suited(recipe, self.images.train, self.planned.sizes.student, recipe.augment)

    def fitted(
        self,
        method: str = "SGD",
        rho: float = 0.0,
        *,
        examples: Examples | None = None,
        anchors: Examples | None = None,
    ) -> Trained:
        """A student trained by SGD or a method that climbs by ρ."""

        def optimizer(lr: float) -> InnerOptimizer[Any]:
            base = self.recipe.optimizer(lr)
            return CLIMBING[method](base, rho) if rho else base

        return trained(
            self.student,
            self.images,
            self.recipe,
            optimizer,
            seed=self.planned.seed,
            examples=examples,
            anchors=anchors,
        )

    def scores(self, made: Trained) -> dict[str, float]:
        """What a student scores."""
        return scores_of(self.student, self.images, made)

    def best(self, method: str, rhos: Sequence[float]) -> Chosen:
        """Trains with each radius and takes the best on the right labels."""
        found = []
        for rho in rhos:
            made = self.fitted(method, rho)
            found.append(Chosen(rho, made, self.scores(made)))
        return max(found, key=lambda each: each.scores["held out"])

    @cached_property
    def sam(self) -> Chosen:
        """The SAM student."""
        return self.best("SAM", self.planned.rhos)

    @property
    def rho(self) -> float:
        """SAM's radius, without training anything where there is no choice."""
        return self.planned.rhos[0] if len(self.planned.rhos) == 1 else self.sam.rho

    @cached_property
    def evidence(self) -> Evidence:
        """What is known of the examples before weights are learned."""
        return Evidence.gather(self.prepared.task)

    @cached_property
    def learned(self) -> Learned:
        """A weight for each training example."""
        prepared = self.prepared
        learner = make_learner(self.job, prepared.task, prepared.student, self.evidence)
        return learner.finish()


def sgd(bench: Bench) -> Scores:
    """SGD to the end, and stopped where it did best on the right labels."""
    found = bench.scores(bench.fitted())
    stopped = {"accuracy": found["picked"], "minutes": found["minutes"]}
    return {"SGD": found, "SGD, stopped early": stopped}


def sam(bench: Bench) -> Scores:
    """SAM."""
    return {"SAM": bench.sam.scores | {"rho": bench.sam.rho}}


def asam(bench: Bench) -> Scores:
    """ASAM."""
    found = bench.best("ASAM", bench.planned.asam_rhos)
    return {"ASAM": found.scores | {"rho": found.rho}}


def mixup(bench: Bench) -> Scores:
    """Mixup with the α that does best on the right labels."""
    train = bench.images.train
    tried = []
    for alpha in ALPHAS:
        began = time.monotonic()
        commentary, phi = standard_mixup(len(train.classes), alpha)
        phi = {name: value.to(train.x.device) for name, value in phi.items()}
        theta = follow(
            bench.student,
            commentary,
            phi,
            train.x,
            train.y,
            bench.recipe,
            seed=bench.planned.seed,
        )
        made = Trained(theta, theta, (time.monotonic() - began) / 60)
        tried.append(bench.scores(made) | {"picked": None, "alpha": alpha})
    return {"mixup": max(tried, key=lambda each: each["held out"])}


def bootstrap(bench: Bench) -> Scores:
    """SAM on what the SAM student answers."""
    train, first = bench.images.train, bench.sam
    answers = log_probabilities(bench.student, first.made.theta, train.x, seen=train.x).argmax(1)
    made = bench.fitted("SAM", first.rho, examples=plain(replace(train, y=answers)))
    right = float((answers == bench.prepared.task.truth).double().mean())
    return {"bootstrap + SAM": bench.scores(made) | {"rho": first.rho, "right labels": right}}


def weighted(bench: Bench) -> Scores:
    """Students under learned weights, by SAM and by SGD."""
    train = bench.images.train
    weight = bench.learned.weight.to(train.x.device)
    examples = Examples(train.x, train.y, weight)
    wrong = bench.prepared.task.wrong
    assert wrong is not None
    about = {"weight of right": float(weight[~wrong].mean())}
    if wrong.any():
        about["weight of wrong"] = float(weight[wrong].mean())
    return {
        "learned weights + SAM": _with_trusted(bench, bench.rho, examples) | about,
        "learned weights": _with_trusted(bench, 0.0, examples) | about,
    }


def trusted_too(bench: Bench) -> Scores:
    """SAM with the right labels in every step, but no weights: the control of `weighted`."""
    return {"trusted + SAM": _with_trusted(bench, bench.rho, plain(bench.images.train))}


def cleaned(bench: Bench) -> Scores:
    """The last student of the cleaning job, by SAM."""
    began = time.monotonic()
    recipe = replace(bench.recipe, rho=bench.rho)
    seed, truth = bench.planned.seed, bench.prepared.task.truth
    assert truth is not None
    verdict = conclude(bench.evidence, bench.student, bench.learned, seed=seed, recipe=recipe)
    right = float((verdict.suggested == truth.cpu()).double().mean())
    return {
        "cleaned + SAM": {
            "accuracy": verdict.outcome.accuracy,
            "rho": bench.rho,
            "right labels": right,
            "minutes": (time.monotonic() - began) / 60,
        }
    }


def _with_trusted(bench: Bench, rho: float, examples: Examples) -> dict[str, Any]:
    """Scores of a student that sees the right labels too, so that they cannot pick anything."""
    anchors = plain(bench.images.held_out)
    made = bench.fitted("SAM", rho, examples=examples, anchors=anchors)
    accuracy = accuracy_of(bench.student, made.theta, bench.images.test, bench.images.train.x)
    return {"accuracy": accuracy, "rho": rho, "minutes": made.minutes}


UNITS: dict[str, Callable[[Bench], Scores]] = {
    "SGD": sgd,
    "SAM": sam,
    "learned weights + SAM": weighted,
    "cleaned + SAM": cleaned,
    "trusted + SAM": trusted_too,
    "ASAM": asam,
    "mixup": mixup,
    "bootstrap + SAM": bootstrap,
}
"""What is measured at once, by the name of a method that comes of it; the first ones first."""
