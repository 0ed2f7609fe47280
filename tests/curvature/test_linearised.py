"""The student linearised: J v by forward mode from the layers' kept outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import normal, relative_error, tanh_network
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from commentaries import params as p
from commentaries.commentary import ExampleWeights, Table, taught
from commentaries.curvature import FiniteDifference, GaussNewton, Hessian, linearise
from commentaries.errors import BadInput
from commentaries.problem import Composed
from commentaries.student import Student
from commentaries.types import Batch

pytestmark = pytest.mark.usefixtures("float64")


class Attention(nn.Module):
    """One layer of a transformer, read from a dict of inputs."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens, scale):
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(self.norm(tokens + scale * mixed).mean(1))


class Tied(nn.Module):
    """One matrix in two places, an activation that works in place, and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        hidden = nn.functional.silu(self.first(x), inplace=True)
        return self.head(torch.tanh(self.second(torch.tanh_(self.frozen(hidden)))))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 3, 3),
        nn.GroupNorm(3, 3),
        nn.SiLU(inplace=True),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(75, 3),
    )


STUDENTS = {
    "convolutions": (convolutional, (2, 6, 6)),
    "attention": (Attention, (4, 6)),
    "tied": (Tied, (5,)),
}
every_student = pytest.mark.parametrize("name", STUDENTS)


def case(name):
    """(inner, θ, φ, batch) with a learned weight for each example."""
    build, shape = STUDENTS[name]
    student = Student(build)
    theta = student.init(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    x = torch.randn(7, *shape, generator=g)
    if name == "attention":
        x = {"tokens": x, "scale": torch.rand(7, 1, 1, generator=g)}
    batch = Batch(x, torch.randint(3, (7,), generator=g), torch.arange(7), seed=4)
    inner = taught(student, ExampleWeights(Table(7)))
    return inner, theta, {"logits": torch.randn(7, generator=g)}, batch


def products(curvature, inner, theta, phi, batch, v):
    theta, phi = p.live(theta), p.live(phi)
    gradient, _ = curvature(inner, phi, batch)(theta)
    return p.pull_back(gradient, v, theta), p.pull_back(gradient, v, phi)


@every_student
def test_push_forward_is_the_slope_of_the_outputs(name):
    inner, theta, phi, batch = case(name)
    v, h = normal(theta, 2), 1e-6
    moved = linearise(inner, theta, phi, batch).push_forward(v)
    above = inner.outputs(p.add(theta, v, h), phi, batch)[0]
    below = inner.outputs(p.add(theta, v, -h), phi, batch)[0]
    assert relative_error(moved, (above - below) / (2 * h)) < 1e-7


@every_student
@pytest.mark.parametrize("curvature", [Hessian(), GaussNewton()], ids=["hessian", "gn"])
def test_where_phi_alone_is_asked_for_the_mixed_product_is_that_of_the_graph(name, curvature):
    inner, theta, phi, batch = case(name)
    v = normal(theta, 3)
    _, exact = products(Hessian(), inner, theta, phi, batch, v)
    leaf = p.live(phi)
    gradient, loss = curvature(inner, leaf, batch)(theta)
    expected, value = curvature(inner, phi, batch)(theta)
    assert relative_error(p.detach(gradient), expected) < 1e-12
    assert float(loss) == pytest.approx(float(value), rel=1e-13)
    assert not loss.requires_grad
    assert relative_error(p.pull_back(gradient, v, leaf), exact) < 1e-12
    assert relative_error(products(curvature, inner, theta, phi, batch, v)[1], exact) < 1e-12


@every_student
def test_gauss_newton_of_each_student_against_its_own_graph(name):
    inner, theta, phi, batch = case(name)
    v = normal(theta, 3)
    found, _ = products(GaussNewton(), inner, theta, phi, batch, v)
    # the same, with φ in the outputs' graph by a factor of one: then J is kept as a graph
    one = Composed(
        lambda t, f, b: (inner.outputs(t, f, b)[0] * f["one"], inner.outputs(t, f, b)[1]),
        inner.loss,
    )
    more = phi | {"one": torch.ones(())}
    expected, _ = products(GaussNewton(), one, theta, more, batch, v)
    assert relative_error(found, expected) < 1e-12


@settings(max_examples=15, deadline=None)
@given(
    seeds=st.tuples(*[st.integers(0, 2**20)] * 2),
    factor=st.floats(-1e3, 1e3),
    name=st.sampled_from(sorted(STUDENTS)),
)
def test_products_are_linear_symmetric_and_positive(seeds, factor, name):
    torch.set_default_dtype(torch.float64)
    inner, theta, phi, batch = case(name)
    u, v = (normal(theta, seed) for seed in seeds)
    for curvature in (Hessian(), GaussNewton()):
        Hu, mixed_u = products(curvature, inner, theta, phi, batch, u)
        Hv, mixed_v = products(curvature, inner, theta, phi, batch, v)
        scale = float(p.norm(u) * p.norm(Hv) + p.norm(v) * p.norm(Hu))
        assert abs(float(p.dot(u, Hv) - p.dot(v, Hu))) < 1e-12 * scale
        both, mixed = products(curvature, inner, theta, phi, batch, p.add(u, v, factor))
        size = p.norm(Hu) + abs(factor) * p.norm(Hv)
        assert p.norm(p.subtract(both, p.add(Hu, Hv, factor))) < 1e-11 * size
        size = p.norm(mixed_u) + abs(factor) * p.norm(mixed_v)
        assert p.norm(p.subtract(mixed, p.add(mixed_u, mixed_v, factor))) < 1e-11 * size
        if isinstance(curvature, GaussNewton):
            assert p.dot(u, Hu) >= -1e-12 * p.norm(u) * p.norm(Hu)


def test_what_phi_does_is_seen_in_the_graph():
    inner, theta, phi, batch = case("tied")
    live = p.live(phi)
    assert not linearise(inner, p.live(theta), live, batch).sees(live)
    mask = Composed(
        lambda t, f, b: inner.outputs(t, f, b._replace(x=b.x * f["logits"][:5])), inner.loss
    )
    assert linearise(mask, p.live(theta), live, batch).sees(live)
    assert linearise(mask, theta, live, batch).sees(live)
    twice = {"logits": live["logits"] * 2}  # no leaf
    assert linearise(mask, p.live(theta), twice, batch).sees(twice)
    assert not linearise(inner, p.live(theta), twice, batch).sees(twice)
    itself = Composed(lambda t, f, b: (f["logits"], None), inner.loss)
    assert linearise(itself, theta, live, batch).sees(live)


def flops(function):
    with FlopCounterMode(display=False) as counter:
        result = function()
    return counter.get_total_flops(), result


def test_costs_in_gradients():
    # Deep and square, so that the first layer, which needs no gradient of its input, is no matter.
    student = Student(nn.Sequential(*[nn.Linear(8, 8) for _ in range(40)]))
    theta = student.init(torch.Generator().manual_seed(0))
    batch = Batch(torch.randn(5, 8), torch.randint(8, (5,)), torch.arange(5))
    inner, phi = taught(student, ExampleWeights(Table(5))), {"logits": torch.zeros(5)}
    unit, _ = flops(lambda: Hessian()(inner, phi, batch)(theta))
    v = normal(theta, 1)
    at, on = p.live(theta), p.live(phi)
    cost, (gradient, _) = flops(lambda: GaussNewton()(inner, on, batch)(at))
    assert cost == pytest.approx(unit, rel=0.03)
    assert flops(lambda: p.pull_back(gradient, v, at))[0] == pytest.approx(4 / 3 * unit, rel=0.03)
    assert flops(lambda: p.pull_back(gradient, v, on))[0] == pytest.approx(2 / 3 * unit, rel=0.03)
    cost, (gradient, _) = flops(lambda: Hessian()(inner, on, batch)(theta))
    assert cost == pytest.approx(unit, rel=0.03)
    assert flops(lambda: p.pull_back(gradient, v, on))[0] == pytest.approx(2 / 3 * unit, rel=0.03)


def test_a_student_that_runs_different_layers_is_refused():
    _, theta, phi = tanh_network()
    calls = []

    def outputs(theta, phi, batch):
        z = batch.x
        calls.append(None)
        for _ in range(len(calls)):
            z = functional.linear(z, theta["0.weight"][:3])
        return z, None

    inner = Composed(outputs, lambda z, held, lesson: z.mean())
    batch = Batch(torch.randn(2, 3), torch.zeros(2), torch.arange(2))
    point = linearise(inner, theta, phi, batch)
    with pytest.raises(BadInput, match=r"batch\.seed\.$"):
        point.push_forward(theta)
    calls.append(None)
    point = linearise(inner, theta, phi, batch)
    calls.clear()
    with pytest.raises(BadInput, match=r"batch\.seed\.$"):
        point.push_forward(theta)


def test_a_product_by_forward_mode_cannot_be_differentiated_again():
    inner, theta, phi, batch = case("tied")
    theta = p.live(theta)
    gradient, _ = GaussNewton()(inner, phi, batch)(theta)
    with pytest.raises(BadInput, match=r"Use curvature\.Hessian\(\)\.$"):
        p.gradients(list(gradient.values()), theta, list(theta.values()), create_graph=True)


def test_finite_differences_agree_for_each_student():
    for name in STUDENTS:
        inner, theta, phi, batch = case(name)
        v = normal(theta, 3)
        exact = products(Hessian(), inner, theta, phi, batch, v)
        found = products(FiniteDifference(1e-5), inner, theta, phi, batch, v)
        for a, b in zip(found, exact, strict=True):
            assert relative_error(a, b) < 1e-6
