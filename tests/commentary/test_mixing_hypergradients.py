"""Hypergradients of mixing ratios: unrolled and implicit against students trained anew."""

import pytest
import torch
from oracles import normal, relative_error, slope
from scipy import special
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.commentary import ClassPairs, MixingCoefficients, PairNetwork, judged, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD
from commentaries.problem import Bilevel
from commentaries.solvers import ConjugateGradient, Dense, Identity
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

SIZE, CLASSES, DECAY = 12, 3, 0.05


def teacher():
    """Reads two images of one channel, two labels of three classes and progress."""
    return nn.Sequential(
        nn.Conv2d(2 + 2 * CLASSES + 1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(),
        nn.Linear(16, 1),
    )  # fmt: skip


SCORES = {
    "ordered": lambda: ClassPairs(CLASSES),
    "symmetric": lambda: ClassPairs(CLASSES, symmetric=True),
    "knots": lambda: ClassPairs(CLASSES, knots=3),
    "network": lambda: PairNetwork(teacher, classes=CLASSES, progress=True),
}
every_score = pytest.mark.parametrize("name", SCORES)
every_draw = pytest.mark.parametrize("concentration", [None, 1.6])


def examples(rows=slice(None), progress=0.3, seed=0):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(SIZE, 1, 4, 4, generator=g)
    y = torch.randint(CLASSES, (SIZE,), generator=g)
    return Batch(x[rows], y[rows], torch.arange(SIZE)[rows], progress, seed)


def validation():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(9, 1, 4, 4, generator=g)
    return Batch(x, torch.randint(CLASSES, (9,), generator=g), torch.arange(9))


def parameters(score):
    """φ after something has been learned."""
    return normal(score.init(torch.Generator().manual_seed(0)), 5)


def tanh_student():
    return Student(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    )


def linear_student():
    return Student(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)))


def normalised_student():
    return Student(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES)
        )
    )


def start(student):
    return student.init(torch.Generator().manual_seed(0))


class Written:
    """Mixing written out, as a function of φ that has a derivative everywhere.

    A draw from the Beta is the quantile of a number that is found once, at the φ given first: by
    `scipy`, so that no derivative of the library enters.
    """

    def __init__(self, score, low, high, concentration, phi, batches):
        self.score, self.low, self.width, self.kappa = score, low, high - low, concentration
        commentary = MixingCoefficients(
            score, CLASSES, low=low, high=high, concentration=concentration
        )
        self.commentary = commentary
        self.partner = [commentary.partners(part) for part in batches]
        self.quantile = []
        if concentration is not None:
            for part, partner in zip(batches, self.partner, strict=True):
                draw = (commentary.ratios(phi, part) - low) / self.width
                a, b = self.shapes(phi, part, partner)
                self.quantile.append(special.betainc(a, b, draw.numpy()))

    def shapes(self, phi, part, partner):
        logit = self.score(phi, part, partner).numpy()
        return self.kappa * special.expit(logit), self.kappa * special.expit(-logit)

    def ratios(self, phi, part, step):
        partner = self.partner[step]
        if self.kappa is None:
            share = torch.sigmoid(self.score(phi, part, partner))
        else:
            a, b = self.shapes(phi, part, partner)
            share = torch.from_numpy(special.betaincinv(a, b, self.quantile[step]))
        return self.low + self.width * share

    def loss(self, student, theta, phi, part, step=0):
        ratio, partner = self.ratios(phi, part, step), self.partner[step]
        wide = ratio[:, None, None, None]
        z = student(theta, wide * part.x + (1 - wide) * part.x[partner])
        own = functional.cross_entropy(z, part.y, reduction="none")
        other = functional.cross_entropy(z, part.y[partner], reduction="none")
        return (ratio * own + (1 - ratio) * other).mean()


@every_score
@every_draw
@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0.0, 1.0)])
def test_unrolled_against_training_anew(name, concentration, low, high):
    student, score = tanh_student(), SCORES[name]()
    theta, phi = start(student), parameters(score)
    batches = [examples(slice(4 * i, 4 * i + 6), i / 2, seed=30 + i) for i in range(3)]
    written = Written(score, low, high, concentration, phi, batches)
    problem = Bilevel(taught(student, written.commentary), judged(student))
    optimizer = SGD(0.8, momentum=0.5)
    result = Unrolled()(problem, optimizer, theta, phi, inner=batches, outer=validation())

    def end(phi):
        at, state = theta, optimizer.init(theta)
        for step, part in enumerate(batches):
            leaves = p.live(at)
            gradient = p.gradients(written.loss(student, leaves, phi, part, step), leaves)
            at, state = optimizer.update(gradient, at, state)
        held = validation()
        return functional.cross_entropy(student(at, held.x), held.y)

    assert float(result.outer_loss) == pytest.approx(float(end(phi)), rel=1e-12)
    for seed in (1, 2):
        v = normal(phi, seed)
        expected = slope(end, phi, v, 1e-4)
        assert abs(expected) > 1e-6
        assert float(p.dot(result.value, v)) == pytest.approx(expected, rel=1e-5)


def optimum(loss, theta):
    """argmin of a smooth, strictly convex loss, by Newton's method."""
    shapes = {name: value.shape for name, value in theta.items()}

    def flat_loss(vector):
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        return loss({k: q.reshape(s) for (k, s), q in zip(shapes.items(), pieces, strict=True)})

    at = torch.cat([value.flatten() for value in theta.values()])
    for _ in range(40):
        point = at.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(flat_loss(point), point)
        if float(gradient.norm()) < 1e-13:
            break
        H = torch.autograd.functional.hessian(flat_loss, at)
        at = at - torch.linalg.solve(H, gradient)
    assert float(gradient.norm()) < 1e-12
    pieces = at.split([shape.numel() for shape in shapes.values()])
    return {k: q.reshape(s) for (k, s), q in zip(shapes.items(), pieces, strict=True)}


@every_score
@every_draw
def test_implicit_against_solving_anew(name, concentration):
    student, score = linear_student(), SCORES[name]()
    theta, phi, part = start(student), parameters(score), examples(seed=40)
    written = Written(score, 0.5, 1.0, concentration, phi, [part])
    problem = Bilevel(taught(student, written.commentary), judged(student))
    held = validation()

    def solved(phi):
        def loss(theta):
            decay = DECAY / 2 * sum(value.square().sum() for value in theta.values())
            return written.loss(student, theta, phi, part) + decay

        return optimum(loss, theta)

    def end(phi):
        return functional.cross_entropy(student(solved(phi), held.x), held.y)

    best = solved(phi)
    directions = [normal(phi, seed) for seed in (1, 2)]
    expected = [slope(end, phi, v, 1e-4) for v in directions]
    assert min(abs(value) for value in expected) > 1e-6
    for solver in (Dense(), ConjugateGradient(200, 1e-12)):
        # the student is linear, so that the Gauss–Newton matrix is the Hessian
        for curvature in (Hessian(), GaussNewton()):
            result = Implicit(solver, curvature)(
                problem, SGD(0.1, weight_decay=DECAY), best, phi, inner=[part], outer=held
            )
            assert float(result.diagnostics["stationarity"]) < 1e-11
            for v, value in zip(directions, expected, strict=True):
                assert float(p.dot(result.value, v)) == pytest.approx(value, rel=1e-5)


STUDENTS = {"tanh": tanh_student, "batch normalisation": normalised_student}


@pytest.mark.parametrize("net", STUDENTS)
@every_score
@every_draw
def test_curvatures_agree_on_the_mixed_derivative(net, name, concentration):
    # with the identity as solver: dL_V/dφ = -d/dφ ⟨F(θ, φ), x⟩ at x = ∂L_V/∂θ
    student, score = STUDENTS[net](), SCORES[name]()
    theta, phi, part = start(student), parameters(score), examples(seed=50)
    written = Written(score, 0.5, 1.0, concentration, phi, [part])
    problem = Bilevel(taught(student, written.commentary), judged(student))
    leaves = p.live(theta)
    x = p.gradients(problem.outer(leaves, phi, validation()), leaves)

    def along(phi):
        leaves = p.live(theta)
        return -p.dot(p.gradients(written.loss(student, leaves, phi, part), leaves), x)

    v = normal(phi, 1)
    expected = slope(along, phi, v, 1e-4)
    assert abs(expected) > 1e-6
    for curvature, rel in (
        (Hessian(), 1e-6),
        (GaussNewton(), 1e-6),
        (FiniteDifference(1e-4), 1e-5),
    ):
        result = Implicit(Identity(1.0), curvature)(
            problem, SGD(0.1), theta, phi, inner=[part], outer=validation()
        )
        assert float(p.dot(result.value, v)) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("net", STUDENTS)
@every_draw
def test_curvatures_agree_through_training(net, concentration):
    student, score = STUDENTS[net](), ClassPairs(CLASSES)
    theta, phi = start(student), parameters(score)
    commentary = MixingCoefficients(score, CLASSES, concentration=concentration)
    problem = Bilevel(taught(student, commentary), judged(student))
    call = {"inner": [examples(seed=k) for k in range(3)], "outer": validation()}
    exact = Unrolled()(problem, SGD(0.5), theta, phi, **call)
    differences = Unrolled(FiniteDifference(1e-4))(problem, SGD(0.5), theta, phi, **call)
    assert relative_error(differences.value, exact.value) < 1e-5
    pieces = Unrolled(every=1)(problem, SGD(0.5), theta, phi, **call)
    assert relative_error(pieces.value, exact.value) < 1e-12


@pytest.mark.parametrize("net", STUDENTS)
@every_draw
def test_reverse_over_forward_agrees(net, concentration):
    # ∂/∂φ of the derivative of the loss along x, as a forward-mode mixed product takes it
    student, score = STUDENTS[net](), ClassPairs(CLASSES)
    theta, phi, part = start(student), parameters(score), examples(seed=50)
    commentary = MixingCoefficients(score, CLASSES, concentration=concentration)
    inner, x = taught(student, commentary), normal(theta, 3)
    leaves, live = p.live(theta), p.live(phi)
    gradient = p.gradients(inner(leaves, live, part), leaves, create_graph=True)
    expected = p.gradients(p.dot(gradient, x), live)

    def along(phi):
        return torch.func.jvp(lambda theta: inner(theta, phi, part), (theta,), (x,))[1]

    assert relative_error(torch.func.grad(along)(phi), expected) < 1e-12
