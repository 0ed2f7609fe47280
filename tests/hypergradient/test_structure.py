"""Every optimiser, curvature and structure against one dense solve of its own residual."""

import pytest
import torch
from oracles import dense_jacobian, flat, normal, relative_error, slope, tanh_network
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.hypergradient import Implicit, Unrolled
from commentaries.inner import SAM, SGD, Adam, Adaptive, step
from commentaries.problem import Bilevel, Composed
from commentaries.solvers import Dense, Identity, Neumann
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

DECAY = 0.4
PLAIN = {
    "sgd": SGD(0.3, weight_decay=DECAY),
    "momentum": SGD(0.1, momentum=0.9, weight_decay=DECAY),
    "nesterov": SGD(0.1, momentum=0.9, nesterov=True, weight_decay=DECAY),
    "adam": Adam(0.05, eps=1e-3, weight_decay=DECAY),
}
SHARP = {
    "sam": SAM(SGD(0.3, weight_decay=DECAY), 0.2),
    "asam": SAM(SGD(0.3, weight_decay=DECAY), 0.2, Adaptive(0.1)),
    "sam of adam": SAM(Adam(0.05, eps=1e-3, weight_decay=DECAY), 0.2),
    "groups": SAM(SGD(0.3, weight_decay=DECAY), 0.2, group=5),
    "frozen": SAM(SGD(0.3, weight_decay=DECAY), 0.2, jacobian="frozen"),
    "plain": SAM(SGD(0.3, weight_decay=DECAY), 0.2, jacobian="plain"),
    "second order": SAM(SGD(0.3, weight_decay=DECAY), 0.2, second_order=True),
}
CURVATURES = {
    "hessian": (Hessian(), 1e-11),
    "gn": (GaussNewton(), 1e-11),
    "fd": (FiniteDifference(1e-4), 1e-5),
}


def shown(network, *, of_phi=False):
    """The tanh network as a composed loss; ``of_phi`` lets φ scale its inputs as well."""

    def outputs(theta, phi, batch):
        x = batch.x * (1 + phi["w"][:3]) if of_phi else batch.x
        return network.outputs(theta, x), (torch.sigmoid(phi["w"])[batch.index], batch.y)

    def loss(z, held, lesson):
        weights, y = lesson
        return (weights * functional.cross_entropy(z, y, reduction="none")).mean()

    return Composed(outputs, loss)


def plain_loss(inner):
    """The same loss without its insides: only kept graphs can differentiate it."""
    return lambda theta, phi, batch: inner(theta, phi, batch)


def run(inner, network, optimizer, theta, phi, method):
    return method(
        Bilevel(inner, network.outer),
        optimizer,
        theta,
        phi,
        inner=[network.everything],
        outer=network.validation,
    )


def residual(inner, batch, theta, phi):
    return p.add(torch.func.grad(plain_loss(inner))(theta, phi, batch), theta, DECAY)


@pytest.mark.parametrize("of_phi", [False, True], ids=["weights", "inputs"])
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("solver", ["dense", "none", "series"])
def test_every_optimizer_and_curvature_against_dense_jacobians(name, curvature, solver, of_phi):
    network, theta, phi = tanh_network()
    inner, batch = shown(network, of_phi=of_phi), network.everything
    method, tolerance = CURVATURES[curvature]
    H = dense_jacobian(lambda at: residual(inner, batch, at, phi), theta)
    B = dense_jacobian(lambda at: residual(inner, batch, theta, at), phi)
    if curvature == "gn":
        x = batch.x * (1 + phi["w"][:3]) if of_phi else batch.x
        z = network.outputs(theta, x)
        J = dense_jacobian(lambda at: {"z": network.outputs(at, x)}, theta)
        lesson = inner.outputs(theta, phi, batch)[1]
        inside = torch.func.hessian(lambda z: inner.loss(z, z, lesson))(z)
        H = J.mT @ inside.reshape(z.numel(), -1) @ J + DECAY * torch.eye(len(H))
    b = flat(torch.func.grad(network.outer)(theta, phi, network.validation))
    eye = torch.eye(len(H))
    x, solve = {
        "dense": (torch.linalg.solve(H.mT, b), Dense()),
        "none": (0.3 * b, Identity(0.3)),
        "series": (0.3 * b + 0.3 * (eye - 0.3 * H) @ b, Neumann(2, 0.3, measure_residual=False)),
    }[solver]
    result = run(inner, network, PLAIN[name], theta, phi, Implicit(solve, method))
    assert relative_error(result.value, -B.mT @ x) < tolerance
    assert float(result.diagnostics["stationarity"]) == pytest.approx(
        float(p.norm(residual(inner, batch, theta, phi))), rel=1e-12
    )


@pytest.mark.parametrize("of_phi", [False, True], ids=["weights", "inputs"])
@pytest.mark.parametrize("solver", [Identity(0.3), Neumann(3, 0.1)], ids=["none", "series"])
@pytest.mark.parametrize("name", [*PLAIN, *SHARP])
def test_what_is_shown_of_a_loss_changes_no_hypergradient(name, solver, of_phi):
    # A plain loss leaves nothing but the kept graph, which is right for any optimiser.
    network, theta, phi = tanh_network()
    inner = shown(network, of_phi=of_phi)
    optimizer = (PLAIN | SHARP)[name]
    kept = run(plain_loss(inner), network, optimizer, theta, phi, Implicit(solver))
    found = run(inner, network, optimizer, theta, phi, Implicit(solver))
    assert relative_error(found.value, kept.value) < 1e-12
    assert relative_error(found.adjoint, kept.adjoint) < 1e-12
    assert relative_error(found.theta, kept.theta) < 1e-13
    with torch.no_grad():
        grad_fn = Hessian()(inner, phi, network.everything)
        moved, _, _ = step(optimizer, grad_fn, theta, optimizer.init(theta))
    assert relative_error(found.theta, moved) < 1e-13


@pytest.mark.parametrize("solver", [Neumann(1, 1.0), Neumann(3, 1.0)], ids=["1", "3"])
def test_a_preconditioned_series_is_the_same_by_every_structure(solver):
    network, theta, phi = tanh_network()
    inner, method = shown(network), Implicit(solver, precondition=True)
    kept = run(plain_loss(inner), network, PLAIN["adam"], theta, phi, method)
    found = run(inner, network, PLAIN["adam"], theta, phi, method)
    assert relative_error(found.value, kept.value) < 1e-12


def test_without_products_no_graph_of_the_gradient_is_built(monkeypatch):
    network, theta, phi = tanh_network()
    created = []
    gradients = torch.autograd.grad

    def watched(outputs, inputs, *args, create_graph=False, **kwargs):
        inputs = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        if create_graph:
            created.append({tuple(value.shape) for value in inputs})
        return gradients(outputs, inputs, *args, create_graph=create_graph, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    for optimizer in PLAIN.values():
        run(shown(network), network, optimizer, theta, phi, Implicit(Identity()))
    assert created
    assert all(shapes == {(12, 3)} for shapes in created)  # of the loss to the outputs, not to θ
    run(shown(network), network, PLAIN["sgd"], theta, phi, Implicit(Neumann(2, 0.1)))
    assert any(shapes != {(12, 3)} for shapes in created)


def deep():
    """A deep square student with weights for its examples, and the problem around it."""
    student = Student(nn.Sequential(*[nn.Linear(8, 8) for _ in range(40)]))
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(5, 8, generator=g), torch.randint(8, (5,)), torch.arange(5))
    inner = taught(student, ExampleWeights(Table(5)))

    def outer(theta, phi, batch):
        return functional.cross_entropy(student(theta, batch.x), batch.y)

    return Bilevel(inner, outer), theta, {"logits": torch.zeros(5)}, batch


@pytest.mark.parametrize(
    ("curvature", "terms", "expected"),
    [
        (Hessian(), 1, 1 + 1 + 2 / 3),
        (Hessian(), 2, 1 + 1 + 2 + 2 / 3),
        (Hessian(), 5, 1 + 1 + 4 * 2 + 2 / 3),
        (GaussNewton(), 1, 1 + 1 + 2 / 3),
        (GaussNewton(), 2, 1 + 1 + 4 / 3 + 2 / 3),
        (GaussNewton(), 5, 1 + 1 + 4 * 4 / 3 + 2 / 3),
    ],
)
def test_costs_in_gradients(curvature, terms, expected):
    # outer gradient, inner gradient (shared with the training step), products, mixed product
    problem, theta, phi, batch = deep()

    def flops(function):
        with FlopCounterMode(display=False) as counter:
            function()
        return counter.get_total_flops()

    unit = flops(lambda: Hessian()(problem.inner, phi, batch)(theta))
    method = Implicit(Neumann(terms, 1e-3, measure_residual=False), curvature)
    cost = flops(
        lambda: method(problem, SGD(0.1), theta, phi, inner=[batch], outer=batch),
    )
    assert cost == pytest.approx(expected * unit, rel=0.03)


# A convolutional student with batch normalisation, under three kinds of commentary.


def commented(kind):
    student = Student(
        nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)
        )
    )
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    batch = Batch(
        torch.randn(7, 1, 6, 6, generator=g), torch.randint(3, (7,), generator=g), torch.arange(7)
    )
    phi = {"a": torch.randn(7, generator=g), "m": torch.randn(6, 6, generator=g)}

    def outputs(theta, phi, batch):
        x, target = batch.x, functional.one_hot(batch.y, 3).to(batch.x.dtype)
        weight = torch.ones(7)
        if kind == "weights":
            weight = torch.sigmoid(phi["a"])
        elif kind == "masks":
            x = x * torch.sigmoid(phi["m"])
        else:
            share = torch.sigmoid(phi["a"])
            x = share[:, None, None, None] * x + (1 - share)[:, None, None, None] * x.flip(0)
            target = share[:, None] * target + (1 - share)[:, None] * target.flip(0)
        return student(theta, x), (weight, target)

    def loss(z, held, lesson):
        weight, target = lesson
        return (weight * functional.cross_entropy(z, target, reduction="none")).mean()

    return Composed(outputs, loss), theta, phi, batch


@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gn"])
@pytest.mark.parametrize("method", ["constant θ", "live θ", "implicit"])
@pytest.mark.parametrize("kind", ["weights", "masks", "mixing"])
def test_mixed_products_of_each_commentary_are_slopes(kind, method, curvature):
    inner, theta, phi, batch = commented(kind)
    v, u = normal(theta, 3), normal(phi, 4)

    def along(at):
        leaves = p.live(theta)
        return p.dot(v, p.gradients(inner(leaves, at, batch), leaves))

    if method == "implicit":
        # L_V = ⟨v, θ⟩, so that with the identity for the inverse the hypergradient is -vᵀ∂F/∂φ
        problem = Bilevel(inner, lambda theta, phi, batch: p.dot(v, theta))
        solver = Neumann(1, 1.0, measure_residual=False)
        result = Implicit(solver, curvature)(
            problem, SGD(0.1), theta, phi, inner=[batch], outer=batch
        )
        found = p.scale(result.value, -1.0)
    else:
        leaf = p.live(phi)
        at = p.live(theta) if method == "live θ" else theta
        gradient, _ = curvature(inner, leaf, batch)(at)
        found = p.pull_back(gradient, v, leaf)
    assert float(p.dot(found, u)) == pytest.approx(slope(along, phi, u, 1e-5), rel=1e-6)


def test_the_optimizer_as_a_function_of_phi():
    # F = ∇L(θ + ρ ε̂) + decay θ with ρ = exp(φ): its derivative in φ, by hand
    network, theta, phi = tanh_network()
    inner, batch = shown(network), network.everything
    phi = phi | {"log rho": torch.tensor(-1.0)}

    def optimizer(phi):
        return SAM(SGD(0.3, weight_decay=DECAY), rho=phi["log rho"].exp())

    def own_residual(theta, phi):
        gradient = torch.func.grad(plain_loss(inner))
        g = gradient(theta, phi, batch)
        point = p.add(theta, g, phi["log rho"].exp() / flat(g).norm())
        return p.add(gradient(point, phi, batch), theta, DECAY)

    H = dense_jacobian(lambda at: own_residual(at, phi), theta)
    b = flat(torch.func.grad(network.outer)(theta, phi, network.validation))
    for solver, x in ((Dense(), torch.linalg.solve(H.mT, b)), (Identity(0.5), 0.5 * b)):
        expected = {}
        for name in phi:
            of_name = dense_jacobian(lambda at: own_residual(theta, phi | at), {name: phi[name]})
            expected[name] = -of_name.mT @ x
        result = run(inner, network, optimizer, theta, phi, Implicit(solver))
        for name, value in expected.items():
            assert relative_error(result.value[name].reshape(-1), value) < 1e-9

    def end(at):
        return run(inner, network, optimizer(at), theta, at, Unrolled()).outer_loss

    u = {"w": torch.zeros(12), "log rho": torch.ones(())}
    result = run(inner, network, optimizer, theta, phi, Unrolled(every="sqrt"))
    expected = slope(end, phi, u, 1e-5)
    assert float(result.value["log rho"]) == pytest.approx(expected, rel=1e-6)


def test_a_decay_that_is_learned_with_a_plain_optimizer():
    # φ enters F through the optimiser as well: the shortcut for weights must not be taken
    network, theta, phi = tanh_network()
    phi = phi | {"decay": torch.tensor(0.4)}

    def optimizer(phi):
        return SGD(0.3, weight_decay=phi["decay"])

    result = run(shown(network), network, optimizer, theta, phi, Implicit(Neumann(2, 0.3)))
    x = result.adjoint
    expected = -float(p.dot(x, theta))
    assert float(result.value["decay"]) == pytest.approx(expected, rel=1e-12)
    fixed = run(
        shown(network), network, SGD(0.3, weight_decay=0.4), theta, phi, Implicit(Neumann(2, 0.3))
    )
    assert relative_error(result.value["w"], fixed.value["w"]) < 1e-12
