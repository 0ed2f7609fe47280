"""Hypergradients into .grad: a teacher and three hyper-parameters in ordinary torch.optim loops."""

import pytest
import torch
from oracles import tanh_network, weighted_regression
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.errors import BadInput
from commentaries.hypergradient import Implicit, Unrolled, backward
from commentaries.inner import SAM, SGD
from commentaries.problem import Bilevel
from commentaries.solvers import ConjugateGradient, Dense
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")


def test_the_gradient_of_each_parameter_is_the_hypergradient():
    network, theta, _ = tanh_network()
    teacher = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    teacher[0].bias.requires_grad_(False)
    weigh = Student(teacher)

    def inner(theta, phi, batch):
        weights = torch.sigmoid(weigh(phi, batch.x)[:, 0])
        return (weights * network.losses(theta, batch.x, batch.y)).mean()

    call = {"inner": network.batches(3), "outer": network.validation}
    problem = Bilevel(inner, network.outer)
    result = backward(Unrolled(), problem, SGD(0.3), theta, teacher, **call)
    assert teacher[0].bias.grad is None
    trained = {k: v for k, v in teacher.named_parameters() if v.requires_grad}
    expected = Unrolled()(problem, SGD(0.3), theta, trained, **call)
    assert expected.value.keys() == trained.keys() == {"0.weight", "2.weight", "2.bias"}
    assert all(torch.equal(trained[k].grad, expected.value[k]) for k in trained)
    assert all(torch.equal(result.theta[k], expected.theta[k]) for k in theta)
    again = backward(Unrolled(), problem, SGD(0.3), theta, teacher, **call)  # adds up
    assert all(torch.equal(trained[k].grad, 2 * again.value[k]) for k in trained)
    assert not any(value.grad.requires_grad for value in trained.values())


def test_a_module_without_anything_to_learn_is_refused():
    network, theta, _ = tanh_network()
    with pytest.raises(BadInput, match=r"Call requires_grad_\(\)"):
        backward(
            Unrolled(),
            Bilevel(network.inner, network.outer),
            SGD(0.3),
            theta,
            nn.Linear(2, 2).requires_grad_(False),
            inner=network.batches(1),
            outer=network.validation,
        )


def test_weight_decay_is_learned():
    # The student is brought to rest each time, so the hypergradient is that of ridge regression.
    problem, _ = weighted_regression("ridge")
    x, y = problem.x, problem.y[:, 0]
    valid = Batch(problem.x_valid, problem.y_valid[:, 0], torch.arange(len(problem.y_valid)))
    train = Batch(x, y, torch.arange(len(y)))

    def fit(theta, phi, batch):
        squares = (batch.x @ theta["t"] - batch.y).square().mean()
        return squares + phi["log_decay"].exp() * theta["t"].square().sum() / 2

    def score(theta, phi, batch):
        return (batch.x @ theta["t"] - batch.y).square().mean()

    hyper = nn.ParameterDict({"log_decay": nn.Parameter(torch.tensor(1.0))})
    optimizer = torch.optim.Adam(hyper.parameters(), lr=0.1)
    theta, losses = {"t": torch.zeros(4)}, []
    for _ in range(150):
        optimizer.zero_grad()
        result = backward(
            Implicit(ConjugateGradient(10)),
            Bilevel(fit, score),
            SGD(0.2),
            theta,
            hyper,
            inner=[train] * 30,
            outer=valid,
        )
        optimizer.step()
        theta = result.theta
        losses.append(float(result.outer_loss))

    def validated(log_decay):
        H = 2 * x.T @ x / len(x) + log_decay.exp() * torch.eye(4)
        return score({"t": torch.linalg.solve(H, 2 * x.T @ y / len(x))}, {}, valid)

    grid = torch.linspace(-12, 2, 400)
    best = min(float(validated(point)) for point in grid)
    assert losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(best, rel=0.02)


def test_rho_of_sam_is_learned():
    # The slope of a whole training run in log ρ, and steps along it that lower its end.
    network, theta, phi = tanh_network()
    hyper = nn.ParameterDict({"log_rho": nn.Parameter(torch.tensor(-1.0))})
    problem = Bilevel(lambda theta, _, batch: network.inner(theta, phi, batch), network.outer)
    call = {"inner": network.batches(20), "outer": network.validation}

    def optimizer(phi):
        return SAM(SGD(0.4), rho=phi["log_rho"].exp())

    def end(log_rho):
        at = {"log_rho": torch.tensor(log_rho)}
        return float(Unrolled()(problem, optimizer, theta, at, **call).outer_loss)

    backward(Unrolled(every="sqrt"), problem, optimizer, theta, hyper, **call)
    expected = (end(-1 + 1e-5) - end(-1 - 1e-5)) / 2e-5
    assert float(hyper["log_rho"].grad) == pytest.approx(expected, rel=1e-6)
    outer = torch.optim.SGD(hyper.parameters(), lr=0.5 / abs(expected))
    outer.step()
    assert end(float(hyper["log_rho"].detach())) < end(-1.0)


def test_strength_of_an_augmentation_is_learned():
    # Inputs are jittered by φ times noise that the batch's seed draws: too much of it hurts.
    problem, _ = weighted_regression("logistic")
    model = nn.Linear(4, 3)
    student = Student(model)

    def fit(theta, phi, batch):
        noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(batch.seed))
        jittered = batch.x + phi["log_strength"].exp() * noise
        loss = functional.cross_entropy(student(theta, jittered), batch.y)
        return loss + 0.05 * p.dot(theta, theta)

    def score(theta, phi, batch):
        return functional.cross_entropy(student(theta, batch.x), batch.y)

    hyper = nn.ParameterDict({"log_strength": nn.Parameter(torch.tensor(1.0))})
    optimizer = torch.optim.SGD(hyper.parameters(), lr=1.0)
    theta, losses = student.parameters(), []
    batch = problem.inner_batch
    for _ in range(25):
        optimizer.zero_grad()
        result = backward(
            Implicit(Dense()),
            Bilevel(fit, score),
            SGD(0.3),
            theta,
            hyper,
            inner=[batch] * 60,
            outer=problem.outer_batch,
        )
        optimizer.step()
        theta = result.theta
        losses.append(float(result.outer_loss))
    assert float(hyper["log_strength"].detach()) < 0.5
    assert losses[-1] < losses[0] - 0.01
