"""Weights that are functions of the loss: constant to ∇_θ, live to every derivative of F.

The reference writes F out as Σ_i w_i(θ, φ) ∇ℓ_i(θ) / n and differentiates that densely.
"""

import pytest
import torch
from oracles import (
    dense_jacobian,
    flat,
    normal,
    numeric_jacobian,
    relative_error,
    shaped,
    tanh_network,
)
from torch import nn

from commentaries import params as p
from commentaries.commentary import ExampleWeights, LossNetwork, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SGD
from commentaries.problem import Bilevel, Composed
from commentaries.solvers import Dense, Neumann
from commentaries.student import Student

pytestmark = pytest.mark.usefixtures("float64")


class Held:
    """The tanh network taught by a function of its losses, by the library and by hand."""

    def __init__(self, normalise="sum", decay=0.0):
        self.network, self.theta, _ = tanh_network()
        self.normalise, self.decay = normalise, decay
        score = LossNetwork(width=3)
        self.phi = normal(score.init(torch.Generator()), 3)
        student = Student(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)))
        self.inner = taught(student, ExampleWeights(score, normalise))
        self.batch = self.network.everything

    def losses(self, theta):
        return self.network.losses(theta, self.batch.x, self.batch.y)

    def weights(self, theta, phi):
        hidden = torch.tanh(
            self.losses(theta)[:, None] * phi["hidden.weight"][:, 0] + phi["hidden.bias"]
        )
        logits = hidden @ phi["out.weight"] + phi["out.bias"]
        if self.normalise == "softmax":
            return len(logits) * logits.softmax(0)
        weights = torch.sigmoid(logits)
        return weights / weights.mean() if self.normalise == "sum" else weights

    def residual(self, theta, phi):
        """Σ_i w_i ∇ℓ_i / n + decay θ: nothing here is detached, and nothing needs to be."""
        each = torch.func.jacrev(lambda v: self.losses(shaped(v, theta)))(flat(theta))
        weights = self.weights(theta, phi)
        return shaped(weights @ each / len(weights) + self.decay * flat(theta), theta)

    def jacobians(self):
        of_theta = dense_jacobian(lambda at: self.residual(at, self.phi), self.theta)
        of_phi = dense_jacobian(lambda at: self.residual(self.theta, at), self.phi)
        return of_theta, of_phi


def products(curvature, inner, held, v):
    """∇L, vᵀ∂F/∂θ and vᵀ∂F/∂φ as the library takes them."""
    theta, phi = p.live(held.theta), p.live(held.phi)
    gradient, _ = curvature(inner, phi, held.batch)(theta)
    return p.detach(gradient), p.pull_back(gradient, v, theta), p.pull_back(gradient, v, phi)


every_normalisation = pytest.mark.parametrize("normalise", ["sum", "softmax", "none"])


def test_the_reference_jacobians_are_slopes():
    held = Held()
    of_theta, of_phi = held.jacobians()
    numeric = numeric_jacobian(lambda at: held.residual(at, held.phi), held.theta, 1e-5)
    assert relative_error(of_theta, numeric) < 1e-7
    numeric = numeric_jacobian(lambda at: held.residual(held.theta, at), held.phi, 1e-5)
    assert relative_error(of_phi, numeric) < 1e-7
    # so a product with it is not a product with its transpose, and the tests below can tell
    assert relative_error(of_theta, of_theta.mT) > 1e-3


@every_normalisation
@pytest.mark.parametrize(
    ("curvature", "tolerance"),
    [(Hessian(), 1e-12), (FiniteDifference(1e-4), 1e-6)],
    ids=["hessian", "fd"],
)
def test_both_products(curvature, tolerance, normalise):
    held = Held(normalise)
    of_theta, of_phi = held.jacobians()
    for seed in (1, 2):
        v = normal(held.theta, seed)
        F, by_theta, by_phi = products(curvature, held.inner, held, v)
        assert relative_error(F, held.residual(held.theta, held.phi)) < 1e-13
        assert relative_error(by_theta, of_theta.mT @ flat(v)) < tolerance
        assert relative_error(by_phi, of_phi.mT @ flat(v)) < tolerance


@every_normalisation
def test_gauss_newton_keeps_the_weights_change_and_the_mixed_product(normalise):
    held = Held(normalise)
    _, of_phi = held.jacobians()
    v = normal(held.theta, 1)
    F, by_theta, by_phi = products(GaussNewton(), held.inner, held, v)
    assert relative_error(F, held.residual(held.theta, held.phi)) < 1e-13
    assert relative_error(by_phi, of_phi.mT @ flat(v)) < 1e-12

    # (∂g/∂z J)ᵀ J v with g = ∇_z of the loss: the student linearised, the weights not
    def g(z):
        losses = torch.nn.functional.cross_entropy(z, held.batch.y, reduction="none")
        lesson = held.inner.outputs(held.theta, held.phi, held.batch)[1]
        probability = z.softmax(1) - torch.nn.functional.one_hot(held.batch.y, 3)
        return (lesson.weight(losses)[:, None] * probability / len(losses)).reshape(-1)

    z = held.network.outputs(held.theta, held.batch.x)
    J = dense_jacobian(lambda at: {"z": held.network.outputs(at, held.batch.x)}, held.theta)
    inside = torch.func.jacrev(g)(z).reshape(z.numel(), z.numel())
    assert relative_error(by_theta, J.mT @ inside.mT @ J @ flat(v)) < 1e-12


def test_the_naive_detach_is_measurably_wrong():
    held = Held()
    of_theta, _ = held.jacobians()
    cut = Composed(
        held.inner.outputs, lambda z, held_, lesson: held.inner.loss(z, held_.detach(), lesson)
    )

    def live(theta, phi, batch):
        z, lesson = held.inner.outputs(theta, phi, batch)
        return held.inner.loss(z, z, lesson)

    v = normal(held.theta, 1)
    truth = of_theta.mT @ flat(v)
    F, by_theta, _ = products(Hessian(), cut, held, v)
    assert relative_error(F, held.residual(held.theta, held.phi)) < 1e-13  # right at first order
    assert relative_error(by_theta, truth) > 1e-2
    F, _, _ = products(Hessian(), live, held, v)  # no detach at all: another F
    assert relative_error(F, held.residual(held.theta, held.phi)) > 1e-2


@pytest.mark.parametrize(
    ("curvature", "tolerance"),
    [(Hessian(), 1e-12), (GaussNewton(), None), (FiniteDifference(1e-4), 1e-6)],
    ids=["hessian", "gn", "fd"],
)
def test_held_outputs_may_depend_on_phi_as_well(curvature, tolerance):
    # φ shifts the inputs, and the weights are functions of the outputs that result.
    held = Held("none")
    phi = {**held.phi, "shift": torch.tensor([0.3, -0.2, 0.5])}

    def outputs(theta, phi, batch):
        return held.network.outputs(theta, batch.x + phi["shift"]), (phi, batch.y)

    def loss(z, held_, lesson):
        phi, y = lesson
        losses = torch.nn.functional.cross_entropy(z, y, reduction="none")
        old = torch.nn.functional.cross_entropy(held_, y, reduction="none")
        weights = torch.sigmoid(phi["out.weight"][0] * old + phi["out.bias"])
        return (weights * losses).mean()

    def residual(theta, phi):
        x, y = held.batch.x + phi["shift"], held.batch.y
        each = torch.func.jacrev(lambda v: held.network.losses(shaped(v, theta), x, y))(flat(theta))
        losses = held.network.losses(theta, x, y)
        weights = torch.sigmoid(phi["out.weight"][0] * losses + phi["out.bias"])
        return shaped(weights @ each / len(weights), theta)

    held.phi = phi
    v = normal(held.theta, 4)
    of_theta = dense_jacobian(lambda at: residual(at, phi), held.theta)
    of_phi = dense_jacobian(lambda at: residual(held.theta, at), phi)
    value, by_theta, by_phi = products(curvature, Composed(outputs, loss), held, v)
    assert relative_error(value, residual(held.theta, phi)) < 1e-13
    assert relative_error(by_phi, of_phi.mT @ flat(v)) < (tolerance or 1e-12)
    if tolerance:
        assert relative_error(by_theta, of_theta.mT @ flat(v)) < tolerance


def resting_point(held):
    """θ with F = 0, by gradient steps and then Newton's."""
    theta = held.theta
    for _ in range(300):
        theta = p.add(theta, held.residual(theta, held.phi), -0.5)
    for _ in range(8):
        J = dense_jacobian(lambda at: held.residual(at, held.phi), theta)
        move = torch.linalg.solve(J, flat(held.residual(theta, held.phi)))
        theta = p.subtract(theta, shaped(move, theta))
    assert p.norm(held.residual(theta, held.phi)) < 1e-14
    return theta


def test_implicit_and_unrolled_agree_at_the_resting_point():
    held = Held("none", decay=0.1)
    held.theta = theta = resting_point(held)
    call = {
        "problem": Bilevel(held.inner, held.network.outer),
        "optimizer": SGD(0.3, weight_decay=held.decay),
        "theta": theta,
        "phi": held.phi,
        "outer": held.network.validation,
    }
    for terms in (1, 2, 6):
        unrolled = Unrolled()(**call, inner=[held.batch] * terms)
        series = Implicit(Neumann(terms, 0.3))(**call, inner=[held.batch])
        assert relative_error(unrolled.value, series.value) < 1e-12

    of_theta, of_phi = held.jacobians()
    b = torch.func.grad(held.network.outer)(theta, held.phi, held.network.validation)
    truth = -of_phi.mT @ torch.linalg.solve(of_theta.mT, flat(b))
    solved = Implicit(Dense())(**call, inner=[held.batch])
    assert relative_error(solved.value, truth) < 1e-9
    differenced = Implicit(Dense(), FiniteDifference(1e-4))(**call, inner=[held.batch])
    assert relative_error(differenced.value, truth) < 1e-5
