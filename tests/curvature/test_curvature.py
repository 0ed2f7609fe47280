"""How ∇L is taken and differentiated: exact products, positive ones, and differences."""

import pytest
import torch
from oracles import dense_jacobian, flat, normal, relative_error, shaped, tanh_network
from torch import nn
from torch.nn import functional

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian
from commentaries.errors import BadInput
from commentaries.problem import Composed
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")

CURVATURES = {"hessian": Hessian(), "gn": GaussNewton(), "fd": FiniteDifference(1e-4)}
every_curvature = pytest.mark.parametrize("curvature", CURVATURES.values(), ids=CURVATURES.keys())


def small():
    """A tanh network, shown: (network, inner, θ, φ, batch)."""
    network, theta, phi = tanh_network()

    def outputs(theta, phi, batch):
        return network.outputs(theta, batch.x), (torch.sigmoid(phi["w"])[batch.index], batch.y)

    def loss(z, held, lesson):
        weights, y = lesson
        return (weights * functional.cross_entropy(z, y, reduction="none")).mean()

    return network, Composed(outputs, loss), theta, phi, network.everything


def normalised():
    """A convolutional student with batch normalisation and dropout."""
    student = Student(
        nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.Tanh(),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.LayerNorm(48),
            nn.Linear(48, 3),
        )
    )
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    batch = Batch(
        torch.randn(7, 1, 6, 6, generator=g),
        torch.randint(3, (7,), generator=g),
        torch.arange(7),
        seed=4,
    )
    phi = {"logits": torch.randn(7, generator=g)}
    return None, taught(student, ExampleWeights(Table(7))), theta, phi, batch


every_case = pytest.mark.parametrize("case", [small, normalised], ids=["tanh", "batchnorm"])


def products(curvature, inner, theta, phi, batch, v):
    theta, phi = p.live(theta), p.live(phi)
    gradient, _ = curvature(inner, phi, batch)(theta)
    return p.pull_back(gradient, v, theta), p.pull_back(gradient, v, phi)


# What holds for every curvature: copy these for one of your own.


@every_curvature
@every_case
def test_the_gradient_is_the_gradient(curvature, case):
    _, inner, theta, phi, batch = case()
    leaves = p.live(theta)
    loss = inner(leaves, phi, batch)
    expected = dict(zip(theta, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for at, on in ((theta, phi), (p.live(theta), phi), (theta, p.live(phi))):
        grad_fn = curvature(inner, on, batch)
        gradient, value = grad_fn(at)
        assert grad_fn.size == batch.size
        assert list(gradient) == list(theta)
        assert relative_error(p.detach(gradient), expected) < 1e-12
        assert float(value) == pytest.approx(float(loss.detach()), rel=1e-14)
        assert not value.requires_grad


@every_curvature
@every_case
@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("of_theta", [False, True])
@pytest.mark.parametrize("of_phi", [False, True])
def test_differentiable_exactly_when_asked(curvature, case, grad_mode, of_theta, of_phi):
    _, inner, theta, phi, batch = case()
    theta, phi = (p.live(theta) if of_theta else theta), (p.live(phi) if of_phi else phi)
    with torch.set_grad_enabled(grad_mode):
        gradient, _ = curvature(inner, phi, batch)(theta)
    assert p.requires_grad(gradient) == (grad_mode and (of_theta or of_phi))
    assert all(leaf.grad is None for leaf in [*theta.values(), *phi.values()])


@every_curvature
@every_case
def test_the_same_call_twice_is_bitwise_equal_and_moves_nothing(curvature, case):
    _, inner, theta, phi, batch = case()
    state, before = torch.get_rng_state(), flat(theta).clone()
    v = normal(theta, 1)
    first = products(curvature, inner, theta, phi, batch, v)
    torch.manual_seed(99)
    second = products(curvature, inner, theta, phi, batch, v)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(flat(a), flat(b))
    torch.set_rng_state(state)
    products(curvature, inner, theta, phi, batch, v)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flat(theta), before)


@every_curvature
@pytest.mark.parametrize("live", [False, True])
def test_rows_are_the_gradient_of_those_examples(curvature, live):
    _, inner, theta, phi, batch = small()
    rows = slice(2, 7)
    expected, loss = Hessian()(inner, phi, batch.rows(rows))(theta)
    gradient, value = curvature(inner, phi, batch)(p.live(theta) if live else theta, rows)
    assert relative_error(p.detach(gradient), expected) < 1e-13
    assert float(value) == pytest.approx(float(loss), rel=1e-14)


@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gn"])
@every_case
def test_products_are_symmetric_and_linear(curvature, case):
    _, inner, theta, phi, batch = case()
    u, v = normal(theta, 1), normal(theta, 2)
    Hu, mixed_u = products(curvature, inner, theta, phi, batch, u)
    Hv, mixed_v = products(curvature, inner, theta, phi, batch, v)
    scale = float(p.norm(u) * p.norm(Hv))
    assert abs(float(p.dot(u, Hv) - p.dot(v, Hu))) < 1e-13 * scale
    both, mixed = products(curvature, inner, theta, phi, batch, p.add(u, v, -2.0))
    assert relative_error(both, p.add(Hu, Hv, -2.0)) < 1e-12
    assert relative_error(mixed, p.add(mixed_u, mixed_v, -2.0)) < 1e-12


# Values.


@pytest.mark.parametrize("shown", [True, False], ids=["composed", "plain"])
def test_hessian_products_against_the_dense_hessian(shown):
    network, composed, theta, phi, batch = small()
    inner = composed if shown else network.inner
    F = lambda theta, phi: torch.func.grad(network.inner)(theta, phi, batch)  # noqa: E731
    H = dense_jacobian(lambda at: F(at, phi), theta)
    B = dense_jacobian(lambda at: F(theta, at), phi)
    v = normal(theta, 3)
    by_theta, by_phi = products(Hessian(), inner, theta, phi, batch, v)
    assert relative_error(by_theta, H @ flat(v)) < 1e-12
    assert relative_error(by_phi, B.mT @ flat(v)) < 1e-12
    assert torch.linalg.eigvalsh(H)[0] < -1e-3  # indefinite, as networks are


@every_case
def test_hessian_products_against_central_differences(case):
    _, inner, theta, phi, batch = case()
    v, h = normal(theta, 3), 1e-5

    def gradient(at, on):
        leaves = p.live(at)
        return p.gradients(inner(leaves, on, batch), leaves)

    by_theta, by_phi = products(Hessian(), inner, theta, phi, batch, v)
    above, below = gradient(p.add(theta, v, h), phi), gradient(p.add(theta, v, -h), phi)
    assert relative_error(by_theta, p.scale(p.subtract(above, below), 1 / (2 * h))) < 1e-6
    u = normal(phi, 5)
    above, below = gradient(theta, p.add(phi, u, h)), gradient(theta, p.add(phi, u, -h))
    expected = p.dot(v, p.scale(p.subtract(above, below), 1 / (2 * h)))
    assert float(p.dot(by_phi, u)) == pytest.approx(float(expected), rel=1e-6)


def test_gauss_newton_is_the_jacobian_sandwich_and_positive():
    network, inner, theta, phi, batch = small()
    J = dense_jacobian(lambda at: {"z": network.outputs(at, batch.x)}, theta)
    probability = network.outputs(theta, batch.x).softmax(1)
    blocks = torch.diag_embed(probability) - probability[:, :, None] * probability[:, None, :]
    weights = torch.sigmoid(phi["w"])[:, None, None]
    middle = torch.block_diag(*(weights * blocks / batch.size))
    G = J.mT @ middle @ J
    columns = [
        flat(products(GaussNewton(), inner, theta, phi, batch, shaped(e, theta))[0])
        for e in torch.eye(len(G))
    ]
    built = torch.stack(columns, dim=1)
    assert relative_error(built, G) < 1e-12
    eigenvalues = torch.linalg.eigvalsh((built + built.mT) / 2)
    assert eigenvalues[0] > -1e-14 * eigenvalues[-1]
    H = dense_jacobian(lambda at: torch.func.grad(network.inner)(at, phi, batch), theta)
    assert relative_error(built, H) > 0.05  # it is not the Hessian


@every_case
def test_gauss_newton_mixed_products_are_the_hessians(case):
    _, inner, theta, phi, batch = case()
    for seed in (1, 2):
        v = normal(theta, seed)
        _, exact = products(Hessian(), inner, theta, phi, batch, v)
        _, found = products(GaussNewton(), inner, theta, phi, batch, v)
        assert relative_error(found, exact) < 1e-12


def test_gauss_newton_is_the_hessian_of_a_linear_student():
    _, theta, phi = tanh_network()
    _, inner, _, _, batch = small()
    linear = {k: v for k, v in theta.items() if k.startswith("0")}
    shown = Composed(
        lambda t, f, b: (b.x @ t["0.weight"].mT + t["0.bias"], inner.outputs(theta, f, b)[1]),
        lambda z, held, lesson: inner.loss(z[:, :3], held, lesson),
    )
    v = normal(linear, 1)
    exact = products(Hessian(), shown, linear, phi, batch, v)
    found = products(GaussNewton(), shown, linear, phi, batch, v)
    for a, b in zip(found, exact, strict=True):
        assert relative_error(a, b) < 1e-12


@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gn"])
def test_mixed_product_where_the_outputs_depend_on_phi(curvature):
    # a mask on the inputs, through normalisation layers: where native kernels go wrong silently
    _, inner, theta, _, batch = normalised()
    g = torch.Generator().manual_seed(3)
    phi = {"mask": torch.randn(6, 6, generator=g), "logits": torch.randn(7, generator=g)}
    shown = Composed(
        lambda t, f, b: inner.outputs(t, f, b._replace(x=b.x * torch.sigmoid(f["mask"]))),
        inner.loss,
    )
    v, u, h = normal(theta, 1), normal(phi, 2), 1e-5

    def gradient(on):
        leaves = p.live(theta)
        return p.gradients(shown(leaves, on, batch), leaves)

    _, mixed = products(curvature, shown, theta, phi, batch, v)
    above, below = gradient(p.add(phi, u, h)), gradient(p.add(phi, u, -h))
    expected = p.dot(v, p.scale(p.subtract(above, below), 1 / (2 * h)))
    assert float(p.dot(mixed, u)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("shown", [True, False], ids=["composed", "plain"])
def test_finite_differences_are_close_and_better_with_smaller_steps(shown):
    network, composed, theta, phi, batch = small()
    inner = composed if shown else network.inner
    v = normal(theta, 3)
    exact = products(Hessian(), inner, theta, phi, batch, v)
    errors = []
    for length in (1e-2, 1e-3, 1e-4):
        found = products(FiniteDifference(length), inner, theta, phi, batch, v)
        errors.append(max(relative_error(a, b) for a, b in zip(found, exact, strict=True)))
    assert errors[2] < 1e-6
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.2)  # second order
    long = products(FiniteDifference(1e-3), inner, theta, phi, batch, p.scale(v, 1e6))
    assert relative_error(long[0], p.scale(exact[0], 1e6)) < 1e-4  # h is in units of ‖θ‖, not v


def test_finite_differences_of_the_normalised_student():
    _, inner, theta, phi, batch = normalised()
    v = normal(theta, 3)
    exact = products(Hessian(), inner, theta, phi, batch, v)
    found = products(FiniteDifference(1e-5), inner, theta, phi, batch, v)
    for a, b in zip(found, exact, strict=True):
        assert relative_error(a, b) < 1e-5


def test_finite_difference_along_zero_is_zero():
    _, inner, theta, phi, batch = small()
    by_theta, by_phi = products(FiniteDifference(), inner, theta, phi, batch, p.zeros_like(theta))
    assert not flat(by_theta).any()
    assert not flat(by_phi).any()


def test_a_parameter_without_influence_has_a_zero_derivative():
    _, inner, theta, phi, batch = small()
    theta, phi = theta | {"idle": torch.ones(2)}, phi | {"idle": torch.ones(3)}
    for curvature in CURVATURES.values():
        by_theta, by_phi = products(curvature, inner, theta, phi, batch, normal(theta, 1))
        assert torch.equal(by_theta["idle"], torch.zeros(2))
        assert torch.equal(by_phi["idle"], torch.zeros(3))
        assert flat(by_theta).any()


def test_gauss_newton_of_a_plain_loss_is_refused():
    network, _, _, phi, batch = small()
    with pytest.raises(BadInput, match=r"use curvature\.Hessian\(\)\.$"):
        GaussNewton()(network.inner, phi, batch)


def test_a_step_out_of_range_is_refused():
    with pytest.raises(BadInput, match="step is 0"):
        FiniteDifference(0.0)
