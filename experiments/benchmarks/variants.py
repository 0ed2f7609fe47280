"""A student under every commentary, on the same tensors, and what should agree among them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from commentaries import params as p
from commentaries.commentary import (
    AttentionMasks,
    ClassPairs,
    Commentary,
    ExampleWeights,
    GaussianWindow,
    MixingCoefficients,
    Table,
    UNetMask,
    judged,
    taught,
)
from commentaries.commentary.teacher import images
from commentaries.hypergradient import Hypergradient, HypergradientResult
from commentaries.inner import SGD, Adam
from commentaries.networks import unet
from commentaries.problem import Bilevel
from commentaries.student import Student
from commentaries.types import Batch, Params

from .loops import looped, looped_ratios

REFERENCE = "example weights"
MIXING = "mixing table"
LOOPS = ("mixing, ratios in a loop", "mixing, images and losses in a loop")
"""What has to agree with `MIXING`; the others, with no commentary where they say nothing."""

LR = 0.1
"""This and the optimiser as ``commentaries learn mixup`` has them by default."""

TOLERANCE = 1e-9
"""Relative, in double precision."""


class Variant(NamedTuple):
    """A way of teaching.

    Attributes:
        problem: The inner and the outer loss.
        phi: What it is timed at, some way from its start.
        silent: φ with which the student is taught as if by nobody; None for `LOOPS`.
    """

    problem: Bilevel
    phi: Params
    silent: Params | None = None


class Bench:
    """A student and a hypergradient under every variant, on the same tensors.

    Args:
        student: The network.
        hypergradient: How φ's derivative is taken.
        inner: Batches of images and labels below ``classes`` to train on.
        outer: The batch to be judged on.
        classes: Number of classes.
        seed: Of the student and of φ.
    """

    def __init__(
        self,
        student: Student,
        hypergradient: Hypergradient,
        inner: Sequence[Batch],
        outer: Batch,
        *,
        classes: int,
        seed: int = 0,
    ):
        generator = torch.Generator().manual_seed(seed)
        device = outer.y.device
        self._hypergradient, self._inner, self._outer = hypergradient, inner, outer
        self._theta = _put(student.init(generator), device)
        self._optimizer = SGD(LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
        self._outer_optimizer = Adam(1e-2)
        self._untaught = Bilevel(judged(student), judged(student))
        self.variants = {
            name: Variant(
                variant.problem,
                _put(_moved(variant.phi, generator), device),
                None if variant.silent is None else _put(variant.silent, device),
            )
            for name, variant in _variants(student, inner, outer, classes).items()
        }

    def step(self, name: str) -> tuple[HypergradientResult, Params]:
        """A learning step of a variant, and the φ after it."""
        problem, phi, _ = self.variants[name]
        result = self._found(problem, phi)
        moved, _ = self._outer_optimizer.update(result.value, phi, self._outer_optimizer.init(phi))
        return result, moved

    def _found(self, problem: Bilevel, phi: Params) -> HypergradientResult:
        inner, outer = self._inner, self._outer
        return self._hypergradient(
            problem, self._optimizer, self._theta, phi, inner=inner, outer=outer
        )

    def disagreement(self, name: str) -> float:
        """How far a variant is from what it should agree with, relative, at its worst.

        The loops: from `MIXING`, in the outer loss, the hypergradient and the student's step. The
        others, with a φ that says nothing: from a student without a commentary, in the outer loss
        and the student's step.
        """
        problem, _, silent = self.variants[name]
        errors = []
        if silent is None:
            phi = self.variants[MIXING].phi
            found, expected = self._found(problem, phi), self._found(self.variants[MIXING][0], phi)
            errors.append(_error(found.value, expected.value))
        else:
            found, expected = self._found(problem, silent), self._found(self._untaught, silent)
        errors.append(_error({"": found.outer_loss}, {"": expected.outer_loss}))
        moves = [p.subtract(result.theta, self._theta) for result in (found, expected)]
        return max(*errors, _error(*moves))

    def double(self) -> Bench:
        """The same tensors in double precision."""
        made = copy.copy(self)
        made._theta = _double(self._theta)
        made._inner = [batch._replace(x=images(batch.x).double()) for batch in self._inner]
        made._outer = self._outer._replace(x=images(self._outer.x).double())
        made.variants = {
            name: Variant(problem, _double(phi), None if silent is None else _double(silent))
            for name, (problem, phi, silent) in self.variants.items()
        }
        return made

    def check(self, tolerance: float = TOLERANCE) -> None:
        """Compares every variant with what it should agree with, in double precision.

        Raises:
            ArithmeticError: One differs, so that its time would say nothing.
        """
        exact = self.double()
        for name in self.variants:
            error = exact.disagreement(name)
            if not error <= tolerance:
                raise ArithmeticError(
                    f"{name!r} differs by {error:.1e} from what it should agree with, and "
                    f"{tolerance:.0e} is allowed, so its time would say nothing. Correct it first."
                )


def _variants(
    student: Student, inner: Sequence[Batch], outer: Batch, classes: int
) -> dict[str, Variant]:
    """Every variant with the φ that it starts from."""
    channels = images(outer.x).shape[1]
    generator = torch.Generator().manual_seed(0)

    def made(commentary: Commentary, silent: dict[str, float], *, through: bool = False) -> Variant:
        judge = judged(student, commentary=commentary if through else None)
        start = commentary.init(generator)
        phi = {k: torch.full_like(v, silent[k]) if k in silent else v for k, v in start.items()}
        return Variant(Bilevel(taught(student, commentary), judge), start, phi)

    network = functools.partial(unet, 1, channels=channels)
    table = MixingCoefficients(ClassPairs(classes), classes)
    whole = {"logits": 40.0}  # σ(40) is 1
    examples = sum(batch.size for batch in inner)
    variants = {
        # uniform at logits 0. The smallest table: a larger one would flatter the others
        REFERENCE: made(ExampleWeights(Table(examples)), {}),
        MIXING: made(table, whole),
        "mixing table, Beta draws": made(replace(table, concentration=2.0), whole),
        "U-Net mask": made(AttentionMasks(UNetMask(network)), {"last.bias": 40.0}, through=True),
        "Gaussian window": made(
            AttentionMasks(GaussianWindow(network)), {"log_deviation": 20.0}, through=True
        ),
    }
    start = variants[MIXING].phi
    for name, form in zip(LOOPS, (looped_ratios, looped), strict=True):
        variants[name] = Variant(Bilevel(form(student, table), judged(student)), start)
    return variants


def _moved(phi: Params, generator: torch.Generator) -> Params:
    return p.add(phi, p.random_like(phi, generator), 0.1)


def _put(values: Params, device: torch.device) -> Params:
    return {name: value.to(device) for name, value in values.items()}


def _double(values: Params) -> Params:
    return {name: value.double() for name, value in values.items()}


def _error(found: Params, expected: Params) -> float:
    gap, size = p.norm(p.subtract(found, expected)), p.norm(expected)
    return float(gap / size if size else gap)
